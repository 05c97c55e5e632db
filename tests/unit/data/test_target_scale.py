"""Mean and standard deviation of targets, whatever their unit."""

from dataclasses import replace

import numpy as np
import pytest

from nlp_transfer.contracts import LabelSpace, Prepared
from nlp_transfer.data.target_scale import MOST_COARSE, TargetScale, standardize_targets
from tests.tiny import make_splits
from tests.training import make_recipe, prepare

DRAWN = np.random.default_rng(0).normal(size=500)

UNITS = [(1.0, 0.0), (100.0, 0.0), (2e5, 1e5), (1e-3, 0.0), (1e6, -3e6), (1e-30, 0.0), (1e37, 0.0), (1.0, 1e6)]
"""Factor and shift of a unit."""


@pytest.mark.parametrize(("factor", "shift"), UNITS)
def test_standard_deviations_are_the_same_in_every_unit(factor, shift):
    scale = TargetScale.measure(DRAWN * factor + shift)
    assert scale.mean == pytest.approx(DRAWN.mean() * factor + shift, rel=1e-9, abs=1e-9 * factor)
    assert scale.deviation == pytest.approx(DRAWN.std() * factor, rel=1e-9)
    found = scale.standardize(DRAWN * factor + shift)
    assert np.abs(found - (DRAWN - DRAWN.mean()) / DRAWN.std()).max() < 1e-8
    assert np.allclose(scale.restore(found), DRAWN * factor + shift, rtol=1e-9, atol=1e-9 * factor)


@pytest.mark.parametrize("value", [0.1, 1e6 + 0.1, 0.0, -3e38])
def test_a_constant_target_keeps_its_unit(value):
    scale = TargetScale.measure(np.full(7, value))
    assert scale == TargetScale(value, 1.0)
    assert scale.standardize(np.array([value])).tolist() == [0.0]


def test_what_float32_cannot_tell_apart_is_measured_in_deviations():
    assert TargetScale(1e6, 1.0).measure_coarseness(1e6) == pytest.approx(1 / 16)
    assert TargetScale(2e5, 1e5).measure_coarseness(3e5) < MOST_COARSE / 1000
    assert TargetScale(1e6, 1e-3).measure_coarseness(1e6) > 1
    assert TargetScale(0.0, 1e-20).measure_coarseness(3e-20) < MOST_COARSE


@pytest.mark.parametrize(
    "metadata",
    [
        *({}, {"target": None}, {"target": [1, 2]}, {"target": {"mean": 1.0}}, {"target": {"mean": 1, "deviation": 0}}),
        *({"target": {"mean": "x", "deviation": 1}}, {"target": {"mean": float("nan"), "deviation": 1}}),
    ],
)
def test_a_record_without_a_sound_scale_changes_nothing(metadata):
    assert TargetScale.read(metadata) == TargetScale()


def test_every_split_is_standardized_by_train_and_the_given_ones_stay(tiny_encoder):
    recipe = make_recipe(tiny_encoder("bert"), task__kind="regression")
    _, prepared = prepare(recipe, make_splits(12, kind="regression"))
    test = replace(prepared.splits["test"], labels=None)
    given = Prepared({**prepared.splits, "test": test}, LabelSpace("regression", ("score",)), prepared.pad)
    before = {name: None if each.labels is None else each.labels.copy() for name, each in given.splits.items()}
    found = standardize_targets(given, TargetScale(0.5, 0.25))
    assert found.splits["test"].labels is None
    for split in ("train", "validation"):
        labels = found.splits[split].labels
        assert labels.dtype == np.float32
        assert labels.tolist() == pytest.approx(((before[split] - 0.5) / 0.25).tolist())
        assert given.splits[split].labels.tolist() == before[split].tolist()
