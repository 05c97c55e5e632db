"""Every strategy that trains in the loop does so in bf16, on every family."""

import pytest
import torch
from accelerate import Accelerator

from nlp_transfer.engine.precision import Precision
from nlp_transfer.fitting.fit import fit_model
from tests.contracts.variants import VARIANTS, make_recipe, prepare
from tests.tiny import FAMILIES, make_splits

HALF = Precision("bf16", "asked for")

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
    prepared = prepare(recipe, splits)
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
