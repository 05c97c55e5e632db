import numpy as np
import pytest
from scipy import stats

from nlp_transfer.errors import ShapeError
from nlp_transfer.evaluation.intervals import (
    bootstrap_interval,
    bootstrap_values,
    draw_weights,
    paired_bootstrap,
    percentile_interval,
    wilson_interval,
)


def test_resamples_are_the_same_whatever_the_chunks() -> None:
    whole = np.concatenate(list(draw_weights(17, resamples=50, seed=3)), axis=1)
    compared = 0
    for cells in (17, 18, 100, 333):
        chunks = list(draw_weights(17, resamples=50, seed=3, max_cells=cells))
        assert len(chunks) > 1
        assert (np.concatenate(chunks, axis=1) == whole).all()
        compared += 1
    assert compared == 4
    assert whole.shape == (17, 50)
    assert (whole.sum(axis=0) == 17).all()


def test_seeds_decide_the_resamples() -> None:
    draws = [next(draw_weights(30, resamples=20, seed=seed)) for seed in (0, 0, 1)]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()


def test_interval_of_a_mean_is_close_to_scipys() -> None:
    values = np.random.default_rng(0).normal(size=200)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    ours = bootstrap_interval(lambda weights: values @ weights / 200, 200, resamples=4000, confidence=0.95)
    assert ours.low == pytest.approx(theirs.low, abs=0.015)
    assert ours.high == pytest.approx(theirs.high, abs=0.015)


def test_95_percent_intervals_of_accuracy_cover_the_truth_in_93_to_97_percent_of_1000_test_sets() -> None:
    truth, n, trials = 0.8, 300, 1000
    rng = np.random.default_rng(0)
    covered = {"bootstrap": 0, "wilson": 0, "too narrow": 0}
    for trial in range(trials):
        right = (rng.random(n) < truth).astype(float)
        found = bootstrap_interval(
            lambda weights, right=right: right @ weights / n, n, resamples=400, confidence=0.95, seed=trial
        )
        covered["bootstrap"] += found.low <= truth <= found.high
        wilson = wilson_interval(int(right.sum()), n, 0.95)
        covered["wilson"] += wilson.low <= truth <= wilson.high
        # What the test must refuse: an interval of half the width.
        covered["too narrow"] += abs(right.mean() - truth) <= (found.high - found.low) / 4
    assert 0.93 <= covered["bootstrap"] / trials <= 0.97, covered
    assert 0.93 <= covered["wilson"] / trials <= 0.97, covered
    assert covered["too narrow"] / trials < 0.8, covered


def test_paired_interval_is_close_to_scipys_and_narrower_than_unpaired() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=300)
    first, second = hard + 0.1 + 0.1 * rng.normal(size=300), hard
    theirs = stats.bootstrap(
        (first, second),
        lambda a, b, axis: (a - b).mean(axis=axis),
        paired=True,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    ours = paired_bootstrap(first, second, resamples=4000, confidence=0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.002)
    assert ours.value == pytest.approx((first - second).mean())
    assert ours.low > 0
    alone = bootstrap_interval(lambda weights: first @ weights / 300, 300, resamples=1000, confidence=0.95)
    assert ours.high - ours.low < (alone.high - alone.low) / 5


def test_a_system_against_itself_gains_exactly_nothing() -> None:
    values = np.random.default_rng(0).normal(size=40)
    found = paired_bootstrap(values, values, resamples=100, confidence=0.95)
    assert (found.value, found.low, found.high, found.n) == (0.0, 0.0, 0.0, 40)


def test_wilson_equals_scipys() -> None:
    compared = 0
    for n in (1, 2, 10, 333):
        for successes in {0, 1, n // 2, n}:
            for confidence in (0.8, 0.95, 0.99):
                theirs = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
                found = wilson_interval(successes, n, confidence)
                assert found == pytest.approx((theirs.low, theirs.high), abs=1e-12)
                compared += 1
    assert compared == (2 + 3 + 4 + 4) * 3


def test_undefined_resamples_are_left_out() -> None:
    assert percentile_interval(np.array([np.nan, 2.0, 2.0]), 0.95) == (2.0, 2.0)
    assert np.isnan(percentile_interval(np.array([np.nan]), 0.95)).all()


def test_several_figures_share_their_resamples() -> None:
    found = bootstrap_values(lambda weights: np.stack([weights[0], weights[0]]), 5, resamples=30, seed=0)
    assert found.shape == (2, 30)
    assert (found[0] == found[1]).all()


def test_nothing_to_resample_is_refused() -> None:
    with pytest.raises(ShapeError, match="at least 1 example"):
        next(draw_weights(0, resamples=10, seed=0))
    with pytest.raises(ShapeError, match="same examples twice"):
        paired_bootstrap(np.ones(3), np.ones(4), resamples=10, confidence=0.95)
    for successes, n in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ShapeError, match="wilson"):
            wilson_interval(successes, n, 0.95)
