"""Packed training through the whole of a fit: same losses, same weights, said in the log; resumed bit for bit."""

import pytest
import torch
from accelerate import Accelerator

from nlp_transfer.engine.precision import Precision
from nlp_transfer.errors import RecipeError
from nlp_transfer.fitting.fit import fit_model
from tests.tiny import make_splits
from tests.training import Breaker, Killed, copy_weights, find_largest_gap, make_recipe, prepare

STEPS = {"training.max_steps": 4, "training.batch_size": 8, "evaluation.tfidf": False}


def run(folder, splits=None, hooks=(), checkpoints=None, **overrides):
    recipe = make_recipe(folder, **STEPS, **overrides)
    splits, prepared = prepare(recipe, splits or make_splits(40, 3))
    return fit_model(
        recipe,
        splits,
        prepared,
        Accelerator(cpu=True),
        make_hooks=lambda *_: hooks,
        checkpoints=checkpoints,
        precision=Precision("bf16" if recipe.training.precision == "bf16" else "fp32", "asked for"),
    )


@pytest.mark.parametrize("long_text", ["truncate", "windows"])
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_a_packed_fit_ends_where_a_padded_one_does(family, long_text, tiny_encoder):
    data = {"data.long_text": long_text, "data.max_length": 16 if long_text == "windows" else 64}
    padded = run(tiny_encoder(family), **data)
    packed = run(tiny_encoder(family), **data, training__packing="on")
    assert packed.log.losses == pytest.approx(padded.log.losses, abs=1e-5)
    left, right = copy_weights(padded.adapted.model), copy_weights(packed.adapted.model)
    assert find_largest_gap(left, right) < 1e-4
    assert [look.metrics for look in packed.log.evaluations] == [
        pytest.approx(look.metrics, abs=1e-4) for look in padded.log.evaluations
    ]
    assert packed.log.packing == "rows are packed, without padding"
    assert padded.log.packing.startswith("rows are padded: cpu has no attention")
    assert packed.log.tokens == padded.log.tokens
    assert packed.log.compiled == "nothing is compiled: asked for"


WAYS = [
    {"strategy.kind": "layerwise", "strategy.cache_prefix": False},
    {"strategy.kind": "lora", "strategy.dropout": 0.0},
    {"strategy.kind": "adapters"},
    {"strategy.kind": "few_shot", "data.shots": 4},
    {"strategy.kind": "full", "strategy.head_init": "probe"},
    {"strategy.kind": "full", "training.microbatch_size": 3, "training.gradient_checkpointing": True},
    {"strategy.kind": "full", "training.precision": "bf16"},
]


# The first, a plain adapter, and bf16; the others with -m slow.
@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=[] if place in (0, 2, 6) else [pytest.mark.slow]) for place, way in enumerate(WAYS)],
    ids=lambda way: "-".join(map(str, way.values())),
)
def test_every_way_to_train_an_encoder_can_be_packed(way, tiny_encoder):
    padded = run(tiny_encoder("bert"), **way)
    packed = run(tiny_encoder("bert"), **way, training__packing="on")
    assert packed.log.packing == "rows are packed, without padding"
    assert len(packed.log.losses) == 4
    is_half = packed.log.precision == "bf16"
    assert is_half == ("training.precision" in way)
    assert packed.log.losses == pytest.approx(padded.log.losses, abs=2e-2 if is_half else 1e-5)


def test_a_packed_run_that_broke_off_goes_on_bit_for_bit(tiny_encoder, tmp_path):
    settings = {"training.packing": "on", "training.checkpoint_every": 2, "encoder.dropout": 0.1}
    whole = run(tiny_encoder("bert"), **settings)
    assert whole.log.packing.endswith("attention dropout of 0.1 is left out")
    with pytest.raises(Killed):
        run(tiny_encoder("bert"), hooks=(Breaker(3),), checkpoints=tmp_path, **settings)
    resumed = run(tiny_encoder("bert"), checkpoints=tmp_path, **settings)
    assert resumed.log.resumed_at == [2]
    right = copy_weights(resumed.adapted.model)
    assert all(torch.equal(value, right[name]) for name, value in copy_weights(whole.adapted.model).items())


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"strategy.kind": "frozen"}, "cached"),
        ({"strategy.kind": "prompts", "strategy.variant": "prefix"}, "prompts"),
    ],
)
def test_what_cannot_be_packed_is_refused_when_it_is_asked_for(overrides, reason, tiny_encoder):
    with pytest.raises(RecipeError, match=rf"training\.packing: .*{reason}"):
        run(tiny_encoder("bert"), training__packing="on", **overrides)
