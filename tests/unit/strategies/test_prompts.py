"""Prompts: how many, how they begin, what is kept, and how long a text may be beside them."""

import pytest
import torch
from accelerate import Accelerator
from peft import AutoPeftModelForSequenceClassification

from nlp_transfer.classifier import Classifier
from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import EncoderError, RecipeError
from nlp_transfer.fitting.fit import fit_model
from nlp_transfer.models.encoder import load_encoder, load_tokenizer, quiet_loading
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.publishing.artifact import save_artifact
from nlp_transfer.recipe.schema import EncoderConfig, PromptsConfig
from nlp_transfer.runs.pipeline import run
from nlp_transfer.strategies.prompts import adapt_prompts
from tests.tiny import FAMILIES, make_splits, make_texts
from tests.training import make_recipe, prepare

LABELS = LabelSpace("classification", ("a", "b"))
READ_KEYS = ("bert", "roberta", "xlm-roberta", "electra")
"""Families that take keys and values from outside."""

CELLS = [
    (variant, family)
    for variant in ("prompt", "p_tuning", "prefix")
    for family in (READ_KEYS if variant == "prefix" else FAMILIES)
]


def adapt(folder, **settings):
    loaded = load_encoder(EncoderConfig(name=str(folder)), LABELS, seed=0)
    return loaded, adapt_prompts(loaded, PromptsConfig(kind="prompts", **settings))


def compute(model, folder, texts):
    tokenizer = load_tokenizer(resolve_encoder(EncoderConfig(name=str(folder))))
    with torch.no_grad():
        return model.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits


@pytest.mark.parametrize(("variant", "family"), CELLS)
def test_padding_changes_no_logits_and_every_prompt_counts(variant, family, tiny_encoder):
    folder = tiny_encoder(family, "masked_lm")
    _, adapted = adapt(folder, variant=variant, tokens=5)
    short, long = make_texts(1, max_words=4)[0], " ".join(make_texts(2, max_words=12))
    alone, padded = compute(adapted.model, folder, [short])[0], compute(adapted.model, folder, [short, long])[0]
    assert torch.allclose(alone, padded, atol=1e-5)
    model = adapted.to_artifact(adapted.model)
    kept = compute(model, folder, [short])[0]
    assert torch.allclose(kept, alone, atol=1e-6)
    vectors = model.prompt_encoder["default"].embedding.weight
    assert vectors.shape[0] == 5
    # Not a constant, which a norm would take away again.
    shift = torch.randn(vectors.shape[1], generator=torch.Generator().manual_seed(0))
    for row in range(5):
        with torch.no_grad():
            vectors[row] += shift
            changed = compute(model, folder, [short])[0]
            vectors[row] -= shift
        assert not torch.allclose(changed, kept, atol=1e-6), row


def test_prompts_of_the_vocabulary_are_vectors_of_words(tiny_encoder):
    loaded, adapted = adapt(tiny_encoder("bert"), variant="prompt", tokens=7)
    words = loaded.model.get_input_embeddings().weight
    vectors = adapted.model.prompt_encoder["default"].embedding.weight
    assert vectors.shape == (7, 32)
    assert all((words == vector).all(dim=1).any() for vector in vectors)
    _, drawn = adapt(tiny_encoder("bert"), variant="prompt", init="random")
    assert not any(
        (words == vector).all(dim=1).any() for vector in drawn.model.prompt_encoder["default"].embedding.weight
    )


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in READ_KEYS])
def test_prefix_is_refused_where_no_keys_are_taken(family, tiny_encoder):
    with pytest.raises(RecipeError, match=r"does not take\. Use strategy\.variant=p_tuning or prompt"):
        adapt(tiny_encoder(family), variant="prefix")


def test_modernbert_s_own_head_is_not_taken_for_that_of_the_prompts(tiny_encoder):
    _, adapted = adapt(tiny_encoder("modernbert", "masked_lm"), variant="p_tuning")
    names = [name for name, _ in adapted.model.named_parameters() if name.startswith("prompt_encoder.")]
    assert len(names) == 7
    assert not [name for name in names if "modules_to_save" in name or "original_module" in name]


SETTINGS = {
    "training": {"max_steps": 2, "batch_size": 8, "device": "cpu"},
    "evaluation": {"resamples": 100, "tfidf": False},
}


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v3", "modernbert"])
def test_a_text_gets_fewer_places_beside_prompts_and_a_note_says_so(family, tiny_encoder, tmp_path):
    tables = make_splits(24, 2).tables
    recipe = {
        **SETTINGS,
        "encoder": {"name": str(tiny_encoder(family))},
        "strategy": {"kind": "prompts", "tokens": 28},
        "data": {"max_length": 128},
    }
    report = run(recipe, data=tables, output_dir=tmp_path / "run")
    assert report.record["data"]["max_length"] == 100
    notes = " ".join(report.record["data"]["notes"])
    assert "the encoder reads at most 100 tokens beside 28 prompts; used 100" in notes
    assert len(Classifier.from_pretrained(tmp_path / "run").predict(["superb " * 300])) == 1


def test_prompts_that_leave_no_room_are_refused(tiny_encoder, tmp_path):
    recipe = {
        **SETTINGS,
        "encoder": {"name": str(tiny_encoder("bert"))},
        "strategy": {"kind": "prompts", "tokens": 126},
    }
    with pytest.raises(RecipeError, match=r"strategy\.tokens: 126 prompts leave no room for a text"):
        run(recipe, data=make_splits(24, 2).tables, output_dir=tmp_path / "run")


def test_an_artifact_of_prompts_is_no_encoder_and_names_its_base(tiny_encoder, tmp_path):
    loaded, adapted = adapt(tiny_encoder("bert"))
    save_artifact(
        tmp_path / "model",
        adapted.to_artifact(adapted.model),
        load_tokenizer(loaded.source),
        labels=LABELS,
        source=loaded.source,
        merge=False,
        metadata={},
    )
    with pytest.raises(EncoderError, match=r"prompts cannot be folded into its encoder\. Name that: ") as caught:
        load_encoder(EncoderConfig(name=str(tmp_path / "model")), LABELS, seed=0)
    assert str(tiny_encoder("bert")) in str(caught.value)


def test_the_network_that_makes_the_vectors_is_not_saved(tiny_encoder, tmp_path):
    recipe = make_recipe(
        tiny_encoder("bert"),
        strategy__kind="prompts",
        strategy__variant="p_tuning",
        training__max_steps=2,
        training__learning_rate=1e-2,
    )
    splits, prepared = prepare(recipe, n=36)
    fitted = fit_model(recipe, splits, prepared, Accelerator(cpu=True))
    save_artifact(
        tmp_path / "model",
        fitted.adapted.model,
        load_tokenizer(fitted.loaded.source),
        labels=splits.labels,
        source=fitted.loaded.source,
        merge=False,
        metadata={},
    )
    names = splits.labels.names
    with quiet_loading():
        loaded = AutoPeftModelForSequenceClassification.from_pretrained(str(tmp_path / "model"), num_labels=len(names))
    assert [name for name, _ in loaded.prompt_encoder.named_parameters()] == ["default.embedding.weight"]
    texts = make_texts(4)
    folder = tiny_encoder("bert")
    assert torch.equal(compute(loaded, folder, texts), compute(fitted.adapted.model, folder, texts))
