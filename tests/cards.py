"""A model card held against the Hub's rules, as far as they can be checked without the Hub."""

import re
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

__all__ = ["LIBRARIES", "check_card"]

LIBRARIES = ("transformers", "peft", "nlp_transfer")
KEYS = {
    *("base_model", "datasets", "language", "library_name", "license", "model-index", "pipeline_tag", "tags", "widget"),
    "license_name",
}
"""Keys of the metadata that a card of ours may have, all of them the Hub's."""


def check_card(text: str) -> dict[str, Any]:
    """Refuse a card whose metadata the Hub would not take, or that lacks a section.

    Args:
        text: The card.

    Returns:
        Its metadata.

    Raises:
        AssertionError: Something is wrong.
    """
    assert text.startswith("---\n")
    block, _, body = text[4:].partition("\n---\n")
    metadata = yaml.safe_load(block)
    assert isinstance(metadata, dict)
    assert set(metadata) <= KEYS, set(metadata) - KEYS
    assert metadata["library_name"] in LIBRARIES
    assert metadata["pipeline_tag"] == "text-classification"
    assert all(isinstance(tag, str) and tag for tag in metadata["tags"])
    base = metadata.get("base_model")
    assert base is None or re.fullmatch(r"[\w.-]+/[\w.-]+", base)
    for example in metadata.get("widget", []):
        assert set(example) == {"text", "example_title"}
        assert all(isinstance(value, str) and value for value in example.values())
    check_model_index(metadata)
    # The Hub's own reader and writer give it back as it was.
    card = ModelCard(text)
    assert card.data.to_dict() == metadata
    assert ModelCardData(**dict(metadata)).to_dict() == metadata
    for heading in ("Load it", "Scores", "Data", "Limits", "Recipe"):
        assert len(re.findall(rf"^## {heading}$", body, flags=re.MULTILINE)) == 1, heading
    assert "```python\n" in body
    return metadata


def check_model_index(metadata: dict[str, Any]) -> None:
    """Hold the scores against the structure that the Hub documents."""
    if "model-index" not in metadata:
        return
    (model,) = metadata["model-index"]
    assert set(model) == {"name", "results"}
    assert model["results"]
    for result in model["results"]:
        assert set(result) == {"task", "dataset", "metrics"}
        assert result["task"]["type"] == "text-classification"
        assert result["dataset"]["name"]
        assert result["dataset"]["type"]
        for metric in result["metrics"]:
            assert {"type", "value"} <= set(metric)
            assert isinstance(metric["value"], float | int)
    name, results = model_index_to_eval_results(metadata["model-index"])
    assert eval_results_to_model_index(name, results) == metadata["model-index"]
