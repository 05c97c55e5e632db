import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import ArtifactError, DataError, ShapeError
from nlp_transfer.evaluation.calibration import (
    RAW_SHARE,
    Calibrator,
    Knots,
    brier_score,
    expected_calibration_error,
    fit_calibrator,
    keep_order,
    read_calibrator,
    reliability_bins,
)


def test_perfect_confidence_has_no_calibration_error() -> None:
    certain = np.eye(3)[[0, 1, 2, 0]]
    assert expected_calibration_error(certain, np.array([0, 1, 2, 0])) == 0.0
    assert expected_calibration_error(certain, np.array([1, 2, 0, 1])) == 1.0


def test_bins_add_up_to_the_calibration_error() -> None:
    rng = np.random.default_rng(0)
    compared = 0
    for bins in (1, 2, 10, 15):
        probabilities = rng.dirichlet(np.ones(4), size=200)
        labels = rng.integers(4, size=200)
        found = reliability_bins(probabilities, labels, bins)
        gaps = np.abs(np.nan_to_num(found.accuracy) - np.nan_to_num(found.confidence))
        assert found.counts.sum() == 200
        assert (found.counts * gaps).sum() / 200 == pytest.approx(
            expected_calibration_error(probabilities, labels, bins=bins)
        )
        compared += 1
    assert compared == 4


def test_a_bin_holds_its_upper_edge() -> None:
    found = reliability_bins(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 0]), bins=2)
    assert found.counts.tolist() == [1, 1]
    assert found.edges.tolist() == [0.0, 0.5, 1.0]


def test_brier_of_more_than_two_classes_sums_over_classes() -> None:
    assert brier_score(np.array([[0.0, 1.0, 0.0]]), np.array([0])) == 2.0
    assert brier_score(np.array([[0.0, 1.0]]), np.array([0])) == 1.0


@pytest.mark.parametrize("measure", [expected_calibration_error, reliability_bins, brier_score])
@pytest.mark.parametrize(("rows", "labels"), [(2, 3), (0, 0)])
def test_sizes_that_disagree_or_are_zero_are_refused(measure, rows: int, labels: int) -> None:
    with pytest.raises(ShapeError, match="calibration"):
        measure(np.full((rows, 2), 0.5), np.zeros(labels, dtype=np.int64))


def make_split(num_rows, num_classes, seed, sharpness=3.0):
    """Labels drawn from honest probabilities, stated three times too surely."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(num_rows, num_classes)) * 1.2
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([draw.choice(num_classes, p=row) for row in honest])
    stated = np.exp(sharpness * logits)
    return stated / stated.sum(axis=1, keepdims=True), labels


def space_of(num_classes):
    return LabelSpace("classification", tuple(f"c{n}" for n in range(num_classes)))


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
@pytest.mark.parametrize("num_classes", [2, 4])
def test_calibration_halves_the_error_of_other_rows_and_changes_no_decision(kind, num_classes):
    fitted_on = make_split(1500, num_classes, 0)
    stated, labels = make_split(3000, num_classes, 1)
    found = fit_calibrator(kind, *fitted_on, space_of(num_classes)).apply(stated)
    assert found.shape == stated.shape
    assert np.allclose(found.sum(axis=1), 1)
    assert np.array_equal(found.argmax(axis=1), stated.argmax(axis=1))
    before, after = (expected_calibration_error(values, labels) for values in (stated, found))
    assert before > 0.1
    assert after < before / 2
    assert brier_score(found, labels) < brier_score(stated, labels)


def test_temperature_recovers_how_much_too_sure_the_logits_were():
    stated, labels = make_split(4000, 3, 0)
    assert fit_calibrator("temperature", stated, labels, space_of(3)).temperature == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_rows_without_a_mistake_are_no_proof_that_there_never_is_one(num_classes):
    rows, space = 200, space_of(num_classes)
    labels = np.arange(rows) % num_classes
    stated = np.full((rows, num_classes), 0.4 / (num_classes - 1))
    stated[np.arange(rows), labels] = 0.6
    found = fit_calibrator("temperature", stated, labels, space).apply(stated)
    # One mistake among two more rows, as Laplace would have it.
    assert found[np.arange(rows), labels] == pytest.approx(np.full(rows, 1 - 1 / (rows + 2)), abs=1e-4)


def test_temperature_divides_the_logits():
    logits = np.random.default_rng(0).normal(size=(50, 4)) * 20
    stated = np.exp(logits - logits.max(axis=1, keepdims=True))
    stated /= stated.sum(axis=1, keepdims=True)
    divided = np.exp(logits / 2.5 - (logits / 2.5).max(axis=1, keepdims=True))
    divided /= divided.sum(axis=1, keepdims=True)
    assert np.allclose(Calibrator("temperature", temperature=2.5).apply(stated), divided, atol=1e-12)


def test_isotonic_maps_are_those_of_scikit_learn_where_no_order_breaks():
    stated, labels = make_split(600, 2, 0)
    found = fit_calibrator("isotonic", stated, labels, space_of(2)).apply(stated)
    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(stated[:, 1], labels == 1)
    edge = 1 / 602
    theirs = np.clip(model.predict(stated[:, 1]), edge, 1 - edge)
    kept = (theirs > 0.5) == (stated[:, 1] > 0.5)
    assert kept.sum() > 400
    mixed = (1 - RAW_SHARE) * theirs + RAW_SHARE * stated[:, 1]
    assert np.allclose(found[kept, 1], mixed[kept], atol=2e-3)


@settings(max_examples=50)
@given(st.integers(2, 6), st.integers(0, 10_000))
def test_kept_order_is_the_raw_one_and_sums_stay(num_classes, seed):
    draw = np.random.default_rng(seed)
    raw, values = draw.dirichlet(np.ones(num_classes), size=(2, 8))
    found = keep_order(values, raw)
    assert np.allclose(found.sum(axis=1), 1)
    assert (found >= 0).all()
    assert np.array_equal(np.argsort(-found, axis=1, kind="stable"), np.argsort(-raw, axis=1, kind="stable"))


def test_kept_order_is_the_nearest_one():
    draw = np.random.default_rng(3)
    raw, values = draw.dirichlet(np.ones(4), size=(2, 20))
    found = keep_order(values, raw)
    for row in range(20):
        order = np.argsort(-raw[row])
        model = IsotonicRegression(increasing=False).fit_transform(np.arange(4), values[row][order])
        assert np.allclose(found[row][order], model, atol=3 * RAW_SHARE)


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_a_map_survives_json(kind):
    stated, labels = make_split(300, 3, 0)
    fitted = fit_calibrator(kind, stated, labels, space_of(3))
    record = json.loads(json.dumps({"calibration": fitted.to_json()}))
    again = read_calibrator(record, num_classes=3, where="model")
    assert again == fitted
    assert np.array_equal(again.apply(stated), fitted.apply(stated))


def test_no_map_is_none_and_a_damaged_one_is_refused():
    assert read_calibrator({}, num_classes=2, where="model") is None
    up = {"stated": [0.0, 1.0], "observed": [0.1, 0.9]}
    down = {"stated": [0.0, 1.0], "observed": [0.9, 0.1]}
    assert read_calibrator({"calibration": {"kind": "isotonic", "knots": [up, up]}}, num_classes=2, where="model")
    damaged = [
        *(7, {}, {"kind": "magic", "knots": [up, up]}, {"kind": "temperature", "temperature": -1}),
        *({"kind": "temperature", "temperature": "nan"}, {"kind": "isotonic", "knots": [up]}),
        *({"kind": "isotonic", "knots": [up, down]}, {"kind": "isotonic", "knots": [up, {"stated": [0.1]}]}),
    ]
    for record in damaged:
        with pytest.raises(ArtifactError, match="model: calibration: expected"):
            read_calibrator({"calibration": record}, num_classes=2, where="model")
    assert len(damaged) == 8


def test_what_cannot_be_calibrated_is_refused():
    stated, labels = make_split(49, 2, 0)
    with pytest.raises(DataError, match="50 validation rows or more, came 49"):
        fit_calibrator("isotonic", stated, labels, space_of(2))
    with pytest.raises(ShapeError, match="label for each of 49"):
        fit_calibrator("temperature", stated, labels[:3], space_of(2))
    with pytest.raises(ShapeError, match="expected exclusive classes"):
        fit_calibrator("temperature", stated, labels, LabelSpace("multi_label", ("a", "b")))
    with pytest.raises(ShapeError, match="expected 1 classes"):
        Calibrator("isotonic", knots=(Knots((0.0,), (0.5,)),)).apply(stated)
