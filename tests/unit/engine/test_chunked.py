"""Updates piece by piece are those of torch's AdamW, with gradients and weights rounded around it."""

import copy

import pytest
import torch
from torch import nn

from nlp_transfer.engine import chunked
from nlp_transfer.engine.checkpoint import collect_optimizer, restore_optimizer
from nlp_transfer.engine.chunked import ChunkedAdamW
from nlp_transfer.engine.masters import Masters
from nlp_transfer.engine.optimizer import build_optimizer
from nlp_transfer.recipe.schema import TrainingConfig

STEPS = 5


def make_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 11), nn.LayerNorm(11), nn.Linear(11, 3))
    model[0].bias.requires_grad_(False)
    return model


def train(model, chunked_steps, *, max_norm=0.3, restart_at=None):
    masters = Masters(model)
    training = TrainingConfig(learning_rate=1e-2, head_learning_rate=3e-2, weight_decay=0.1, batch_size=4)

    def build():
        built = build_optimizer(model, training, ["2.weight", "2.bias"], {}, masters.trained)
        assert isinstance(built, ChunkedAdamW)
        if chunked_steps:
            return built
        return torch.optim.AdamW(built.param_groups, fused=True)

    optimizer = build()
    for step in range(STEPS):
        if step == restart_at:
            kept = collect_optimizer(optimizer)
            optimizer = build()
            restore_optimizer(optimizer, kept)
        torch.manual_seed(step)
        out = model(torch.randn(4, 7, dtype=torch.bfloat16))
        # The second layer's bias is left without gradient once.
        (out if step != 2 else out.detach() + model[1].weight.sum()).float().square().sum().backward()
        if chunked_steps:
            optimizer.clip(max_norm)
            optimizer.step()
        else:
            masters.take_gradients()
            torch.nn.utils.clip_grad_norm_(masters.trained.values(), max_norm)
            optimizer.step()
            masters.hand_down()
        optimizer.zero_grad()
        assert all(p.grad is None for p in model.parameters())
    half = copy.deepcopy(model.state_dict())
    masters.put_back()
    return half, model.state_dict(), collect_optimizer(optimizer)


@pytest.mark.parametrize("elements", [1, 10, 33, 10_000])
@pytest.mark.parametrize("max_norm", [1e-3, 1e9])
def test_weights_and_moments_are_those_of_the_plain_way(elements, max_norm, monkeypatch):
    monkeypatch.setattr(chunked, "ELEMENTS", elements)
    found = [train(make_model(), is_chunked, max_norm=max_norm) for is_chunked in (True, False)]
    for ours, plain in zip(*found, strict=True):
        assert ours.keys() == plain.keys()
        for name, tensor in plain.items():
            assert torch.allclose(ours[name].float(), tensor.float(), rtol=1e-5, atol=1e-8), name
    assert len(found[0][2]) == 3 * 5


def test_a_run_goes_on_bit_for_bit():
    whole, broken = train(make_model(), True), train(make_model(), True, restart_at=3)
    for ours, other in zip(whole, broken, strict=True):
        assert all(torch.equal(ours[name], other[name]) for name in ours)


def test_without_float32_weights_beside_all_of_them_torch_updates():
    model = make_model()
    assert type(build_optimizer(model, TrainingConfig(learning_rate=1e-3))) is torch.optim.AdamW
    model[2].to(torch.bfloat16)
    masters = Masters(model)
    built = build_optimizer(model, TrainingConfig(learning_rate=1e-3), (), {}, masters.trained)
    assert type(built) is torch.optim.AdamW
