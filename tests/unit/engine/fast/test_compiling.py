"""Compiled layers train to the same losses, and leave nothing behind."""

import pytest
import torch

from nlp_transfer.engine.fast import compiling
from nlp_transfer.engine.fast.compiling import compile_layers, find_compiler
from nlp_transfer.engine.fast.unpadded import pack_rows
from nlp_transfer.engine.predict.forward import Feeder
from nlp_transfer.errors import RecipeError
from tests.tiny import make_splits
from tests.training import adapt, copy_weights, find_largest_gap, fit, make_recipe, prepare

CPU = torch.device("cpu")


def build(folder, **overrides):
    recipe = make_recipe(folder, training__max_steps=3, training__batch_size=8, **overrides)
    splits, prepared = prepare(recipe, make_splits(32, 3))
    return recipe, splits, prepared


@pytest.mark.slow
@pytest.mark.skipif(find_compiler(CPU) is not None, reason=f"compiling: {find_compiler(CPU)}")
@pytest.mark.parametrize(("family", "packing"), [("bert", "off"), ("modernbert", "on")])
# Dynamo's own way to say that it compiles for shapes of its choosing.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_compiled_losses_weights_and_names_are_those_of_a_plain_run(family, packing, tiny_encoder, tmp_path):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    recipe, splits, prepared = build(tiny_encoder(family))
    plain, log = fit(recipe, splits, prepared)
    adapted = adapt(recipe, prepared)
    names = list(adapted.model.state_dict())
    # The loop of `fit` has its own feeder; packing is told to both through the model.
    feeder = Feeder(prepared, "train", CPU)
    with (
        pack_rows(adapted.model, feeder, packing, is_half=False) as unpadded,
        compile_layers(adapted.model, CPU, "on") as said,
    ):
        assert said == "2 layers are compiled"
        compiled, other = fit(recipe, splits, prepared, adapted=adapted, folder=tmp_path, packing=unpadded.packing)
        assert list(compiled.state_dict()) == names
    num_graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    # All lengths and layers share one, but for the last layer, which goes on with the first token alone; the stand-in
    # for a GPU's kernel cuts it in pieces.
    assert num_graphs == 2 if packing == "off" else num_graphs > 2
    assert len(set(prepared.splits["train"].lengths.tolist())) > 5
    assert other.losses == pytest.approx(log.losses, abs=1e-5)
    assert find_largest_gap(copy_weights(compiled), copy_weights(plain)) < 1e-4
    assert not any("forward" in module.__dict__ for module in compiled.modules())


def test_layers_are_told_apart_from_what_stands_in_for_them(tiny_encoder, monkeypatch):
    recipe, _, prepared = build(tiny_encoder("albert"))
    model = adapt(recipe, prepared).model
    monkeypatch.setattr(compiling.torch, "compile", lambda forward, dynamic: forward)
    monkeypatch.setattr(compiling, "find_compiler", lambda device: None)
    with compile_layers(model, CPU, "on") as said:
        assert said == "1 layers are compiled"
        (layer,) = [module for module in model.modules() if "forward" in module.__dict__]
        with pytest.raises(RecipeError, match="no list of layers"), compile_layers(model, CPU, "on"):
            pass
    assert "forward" not in layer.__dict__


def test_what_cannot_be_compiled_is_said_or_refused(tiny_encoder, monkeypatch):
    recipe, _, prepared = build(tiny_encoder("bert"))
    model = adapt(recipe, prepared).model
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    for wanted, said in (("off", "asked for"), ("auto", "no gain was measured on cpu")):
        with compile_layers(model, CPU, wanted) as found:
            assert found == f"nothing is compiled: {said}"
    with (
        pytest.raises(RecipeError, match=r"training\.compile: .*no C\+\+ compiler\. Use auto"),
        compile_layers(model, CPU, "on"),
    ):
        pass
