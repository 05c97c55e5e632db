import numpy as np
import pytest

from nlp_transfer.evaluation.metrics.counts import (
    ClassCounter,
    compute_accuracy,
    compute_balanced_accuracy,
    compute_cohen_kappa,
    compute_f1,
    compute_mcc,
    compute_precision,
    compute_quadratic_kappa,
    compute_recall,
)


def _count(labels: list[int], predicted: list[int], num_classes: int):
    return ClassCounter(np.array(labels), np.array(predicted), num_classes).count(np.ones((len(labels), 1)))


def test_hand_worked_table_gives_hand_worked_scores() -> None:
    # Class 0: 2 of 3 found, 3 predicted. Class 1: 1 of 2 found, 2 predicted.
    counts = _count([0, 0, 0, 1, 1], [0, 0, 1, 1, 0], 2)
    assert compute_accuracy(counts)[0] == pytest.approx(3 / 5)
    assert compute_balanced_accuracy(counts)[0] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert compute_precision(counts, None)[:, 0] == pytest.approx([2 / 3, 1 / 2])
    assert compute_recall(counts, None)[:, 0] == pytest.approx([2 / 3, 1 / 2])
    assert compute_f1(counts, "weighted")[0] == pytest.approx((3 * 2 / 3 + 2 * 1 / 2) / 5)
    # Expected agreement: 3/5 * 3/5 + 2/5 * 2/5 = 13/25.
    assert compute_cohen_kappa(counts)[0] == pytest.approx((15 / 25 - 13 / 25) / (12 / 25))
    assert compute_mcc(counts)[0] == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2))


def test_macro_counts_only_exclusive_classes_that_occur() -> None:
    absent = _count([0, 1], [0, 1], 5)
    assert compute_f1(absent, "macro")[0] == 1.0
    columns = ClassCounter(np.array([[1, 0], [1, 0]]), np.array([[1, 0], [1, 0]]), 2).count(np.ones((2, 1)))
    assert compute_f1(columns, "macro")[0] == 0.5


def test_constant_predictions_score_zero_beyond_chance() -> None:
    one_sided = _count([0, 1, 1], [1, 1, 1], 2)
    both = _count([1, 1], [1, 1], 2)
    figures = [compute(counts)[0] for compute in (compute_mcc, compute_cohen_kappa) for counts in (one_sided, both)]
    assert figures == [0.0] * 4
    assert compute_quadratic_kappa(both, np.zeros(2), np.ones((2, 1)))[0] == 0.0


def test_quadratic_kappa_keeps_the_distance_over_an_absent_class() -> None:
    labels, predicted = np.array([0, 0, 2, 2, 3]), np.array([0, 2, 2, 2, 0])
    ours = compute_quadratic_kappa(
        _count(labels.tolist(), predicted.tolist(), 4), ((labels - predicted) ** 2).astype(float), np.ones((5, 1))
    )[0]
    observed = (4 + 9) / 5
    expected = np.mean([[(a - b) ** 2 for a in labels] for b in predicted])
    assert ours == pytest.approx(1 - observed / expected)


def test_a_weighted_sample_equals_the_repeated_one() -> None:
    labels, predicted, times = np.array([0, 1, 2, 1]), np.array([0, 2, 2, 1]), np.array([3, 0, 2, 1])
    weighted = ClassCounter(labels, predicted, 3).count(times[:, None].astype(float))
    repeated = _count(np.repeat(labels, times).tolist(), np.repeat(predicted, times).tolist(), 3)
    computes = (compute_accuracy, compute_mcc, compute_cohen_kappa, compute_balanced_accuracy)
    assert [f(weighted)[0] for f in computes] == pytest.approx([f(repeated)[0] for f in computes])
