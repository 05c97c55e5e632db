"""Computing in bf16 with float32 weights: nothing is rounded for good, and nothing frozen moves."""

import copy

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from nlp_transfer.engine.precision import Precision
from nlp_transfer.engine.train import masters as module
from nlp_transfer.engine.train.masters import HalfAdamW, Masters
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
    assert "changes weights in place" in log.precision_reason


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


SHAPES = ((7, 5), (5,), (40, 30), (), (3, 4, 2))


class Holder(nn.Module):
    """Some parameters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(shape)) for shape in SHAPES)


def make_groups(masters: Masters) -> list[dict[str, object]]:
    weights = list(masters.trained.values())
    return [
        {"params": [each for each in weights if each.ndim > 1], "lr": 0.02, "weight_decay": 0.1},
        {"params": [each for each in weights if each.ndim <= 1], "lr": 0.01, "weight_decay": 0.0},
    ]


def draw_gradients(step: int, scale: float) -> list[torch.Tensor | None]:
    generator = torch.Generator().manual_seed(step)
    drawn = [(torch.randn(shape, generator=generator) * scale).bfloat16() for shape in SHAPES]
    # One weight is not reached in every step.
    return [None if number == 2 and step % 3 == 1 else each for number, each in enumerate(drawn)]


def run_plainly(scale: float, max_norm: float | None) -> tuple[Masters, torch.optim.Optimizer]:
    masters = Masters(Holder())
    optimizer = torch.optim.AdamW(make_groups(masters), fused=True)
    for step in range(20):
        for master, gradient in zip(masters.trained.values(), draw_gradients(step, scale), strict=True):
            master.grad = None if gradient is None else gradient.float()
        if max_norm is not None:
            nn.utils.clip_grad_norm_(masters.trained.values(), max_norm)
        optimizer.step()
    masters.hand_down()
    return masters, optimizer


@pytest.mark.parametrize("piece", [600_000, 100, 7])
@pytest.mark.parametrize(("scale", "max_norm", "tolerance"), [(1.0, 1.0, 1e-3), (1e-4, 1.0, 1e-6), (1.0, None, 1e-6)])
def test_twenty_updates_are_torchs_own(  # norms rounded to bf16 show where gradients are clipped: 0.02 a step, 20 steps
    monkeypatch, piece, scale, max_norm, tolerance
):
    expected, plain = run_plainly(scale, max_norm)
    monkeypatch.setattr(module, "PIECE", piece)
    model = Holder()
    masters = Masters(model)
    optimizer = HalfAdamW(make_groups(masters), masters.lower, max_norm=max_norm)
    for step in range(20):
        for parameter, gradient in zip(model.parameters(), draw_gradients(step, scale), strict=True):
            parameter.grad = gradient
        optimizer.step()
        assert all(parameter.grad is None for parameter in model.parameters())
    for parameter, mine, theirs in zip(
        model.parameters(), masters.trained.values(), expected.trained.values(), strict=True
    ):
        assert torch.allclose(mine, theirs, rtol=0, atol=tolerance)
        assert torch.equal(parameter, mine.bfloat16())
        state, known = optimizer.state[mine], plain.state[theirs]
        assert state.keys() == known.keys()
        assert float(state["step"]) == float(known["step"])
        assert torch.allclose(state["exp_avg"], known["exp_avg"], rtol=5e-3, atol=tolerance / 5)


def test_gradients_summed_in_float32_go_before_those_of_the_model():
    model = Holder()
    masters = Masters(model)
    optimizer = HalfAdamW(make_groups(masters), masters.lower)
    for part in range(2):
        for parameter, gradient in zip(model.parameters(), draw_gradients(3 * part, 1.0), strict=True):
            parameter.grad = gradient
        masters.take_gradients()
    summed = [master.grad.clone() for master in masters.trained.values()]
    optimizer.step()
    for master, gradient in zip(masters.trained.values(), summed, strict=True):
        assert torch.allclose(optimizer.state[master]["exp_avg"], 0.1 * gradient, atol=1e-7)
        assert master.grad is None


def test_gradients_that_are_no_numbers_are_seen_in_the_weights():
    model = Holder()
    masters = Masters(model)
    optimizer = HalfAdamW(make_groups(masters), masters.lower, max_norm=1.0)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    optimizer.step()
    assert all(bool(parameter.isnan().all()) for parameter in model.parameters())


def test_nothing_to_update_is_no_error():
    masters = Masters(Holder())
    HalfAdamW(make_groups(masters), masters.lower, max_norm=1.0).step()
