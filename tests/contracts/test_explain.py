"""Explanations add up, whatever the family, the strategy or the task."""

import numpy as np
import pytest
import torch

from nlp_transfer import Classifier
from nlp_transfer.errors import ArtifactError
from nlp_transfer.models.encoder import load_encoder, load_tokenizer
from nlp_transfer.publishing.artifact import save_artifact
from tests.contracts.test_reload import fit_and_save
from tests.contracts.variants import CHECKPOINTS, make_recipe
from tests.records import rewrite_record
from tests.tiny import make_splits

TEXT = "The superb hotel wasn't awful, it seemed rather naïve today."

FITTED = {
    "lora": True,
    "adapters": True,
    "features": True,
    "features-svm": True,
    "features-mlp": True,
    "features-knn": False,
    "few_shot": True,
    "zero_shot": True,
    "zero_shot-reuse": True,
    "prompts": True,
    "few_shot-cloze": False,
    "zero_shot-entailment": False,
}
"""Techniques, and whether gradients can see through them."""

DEFAULT = ("lora", "adapters", "features", "features-knn", "zero_shot-entailment")
"""Those of the default run; the others with -m slow."""


def write_artifact(encoder, folder, splits, **reading):
    """A drawn head with logits loud enough to differ from word to word."""
    loaded = load_encoder(make_recipe("full", encoder).encoder, splits.labels, seed=0)
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if name in ("classifier.weight", "classifier.out_proj.weight"):
                parameter *= 10
    tokenizer = load_tokenizer(loaded.source)
    reading = {"is_pair": splits.is_pair, "max_length": 48} | reading
    save_artifact(
        folder,
        loaded.model,
        tokenizer,
        labels=splits.labels,
        source=loaded.source,
        merge=False,
        metadata={"reading": reading},
    )
    return folder


def check(found):
    """The values add up to what the words make of the score."""
    record, values = found.record, [word["value"] for word in found.words if word["value"] is not None]
    difference = record["score"] - record["baseline_score"]
    assert record["is_complete"]
    assert len(values) >= 3
    assert abs(sum(values) + record["special"] - difference) == pytest.approx(record["gap"], abs=1e-4)
    assert record["gap"] <= max(0.01 * abs(difference), 0.005)
    return difference


@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
def test_values_of_words_add_up_on_every_family(family, pairs, tiny_encoder, tmp_path):
    splits = make_splits(8, 3, pairs=pairs)
    classifier = Classifier.from_pretrained(write_artifact(tiny_encoder(family), tmp_path / "model", splits))
    texts = (TEXT, "A cold room.") if pairs else (TEXT,)
    differences = []
    for baseline in ("pad", "mask"):
        found = classifier.explain(*texts, baseline=baseline)
        differences.append(check(found))
        assert found.label == classifier.predict([texts[0]], [texts[1]] if pairs else None)[0]
        expected = classifier.predict_proba([texts[0]], [texts[1]] if pairs else None)[0].max()
        assert found.record["score"] == pytest.approx(np.log(expected / (1 - expected)), abs=1e-3)
    assert max(map(abs, differences)) > 0.05
    assert {word["part"] for word in found.words} == ({"text", "text_b"} if pairs else {"text"})
    assert found.record["special"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=[] if name in DEFAULT else pytest.mark.slow) for name in FITTED]
)
def test_strategies_are_explained_or_point_to_occlusion(variant, tiny_encoder, tmp_path):
    encoder = tiny_encoder("bert", CHECKPOINTS.get(variant, "masked_lm"))
    folder = fit_and_save(make_recipe(variant, encoder), make_splits(16, 3), tmp_path / "model")
    reading = {"max_length": 48, "long_text": "truncate", "is_pair": False}
    rewrite_record(folder / "nlp_transfer.json", reading=reading)
    classifier = Classifier.from_pretrained(folder)
    if FITTED[variant]:
        check(classifier.explain(TEXT))
    else:
        with pytest.raises(ArtifactError, match="--method occlusion"):
            classifier.explain(TEXT)
    found = classifier.explain(TEXT, method="occlusion")
    assert len(found.words) == 12
    assert found.record["steps"] is None
    # One word at a time is what a text without that word would be told, but for the blank.
    probability = classifier.predict_proba([TEXT])[0].max()
    assert found.record["score"] == pytest.approx(np.log(probability / (1 - probability)), abs=1e-3)


@pytest.mark.parametrize("kind", ["multi_label", "regression", "ordinal"])
def test_other_tasks_are_explained(kind, tiny_encoder, tmp_path):
    splits = make_splits(8, 3, kind=kind)
    classifier = Classifier.from_pretrained(write_artifact(tiny_encoder("bert"), tmp_path / "model", splits))
    found = classifier.explain(TEXT)
    check(found)
    assert found.label in splits.labels.names
    assert (found.record["probability"] is None) == (kind == "regression")
    assert found.label in str(found)
    assert "0." in found._repr_html_()


@pytest.mark.parametrize("long_text", ["truncate", "head_tail", "windows"])
def test_long_texts_add_up_and_say_what_is_not_read(long_text, tiny_encoder, tmp_path):
    folder = write_artifact(
        tiny_encoder("bert"), tmp_path / "model", make_splits(8, 3), max_length=16, long_text=long_text
    )
    found = Classifier.from_pretrained(folder).explain(" ".join([TEXT] * 3))
    check(found)
    assert len(found.words) == 36
    assert (found.num_unread > 0) == (long_text != "windows")
    assert ("words are not read" in str(found)) == (long_text != "windows")
