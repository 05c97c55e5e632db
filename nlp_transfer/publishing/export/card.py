"""The README of an exported folder."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCardData

from nlp_transfer.models.runtimes import PACKAGES, RUNTIME_FILES, Runtime
from nlp_transfer.publishing.card import escape_markdown
from nlp_transfer.publishing.summary import find_section, name_place

__all__ = ["render_export_card"]

MOST_LABELS = 50
"""Labels that are listed one by one; chosen."""


def render_export_card(
    record: Mapping[str, Any], checks: Mapping[str, Any], *, to: Runtime, int8: bool, num_bytes: int
) -> str:
    """Write what a stranger needs to use an exported folder.

    Args:
        record: What ``nlp_transfer.json`` holds.
        checks: ``shapes`` and ``texts``: `Check` as a dictionary, or None.
        to: ``onnx`` or ``openvino``.
        int8: Whether weights are rounded to eight bits.
        num_bytes: Size of the graph with its weights.

    Returns:
        Markdown with YAML metadata in front, ending in a newline.
    """
    labels, report = record["labels"], find_section(record, "recipe", "report")
    encoder = find_section(record, "encoder")
    precision = "int8" if int8 else "fp32"
    metadata = ModelCardData(
        base_model=encoder.get("hub_id"),
        language=report.get("language"),
        license=report.get("license"),
        library_name=to,
        pipeline_tag="text-classification",
        tags=["nlp_transfer", "text-classification", to, precision],
    ).to_yaml(line_break="\n")
    names = ", ".join(escape_markdown(name, 100) for name in labels["names"][:MOST_LABELS])
    more = len(labels["names"]) - MOST_LABELS
    lines = [
        f"# Text classifier for {PACKAGES[to]}, {precision}",
        "",
        f"Task: {labels['kind'].replace('_', ' ')}. Labels, in the order of the logits: {names}"
        + (f", and {more} more." if more > 0 else "."),
    ]
    if encoder.get("name"):
        lines += ["", f"Encoder: {escape_markdown(name_place(str(encoder['name'])))}."]
    lines += [
        "",
        f"`{RUNTIME_FILES[to]}` ({num_bytes / 1e6:.1f} MB) takes `input_ids`, `attention_mask` and, where it lists "
        "them, `token_type_ids`, int64, of any batch size and length, and gives `logits`, before softmax or sigmoid. "
        "`nlp_transfer.json` holds the label contract, how texts are read, temperature and thresholds.",
        "",
        "```python",
        "import nlp_transfer as nt",
        "",
        'nt.Classifier.from_pretrained("path/to/this/folder").predict(["a text to read"])',
        "```",
        "",
        "## Checked against PyTorch at export",
        "",
    ]
    for key, what in (("shapes", "made-up texts of several lengths"), ("texts", "texts of the data")):
        check = checks.get(key)
        if check:
            lines.append(
                f"- {check['num_texts']} {what} in {check['num_batches']} batches: largest difference of logits "
                f"{check['largest_difference']:.2g} (their standard deviation: {check['deviation']:.2g}), same label "
                f"for {check['agreement']:.1%}."
            )
    if int8 and not checks.get("texts"):
        lines.append("- Agreement in eight bits was not measured on real texts: export with `--data` to know it.")
    return f"---\n{metadata.strip()}\n---\n\n" + "\n".join(lines) + "\n"
