import numpy as np
import pytest

from nlp_transfer.errors import ShapeError
from nlp_transfer.evaluation.calibration import brier_score, expected_calibration_error, reliability_bins


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
