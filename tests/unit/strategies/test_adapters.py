"""Bottleneck adapters: where they go, how they start, and what is kept of them."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import EncoderError, RecipeError
from nlp_transfer.models.bottleneck import Bottleneck
from nlp_transfer.models.encoder import load_encoder, load_tokenizer
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.publishing.artifact import load_artifact, save_artifact
from nlp_transfer.recipe.schema import AdaptersConfig, EncoderConfig
from nlp_transfer.strategies.adapters import adapt_adapters
from tests.tiny import FAMILIES, make_texts

LABELS = LabelSpace("classification", ("a", "b"))
HIDDEN, LAYERS = 32, 2


def adapt(folder, **settings):
    loaded = load_encoder(EncoderConfig(name=str(folder)), LABELS, seed=0)
    return loaded, adapt_adapters(loaded, AdaptersConfig(kind="adapters", **settings))


def read(folder):
    tokenizer = load_tokenizer(resolve_encoder(EncoderConfig(name=str(folder))))
    return dict(tokenizer(make_texts(4), padding=True, return_tensors="pt"))


def compute(model, inputs):
    with torch.no_grad():
        return model.eval()(**inputs).logits


def stir(model):
    """Give every projection up something to say."""
    torch.manual_seed(1)
    with torch.no_grad():
        for adapter in model.adapters.values():
            torch.nn.init.normal_(adapter.up.weight)


@pytest.mark.parametrize("variant", ["houlsby", "pfeiffer", "parallel"])
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_start_as_the_encoder_bit_for_bit_and_then_change_it(family, variant, tiny_encoder):
    folder = tiny_encoder(family, "masked_lm")
    inputs = read(folder)
    _, adapted = adapt(folder, variant=variant)
    plain = load_encoder(EncoderConfig(name=str(folder)), LABELS, seed=0).model
    expected = compute(plain, inputs)
    assert torch.equal(compute(adapted.model, inputs), expected)
    places = (2 if variant == "houlsby" else 1) * (1 if family == "albert" else LAYERS)
    assert len(adapted.model.adapters) == places
    stir(adapted.model)
    assert not torch.allclose(compute(adapted.model, inputs), expected, atol=1e-3)


def test_a_copy_has_adapters_of_its_own(tiny_encoder):
    folder = tiny_encoder("bert")
    inputs = read(folder)
    for variant in ("pfeiffer", "parallel"):
        _, adapted = adapt(folder, variant=variant)
        before = compute(adapted.model, inputs)
        stir(copy.deepcopy(adapted.model))
        assert torch.equal(compute(adapted.model, inputs), before)


def test_adapters_have_the_shape_of_the_recipe(tiny_encoder):
    _, adapted = adapt(tiny_encoder("bert"), reduction=4, activation="silu", dropout=0.2, scale=3.0)
    adapter = adapted.model.adapters["feed_forward_out_0"]
    assert isinstance(adapter, Bottleneck)
    assert (adapter.down.out_features, adapter.dropout.p, adapter.scale) == (HIDDEN // 4, 0.2, 3.0)
    assert isinstance(adapter.activation, torch.nn.SiLU)
    one = 2 * HIDDEN * (HIDDEN // 4) + HIDDEN + HIDDEN // 4
    assert adapted.num_trainable == LAYERS * one + 2 * HIDDEN + 2


def test_a_norm_on_what_adapters_read_makes_them_blind_to_its_size(tiny_encoder):
    _, adapted = adapt(tiny_encoder("bert"), input_norm=True, reduction=4)
    stir(adapted.model)
    adapter = adapted.model.adapters["feed_forward_out_0"]
    read = torch.randn(2, 3, HIDDEN)
    assert torch.allclose(adapter(read), adapter(read * 8), atol=1e-3)
    one = 2 * HIDDEN * (HIDDEN // 4) + HIDDEN + HIDDEN // 4 + 2 * HIDDEN
    assert adapted.num_trainable == LAYERS * one + 2 * HIDDEN + 2


def test_an_adapter_behind_a_sublayer_reads_its_output_and_one_beside_it_reads_its_input(tiny_encoder):
    seen = {}
    for variant in ("pfeiffer", "parallel"):
        loaded, adapted = adapt(tiny_encoder("bert"), variant=variant)
        layer = loaded.model.bert.encoder.layer[0]
        watched = {"after": layer.output.dense, "beside": layer.intermediate.dense}
        found = {}
        watched["after"].register_forward_hook(lambda m, i, o, found=found: found.update(after=i[0]))
        watched["beside"].register_forward_hook(lambda m, i, o, found=found: found.update(beside=i[0]))
        adapted.model.adapters["feed_forward_out_0"].register_forward_hook(
            lambda m, i, o, found=found: found.update(read=i[0])
        )
        compute(adapted.model, read(tiny_encoder("bert")))
        with torch.no_grad():
            output = torch.nn.functional.linear(found["after"], watched["after"].weight, watched["after"].bias)
        seen[variant] = (torch.equal(found["read"], output), torch.equal(found["read"], found["beside"]))
    assert seen == {"pfeiffer": (True, False), "parallel": (False, True)}


def test_a_reduction_wider_than_the_encoder_is_refused(tiny_encoder):
    with pytest.raises(RecipeError, match=r"strategy\.reduction: expected at most 32"):
        adapt(tiny_encoder("bert"), reduction=33)


def test_a_family_without_a_row_in_the_table_is_refused(tiny_encoder, monkeypatch):
    monkeypatch.delitem(__import__("nlp_transfer.models.bottleneck", fromlist=["x"]).ADAPTER_PLACES, "bert")
    with pytest.raises(RecipeError, match=r"got an encoder of bert\. Use strategy\.kind=lora"):
        adapt(tiny_encoder("bert"))


def save(folder, loaded, adapted):
    save_artifact(
        folder,
        adapted.model,
        load_tokenizer(loaded.source),
        labels=LABELS,
        source=loaded.source,
        merge=False,
        metadata={},
    )


def test_the_file_holds_adapters_and_head_and_names_the_encoder(tiny_encoder, tmp_path):
    folder = tiny_encoder("bert", "masked_lm")
    loaded, adapted = adapt(folder)
    save(tmp_path / "model", loaded, adapted)
    names = set(load_file(tmp_path / "model" / "own.safetensors"))
    assert {name for name in names if not name.startswith("adapters.")} == {
        f"encoder.{each}.{part}" for each in ("bert.pooler.dense", "classifier") for part in ("weight", "bias")
    }
    assert len(names) == 4 + LAYERS * 4
    record = json.loads((tmp_path / "model" / "nlp_transfer.json").read_text(encoding="utf-8"))
    assert record["architecture"]["encoder"]["location"] == str(folder)
    assert not (tmp_path / "model" / "encoder").exists()


def test_adapters_on_an_earlier_artifact_keep_its_encoder_in_the_folder(tiny_encoder, tmp_path):
    earlier = load_encoder(EncoderConfig(name=str(tiny_encoder("bert"))), LABELS, seed=0)
    with torch.no_grad():
        earlier.model.bert.encoder.layer[0].output.dense.weight.add_(1.0)
    save_artifact(
        tmp_path / "first" / "model",
        earlier.model,
        load_tokenizer(earlier.source),
        labels=LABELS,
        source=earlier.source,
        merge=False,
        metadata={},
    )
    loaded, adapted = adapt(tmp_path / "first")
    stir(adapted.model)
    inputs = read(tiny_encoder("bert"))
    expected = compute(adapted.model, inputs)
    save(tmp_path / "second" / "model", loaded, adapted)
    assert torch.equal(compute(load_artifact(tmp_path / "second").model, inputs), expected)
    kept = AutoModelForSequenceClassification.from_pretrained(tmp_path / "second" / "model" / "encoder")
    assert torch.equal(
        kept.bert.encoder.layer[0].output.dense.weight, earlier.model.bert.encoder.layer[0].output.dense.weight
    )


def test_an_artifact_of_adapters_is_no_encoder_and_names_the_one_under_it(tiny_encoder, tmp_path):
    loaded, adapted = adapt(tiny_encoder("bert"))
    save(tmp_path / "run" / "model", loaded, adapted)
    for place in (tmp_path / "run", tmp_path / "run" / "model"):
        with pytest.raises(
            EncoderError, match=r"kind adapters, which is no encoder.*Name the one under it: "
        ) as caught:
            resolve_encoder(EncoderConfig(name=str(place)))
        assert str(tiny_encoder("bert")) in str(caught.value)
