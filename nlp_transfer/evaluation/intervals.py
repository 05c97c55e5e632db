"""How sure a figure is: percentile bootstrap, paired bootstrap, Wilson's interval.

A resample is written as weights: how often each example was drawn. That turns a thousand resamples of most metrics
into one matrix product.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from nlp_transfer.contracts import Score
from nlp_transfer.errors import ShapeError
from nlp_transfer.evaluation.metrics.counts import FloatArray
from nlp_transfer.evaluation.metrics.numbers import compute_mean

__all__ = [
    "Interval",
    "Statistic",
    "bootstrap_interval",
    "bootstrap_values",
    "draw_weights",
    "paired_bootstrap",
    "percentile_interval",
    "wilson_interval",
]

Statistic = Callable[[FloatArray], FloatArray]
"""Weights, shape (N, R), to values, shape (R,) or (M, R) for M figures at once."""

MAX_CELLS = 2_000_000
"""Weights held at once, 16 MB; chosen: larger chunks are not faster."""


class Interval(NamedTuple):
    """Both ends of an interval, in the unit of the figure."""

    low: float
    high: float


def draw_weights(n: int, *, resamples: int, seed: int, max_cells: int = MAX_CELLS) -> Iterator[FloatArray]:
    """Draw resamples of N examples with replacement, a chunk at a time.

    Args:
        n: Count of examples.
        resamples: Count of resamples over all chunks.
        seed: The same seed and n give the same resamples, whatever the chunks.
        max_cells: Weights held at once.

    Yields:
        How often each example is in each resample, float64, shape (N, R of this chunk).

    Raises:
        ShapeError: There are no examples.

    Example:
        >>> [chunk.sum(axis=0).tolist() for chunk in draw_weights(4, resamples=3, seed=0, max_cells=8)]
        [[4.0, 4.0], [4.0]]
    """
    if n < 1:
        raise ShapeError(f"bootstrap: expected at least 1 example, got {n}; score a split that has rows.")
    generator = np.random.default_rng(seed)
    size = max(1, max_cells // n)
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        drawn = generator.integers(n, size=(count, n))
        cells = drawn * count + np.arange(count)[:, None]
        yield np.bincount(cells.ravel(), minlength=n * count).reshape(n, count).astype(np.float64)


def bootstrap_values(statistic: Statistic, n: int, *, resamples: int, seed: int) -> FloatArray:
    """Compute a statistic on every resample.

    Args:
        statistic: Weights (N, R) to values (R,) or (M, R).
        n: Count of examples.
        resamples: Count of resamples.
        seed: Seed of the draws.

    Returns:
        Values, shape (resamples,) or (M, resamples).

    Example:
        >>> values = np.array([0.0, 1.0, 1.0])
        >>> bootstrap_values(lambda weights: values @ weights / 3, 3, resamples=100, seed=0).shape
        (100,)
    """
    chunks = [statistic(weights) for weights in draw_weights(n, resamples=resamples, seed=seed)]
    return np.concatenate(chunks, axis=-1)


def percentile_interval(values: FloatArray, confidence: float) -> Interval:
    """Cut the tails off a bootstrap distribution.

    Args:
        values: One value a resample, shape (R,); NaN where the statistic is undefined, which is left out.
        confidence: Coverage, in (0, 1).

    Returns:
        The interval; NaN at both ends where no resample is defined.

    Source:
        Efron and Tibshirani 1993, chapter 13. No departures.

    Example:
        >>> low, high = percentile_interval(np.arange(101.0), 0.9)
        >>> round(low, 6), round(high, 6)
        (5.0, 95.0)
    """
    defined = values[~np.isnan(values)]
    if not len(defined):
        return Interval(float("nan"), float("nan"))
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(low), float(high))


def bootstrap_interval(statistic: Statistic, n: int, *, resamples: int, confidence: float, seed: int = 0) -> Interval:
    """Interval of a statistic by the percentile bootstrap over examples.

    Args:
        statistic: Weights (N, R) to values (R,).
        n: Count of examples.
        resamples: Count of resamples.
        confidence: Coverage, in (0, 1).
        seed: Seed of the draws.

    Returns:
        The interval, in the unit of the statistic.

    Raises:
        ShapeError: There are no examples.

    Example:
        >>> right = np.array([1.0] * 90 + [0.0] * 10)
        >>> low, high = bootstrap_interval(lambda weights: right @ weights / 100, 100, resamples=999, confidence=0.95)
        >>> low < 0.9 < high
        True
    """
    return percentile_interval(bootstrap_values(statistic, n, resamples=resamples, seed=seed), confidence)


def paired_bootstrap(
    values_a: FloatArray,
    values_b: FloatArray,
    *,
    resamples: int,
    confidence: float,
    seed: int = 0,
    statistic: Callable[[FloatArray, FloatArray], FloatArray] = compute_mean,
) -> Score:
    """Difference of a statistic between two systems, on the same resamples of the same examples.

    Pairing removes what both find hard, so that a small but steady gain shows.

    Args:
        values_a: One value an example of the first system, float64, shape (N,), such as 1 where it is right.
        values_b: The same of the second system, on the same examples in the same order.
        resamples: Count of resamples.
        confidence: Coverage, in (0, 1).
        seed: Seed of the draws.
        statistic: Values (N,) and weights (N, R) to one figure a resample, shape (R,).

    Returns:
        First minus second with its interval; the gain is real at this confidence where the interval leaves out 0.

    Raises:
        ShapeError: The two disagree on N, or N is 0.

    Example:
        >>> gain = paired_bootstrap(np.ones(50), np.arange(50) % 2.0, resamples=999, confidence=0.95)
        >>> gain.value, gain.low > 0, gain.n
        (0.5, True, 50)
    """
    n = len(values_a)
    if len(values_b) != n:
        raise ShapeError(f"paired bootstrap: expected the same examples twice, got {n} and {len(values_b)} values.")

    def difference(weights: FloatArray) -> FloatArray:
        return statistic(values_a, weights) - statistic(values_b, weights)

    interval = bootstrap_interval(difference, n, resamples=resamples, confidence=confidence, seed=seed)
    return Score(float(difference(np.ones((n, 1)))[0]), interval.low, interval.high, n)


def wilson_interval(successes: int, n: int, confidence: float) -> Interval:
    """Interval of a proportion that holds near 0 and 1 and for few trials.

    Args:
        successes: Count in [0, n].
        n: Count of trials, at least 1.
        confidence: Coverage, in (0, 1).

    Returns:
        Fractions in [0, 1].

    Raises:
        ShapeError: There are no trials, or more successes than trials.

    Source:
        Wilson 1927, "Probable inference, the law of succession, and statistical inference". No departures; without
        continuity correction.

    Example:
        >>> low, high = wilson_interval(9, 10, 0.95)
        >>> round(low, 3), round(high, 3)
        (0.596, 0.982)
    """
    if n < 1 or not 0 <= successes <= n:
        raise ShapeError(f"wilson_interval: expected 0 to n successes of at least 1 trial, got {successes} of {n}.")
    z = float(ndtri((1 + confidence) / 2))
    share = successes / n
    center = share + z * z / (2 * n)
    reach = z * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    scale = 1 + z * z / n
    return Interval(max(0.0, (center - reach) / scale), min(1.0, (center + reach) / scale))
