import numpy as np
import pytest
from scipy import stats

from nlp_transfer.evaluation.metrics.numbers import compute_pearson, compute_spearman, measure_log_loss, rank_values


def test_constant_series_correlate_with_nothing() -> None:
    rising = np.arange(5.0)
    figures = [
        compute(first, second, np.ones((5, 1)))[0]
        for compute in (compute_pearson, compute_spearman)
        for first, second in ((rising, np.full(5, 0.1)), (np.full(5, 1e9 + 0.1), rising))
    ]
    assert figures == [0.0] * 4


def test_a_single_example_correlates_with_nothing() -> None:
    one = np.array([3.3])
    assert compute_pearson(one, one, np.ones((1, 1)))[0] == 0.0


def test_ranks_equal_scipys_with_ties() -> None:
    rng = np.random.default_rng(0)
    compared = 0
    for _ in range(50):
        values = rng.integers(6, size=20).astype(float)
        assert rank_values(values, np.ones((20, 1)))[:, 0].tolist() == stats.rankdata(values).tolist()
        compared += 1
    assert compared == 50


def test_large_offsets_do_not_cancel() -> None:
    rng = np.random.default_rng(1)
    first = rng.normal(size=100)
    second = first + rng.normal(size=100)
    plain = compute_pearson(first, second, np.ones((100, 1)))[0]
    assert compute_pearson(first + 1e6, second - 1e6, np.ones((100, 1)))[0] == pytest.approx(plain, abs=1e-6)


def test_a_probability_of_zero_costs_a_finite_loss() -> None:
    losses = measure_log_loss(np.array([0, 0]), np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert losses.tolist() == pytest.approx([36.04365, 0.0], abs=1e-4)
