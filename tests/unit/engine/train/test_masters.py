"""Computing in bf16 with float32 weights: nothing is rounded for good, and nothing frozen moves."""

import copy

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from nlp_transfer.engine.precision import Precision
from nlp_transfer.engine.train.masters import Masters
from nlp_transfer.fitting.fit import fit_model
from tests.contracts.variants import make_recipe
from tests.contracts.variants import prepare as prepare_variant
from tests.tiny import make_splits
from tests.training import Breaker, Killed, adapt, copy_weights, find_largest_gap, fit, prepare
from tests.training import make_recipe as make_plain_recipe

HALF = Precision("bf16", "asked for")


def test_updates_too_small_for_bf16_add_up():
    layer = nn.Linear(4, 4, bias=False)
    start = layer.weight.detach().clone()
    masters = Masters(layer)
    optimizer = torch.optim.SGD(masters.trained.values(), lr=1e-6)
    for _ in range(1000):
        layer(torch.ones(1, 4, dtype=torch.bfloat16)).sum().backward()
        assert layer.weight.grad is not None
        masters.take_gradients()
        assert layer.weight.grad is None
        optimizer.step()
        optimizer.zero_grad()
        masters.hand_down()
    assert torch.equal(layer.weight, masters.trained["weight"].to(torch.bfloat16))
    masters.put_back()
    assert torch.allclose(layer.weight, start - 1e-3, atol=2e-5)


def test_parts_of_a_window_are_summed_in_float32():
    layer = nn.Linear(1, 1, bias=False)
    masters = Masters(layer)
    for size in (1.0, 2.0**-9, 2.0**-9):
        (layer.weight * size).sum().backward()
        masters.take_gradients()
    masters.take_gradients()  # nothing new: what was taken stays
    assert float(masters.trained["weight"].grad) == 1 + 2.0**-8
    assert 1 + torch.tensor(2.0**-9, dtype=torch.bfloat16) == 1, "in bf16 they would be lost"


def test_frozen_weights_come_back_as_they_were_and_buffers_are_not_rounded():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    masters = Masters(model)
    assert set(masters.trained) == {"1.weight", "1.bias"}
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model[1].running_mean.dtype == torch.float32
    masters.put_back()
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_guides_keep_float32(tiny_encoder):
    recipe = make_recipe("full-l2_sp", tiny_encoder("bert"), max_steps=1)
    splits = make_splits(16, 3)
    log = fit_model(recipe, splits, prepare_variant(recipe, splits), Accelerator(cpu=True), precision=HALF).log
    assert log.precision == "fp32"
    assert "steers weights" in log.precision_reason


def test_a_broken_run_in_bf16_ends_in_the_same_weights(tiny_encoder, tmp_path):
    recipe = make_plain_recipe(
        tiny_encoder("bert"),
        encoder__dropout=0.1,
        training__max_steps=12,
        training__batch_size=8,
        training__learning_rate=1e-3,
        training__checkpoint_every=4,
        training__evaluate_every=3,
        training__select_by="accuracy",
    )
    splits, prepared = prepare(recipe, n=40)

    def score(model: nn.Module) -> dict[str, float]:
        assert next(model.parameters()).dtype == torch.bfloat16
        return {"accuracy": float(torch.sin(1e4 * next(model.parameters()).detach().float().sum()))}

    model, log = fit(recipe, splits, prepared, evaluate=score, half=True)
    unbroken = copy_weights(model)
    with pytest.raises(Killed):
        fit(recipe, splits, prepared, evaluate=score, folder=tmp_path, hooks=(Breaker(7),), half=True)
    model, resumed = fit(recipe, splits, prepared, evaluate=score, folder=tmp_path, half=True)
    assert resumed.resumed_at == [4]
    assert resumed.losses == log.losses
    assert resumed.best_step == log.best_step
    assert find_largest_gap(copy_weights(model), unbroken) == 0
    assert find_largest_gap(unbroken, copy_weights(adapt(recipe, prepared).model)) > 1e-4
