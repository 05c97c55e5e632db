"""The update of a model in bf16, in one pass: torch's own steps, one after the other, are what it must come to."""

import pytest
import torch
from torch import nn

from nlp_transfer.engine.train import half_adamw
from nlp_transfer.engine.train.half_adamw import HalfAdamW
from nlp_transfer.engine.train.masters import Masters

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
    monkeypatch.setattr(half_adamw, "PIECE", piece)
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
