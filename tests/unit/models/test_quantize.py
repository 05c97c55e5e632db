"""Matrices in few bits: refused without a GPU, rounded only while training, gone from what is saved."""

import sys
from importlib.util import find_spec

import pytest
import torch
from accelerate import Accelerator
from peft import PeftModel
from torch import nn
from transformers import AutoTokenizer

from nlp_transfer.errors import MissingExtraError, RecipeError
from nlp_transfer.fitting.fit import fit_model
from nlp_transfer.models.encoder import load_encoder
from nlp_transfer.models.quantize import find_gpu, quantize_linears
from nlp_transfer.publishing.artifact import load_artifact, save_artifact
from tests.training import make_recipe, prepare


def test_without_a_gpu_it_is_refused(monkeypatch, tiny_encoder):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match=r"strategy\.quantize: 4bit needs an NVIDIA GPU"):
        find_gpu("4bit")


def test_without_bitsandbytes_the_install_command_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match=r"nlp_transfer\[quantized\]"):
        find_gpu("8bit")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strategy__variant": "dora"}, "does not apply to strategy.variant dora"),
        ({"strategy__init": "pissa"}, "pissa does not go with strategy.quantize"),
        ({"training__device": "cpu"}, "does not go with training.device cpu"),
    ],
)
def test_what_does_not_go_with_it_is_refused(settings, said, tiny_encoder):
    with pytest.raises(RecipeError, match=said):
        make_recipe(tiny_encoder("bert"), strategy__kind="lora", strategy__quantize="4bit", **settings)


@pytest.fixture(autouse=True)
def plain_layout(monkeypatch):
    """On a processor with bf16 the library packs matrices another way, which wants them wider than tiny ones are."""
    if find_spec("bitsandbytes"):
        monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False, raising=False)


@pytest.mark.parametrize("width", ["4bit", "8bit"])
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_what_is_trained_on_rounded_matrices_is_saved_on_the_published_ones(
    family, width, tiny_encoder, tmp_path, monkeypatch
):
    pytest.importorskip("bitsandbytes")
    # The library works on a CPU too, slowly; that is enough to see that the parts fit.
    monkeypatch.setattr("nlp_transfer.strategies.lora.find_gpu", lambda _: torch.device("cpu"))
    settings = {"strategy__kind": "lora", "strategy__quantize": width, "training__restore_best": False}
    recipe = make_recipe(tiny_encoder(family), **settings, training__max_steps=3, training__learning_rate=1e-2)
    splits, prepared = prepare(recipe, n=32)
    fitted = fit_model(recipe, splits, prepared, Accelerator(cpu=True))
    assert isinstance(fitted.adapted.model, PeftModel)
    plain = load_encoder(recipe.encoder, prepared.labels, seed=0).model.state_dict()
    trained = fitted.adapted.model.state_dict()
    names = [name for name in trained if ".base_layer.weight" in name]
    assert len(names) > 4
    for name in names:
        own = name.removeprefix("base_model.model.").replace(".base_layer", "")
        assert torch.equal(trained[name], plain[own])
    updates = [p for name, p in fitted.adapted.model.named_parameters() if ".lora_B." in name]
    assert all(float(p.detach().abs().sum()) > 0 for p in updates)
    assert fitted.adapted.num_trainable == fitted.num_trainable
    save_artifact(
        tmp_path / "model",
        fitted.adapted.model,
        AutoTokenizer.from_pretrained(recipe.encoder.name),
        labels=prepared.labels,
        source=fitted.loaded.source,
        merge=False,
        metadata={},
    )
    inputs = {name: torch.ones(2, 8, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected = fitted.adapted.model.eval()(**inputs).logits
        assert torch.equal(load_artifact(tmp_path / "model").model(**inputs).logits, expected)


def test_rounded_matrices_give_nearly_the_same_and_the_head_stays(tiny_encoder):
    bnb = pytest.importorskip("bitsandbytes")
    recipe = make_recipe(tiny_encoder("bert"))
    _, prepared = prepare(recipe, n=16)
    model = load_encoder(recipe.encoder, prepared.labels, seed=0).model
    inputs = {name: torch.ones(2, 8, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        before = model(**inputs).logits
        quantize_linears(model, "8bit", torch.device("cpu"))
        after = model(**inputs).logits
    kinds = {name: type(module) for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert kinds["classifier"] is nn.Linear
    assert sum(kind is bnb.nn.Linear8bitLt for kind in kinds.values()) == 12
    assert not torch.equal(before, after)
    assert torch.allclose(before, after, atol=0.1)
