"""Computing in bf16 with float32 weights: nothing is rounded for good, and nothing frozen moves."""

import copy

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from nlp_transfer.engine.masters import Masters
from nlp_transfer.engine.precision import Precision
from nlp_transfer.methods.fit import fit_model
from tests.contracts.variants import VARIANTS, make_recipe
from tests.contracts.variants import prepare as prepare_variant
from tests.tiny import FAMILIES, make_splits
from tests.training import Breaker, adapt, copy_weights, find_largest_gap, fit, prepare
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


DEFAULT = [("full", "bert"), ("lora", "roberta"), ("layerwise", "modernbert"), ("few_shot", "albert")]
KINDS = [name for name, settings in VARIANTS.items() if len(settings) == 1 and name not in ("features", "zero_shot")]


@pytest.mark.parametrize(
    ("variant", "family"),
    [
        pytest.param(variant, family, marks=[] if (variant, family) in DEFAULT else [pytest.mark.slow])
        for variant in [*KINDS, "few_shot-cloze", "distill"]
        for family in FAMILIES
    ],
)
def test_every_strategy_trains_in_bf16_nearly_as_in_float32(variant, family, tiny_encoder):
    checkpoint = "masked_lm" if variant == "few_shot-cloze" else "base"
    recipe = make_recipe(variant, tiny_encoder(family, checkpoint), tiny_encoder(family, "classifier"), max_steps=8)
    splits = make_splits(64, 3)
    prepared = prepare_variant(recipe, splits)
    logs, weights = [], []
    for precision in (Precision("fp32", ""), HALF):
        fitted = fit_model(recipe, splits, prepared, Accelerator(cpu=True), precision=precision)
        logs.append(fitted.log)
        weights.append(dict(fitted.adapted.model.state_dict()))
    assert [log.precision for log in logs] == ["fp32", "bf16"]
    assert logs[1].precision_reason == "asked for"
    assert {value.dtype for value in weights[1].values() if value.is_floating_point()} == {torch.float32}
    plain, half = (torch.tensor(log.losses) for log in logs)
    assert len(half) == 8
    assert torch.isfinite(half).all()
    assert not torch.equal(plain, half)
    assert (plain - half).abs().max() < 0.05 * plain.abs().max()
    changed = {name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])}
    assert len(changed) > 0


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
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, splits, prepared, evaluate=score, folder=tmp_path, hooks=(Breaker(7),), half=True)
    model, resumed = fit(recipe, splits, prepared, evaluate=score, folder=tmp_path, half=True)
    assert resumed.resumed_at == [4]
    assert resumed.losses == log.losses
    assert resumed.best_step == log.best_step
    assert find_largest_gap(copy_weights(model), unbroken) == 0
    assert find_largest_gap(unbroken, copy_weights(adapt(recipe, prepared).model)) > 1e-4
