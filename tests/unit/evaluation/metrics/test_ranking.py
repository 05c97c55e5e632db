import numpy as np
import pytest
from sklearn import metrics as sk

from nlp_transfer.evaluation.metrics.ranking import average_over_classes, compute_average_precision, compute_roc_auc


def test_weighted_rankings_equal_sklearns_with_ties_and_zero_weights() -> None:
    rng = np.random.default_rng(0)
    compared = 0
    while compared < 100:
        n = int(rng.integers(2, 40))
        scores = rng.integers(8, size=n) / 8
        positives = rng.random(n) < 0.4
        weights = rng.integers(0, 4, size=n).astype(float)
        if not (weights[positives].sum() and weights[~positives].sum()):
            continue
        area = compute_roc_auc(scores, positives, weights[:, None])[0]
        precision = compute_average_precision(scores, positives, weights[:, None])[0]
        assert area == pytest.approx(sk.roc_auc_score(positives, scores, sample_weight=weights))
        assert precision == pytest.approx(sk.average_precision_score(positives, scores, sample_weight=weights))
        compared += 1
    assert compared == 100


@pytest.mark.parametrize("positives", [[True, True], [False, False]])
def test_roc_auc_of_one_class_is_undefined(positives: list[bool]) -> None:
    assert np.isnan(compute_roc_auc(np.array([0.1, 0.2]), np.array(positives), np.ones((2, 1)))).all()


def test_average_precision_without_positives_is_zero() -> None:
    assert compute_average_precision(np.array([0.1, 0.2]), np.zeros(2, bool), np.ones((2, 1)))[0] == 0.0


def test_average_over_classes_is_undefined_only_where_no_class_is_defined() -> None:
    found = average_over_classes(np.array([[np.nan, np.nan], [0.5, np.nan]]))
    assert found[0] == 0.5
    assert np.isnan(found[1])
