"""Whether one system is better than another, over examples or seeds; what many tests cost; when a loss is called harm.

Every comparison is of a first system with a second; a difference above 0 speaks for the first where more is better.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri

from nlp_transfer.contracts import Score
from nlp_transfer.errors import ShapeError
from nlp_transfer.evaluation.intervals import MAX_CELLS, bootstrap_values, percentile_interval
from nlp_transfer.evaluation.metrics.counts import FloatArray
from nlp_transfer.evaluation.metrics.numbers import compute_mean

__all__ = [
    "Alternative",
    "Comparison",
    "Dominance",
    "Judgement",
    "SeedSummary",
    "adjust_holm",
    "compare_aso",
    "compare_bootstrap",
    "compare_mcnemar",
    "compare_permutation",
    "judge_gain",
    "summarize_seeds",
]

Alternative = Literal["two-sided", "greater", "less"]
"""What is tested against "no difference": any difference, or the first system being above or below the second."""

SAME = 1e-12
"""Share of the largest sum within which two sums are equal; rounding is far below, a real difference far above."""


@dataclass(frozen=True)
class Comparison:
    """What a paired test found.

    Attributes:
        difference: First minus second, in the unit of the values.
        p_value: Chance of a difference at least this large where there is none, in [0, 1].
        n: Count of examples compared.
        low: Lower end of the difference's interval; None where the test gives none.
        high: Upper end of it.
    """

    difference: float
    p_value: float
    n: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Dominance:
    """How nearly one system's scores lie above another's at every quantile.

    Attributes:
        epsilon: Share of the squared distance between the two that speaks against the first, in [0, 1]; 0 where it is
            above at every quantile, 1 where it is below, 0.5 where the two are the same.
        bound: Upper confidence bound of epsilon, in [0, 1]. Below 0.5 the first is almost stochastically dominant;
            a stricter reader asks for 0.2.
        confidence: Of the bound.
        num_first: Count of scores of the first system.
        num_second: Count of scores of the second.
    """

    epsilon: float
    bound: float
    confidence: float
    num_first: int
    num_second: int


@dataclass(frozen=True)
class SeedSummary:
    """How much a training seed matters.

    Attributes:
        mean: Over the seeds.
        spread: Sample standard deviation over the seeds.
        low: Lower end of the interval of the mean over all seeds there could be.
        high: Upper end of it.
        num_seeds: Count of seeds.
    """

    mean: float
    spread: float
    low: float
    high: float
    num_seeds: int


def compare_mcnemar(
    right_first: np.ndarray, right_second: np.ndarray, *, method: Literal["exact", "mid_p"] = "mid_p"
) -> Comparison:
    """Test whether two classifiers are right equally often, from the examples that only one of them has right.

    Args:
        right_first: Whether the first has each example right, bool or 0 and 1, shape (N,).
        right_second: The same of the second, on the same examples in the same order.
        method: ``exact`` never rejects too often, and rejects too rarely on few examples; ``mid_p`` counts half of
            the observed table's own probability, and is near its level.

    Returns:
        The difference of the two accuracies and the two-sided p-value; 1 where they disagree nowhere.

    Raises:
        ShapeError: The two disagree on N, N is 0, or something is neither 0 nor 1.

    Source:
        McNemar 1947; mid-p as in Fagerland, Lydersen and Laake 2013, section 2.4. No departures.

    Example:
        >>> first, second = np.array([1] * 7 + [0] + [1] * 20), np.array([0] * 7 + [1] + [1] * 20)
        >>> round(compare_mcnemar(first, second, method="exact").p_value, 4)
        0.0703
    """
    # It takes a while to import, and who judges a gain or loads a classifier does not need it.
    from scipy import stats

    first, second = _pair("McNemar's test", right_first, right_second)
    if not (np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all()):
        raise ShapeError("McNemar's test: expected 0 or 1 for every example; give whether each prediction is right.")
    only_first, only_second = int(((first == 1) & (second == 0)).sum()), int(((first == 0) & (second == 1)).sum())
    fewer, disagreements = min(only_first, only_second), only_first + only_second
    p_value = min(1.0, 2 * float(stats.binom.cdf(fewer, disagreements, 0.5)))
    if method == "mid_p" and disagreements:
        own = float(stats.binom.pmf(fewer, disagreements, 0.5))
        p_value = 1 - own / 2 if only_first == only_second else p_value - own
    return Comparison(float((first - second).mean()), p_value, len(first))


def compare_permutation(
    values_first: FloatArray,
    values_second: FloatArray,
    *,
    resamples: int,
    seed: int = 0,
    alternative: Alternative = "two-sided",
) -> Comparison:
    """Test a mean difference by swapping the two systems on any of the examples.

    Without a difference between the systems each example's two values could as well be the other way round. Where
    there are no more swaps than ``resamples`` all of them are tried, and the p-value is exact.

    Args:
        values_first: One value an example of the first system, float64, shape (N,): 1 where it is right, a loss, or
            the mean of either over seeds.
        values_second: The same of the second system, on the same examples in the same order.
        resamples: Count of random swaps.
        seed: Seed of the swaps.
        alternative: What is tested against no difference.

    Returns:
        The mean difference and its p-value. Of random swaps the smallest p-value is 1 / (resamples + 1).

    Raises:
        ShapeError: The two disagree on N, or N is 0.

    Source:
        Fisher 1935, section 21; the observed swap counts as one of the random ones, as in Phipson and Smyth 2010.

    Example:
        >>> compare_permutation(np.array([3.0, 2.0, 4.0]), np.array([1.0, 1.0, 1.0]), resamples=100).p_value
        0.25
    """
    first, second = _pair("permutation test", values_first, values_second)
    difference = first - second
    moving = difference[difference != 0]
    observed = float(moving.sum())
    slack = SAME * float(np.abs(moving).sum())
    as_extreme, tried = 0, 0
    # 2 ** count would be a number of as many digits as there are examples.
    is_exact = len(moving) < 63 and 2 ** len(moving) <= resamples
    draws = _list_swaps(len(moving)) if is_exact else _draw_swaps(len(moving), resamples, seed)
    for signs in draws:
        sums = signs @ moving
        extreme = {
            "two-sided": np.abs(sums) >= abs(observed) - slack,
            "greater": sums >= observed - slack,
            "less": sums <= observed + slack,
        }[alternative]
        as_extreme, tried = as_extreme + int(extreme.sum()), tried + len(sums)
    p_value = as_extreme / tried if is_exact else (as_extreme + 1) / (tried + 1)
    return Comparison(float(difference.mean()), p_value, len(first))


def compare_bootstrap(
    values_first: FloatArray,
    values_second: FloatArray,
    *,
    resamples: int,
    confidence: float,
    seed: int = 0,
    alternative: Alternative = "two-sided",
    statistic: Callable[[FloatArray, FloatArray], FloatArray] = compute_mean,
) -> Comparison:
    """Test a difference of any statistic on resamples of the examples that both systems share.

    The p-value goes with the interval: it is below 1 - confidence where the interval leaves out 0.

    Args:
        values_first: One value an example of the first system, float64, shape (N,).
        values_second: The same of the second system, on the same examples in the same order.
        resamples: Count of resamples.
        confidence: Coverage of the interval, in (0, 1).
        seed: Seed of the draws.
        alternative: What is tested against no difference; the interval is two-sided whatever is tested.
        statistic: Values (N,) and weights (N, R) to one figure a resample, shape (R,).

    Returns:
        The difference, its p-value and its interval. The smallest p-value is 2 / (resamples + 1), one-sided half.

    Raises:
        ShapeError: The two disagree on N, or N is 0.

    Source:
        Efron and Tibshirani 1993, section 15.4 (the interval's own significance level, "achieved" where an end of
        the interval touches 0); the observed sample counts as one of the resamples.

    Example:
        >>> gain = compare_bootstrap(np.ones(50), np.arange(50) % 2.0, resamples=999, confidence=0.95)
        >>> gain.difference, gain.p_value
        (0.5, 0.002)
    """
    first, second = _pair("paired bootstrap", values_first, values_second)
    n = len(first)

    def subtract(weights: FloatArray) -> FloatArray:
        return statistic(first, weights) - statistic(second, weights)

    drawn = bootstrap_values(subtract, n, resamples=resamples, seed=seed)
    low, high = percentile_interval(drawn, confidence)
    defined = drawn[~np.isnan(drawn)]
    # A resample that shows no difference speaks for neither side.
    against_gain, against_loss = ((int(side.sum()) + 1) / (len(defined) + 1) for side in (defined <= 0, defined >= 0))
    p_value = {"two-sided": 2 * min(against_gain, against_loss), "greater": against_gain, "less": against_loss}
    value = float(subtract(np.ones((n, 1)))[0])
    return Comparison(value, min(1.0, p_value[alternative]), n, low, high)


def compare_aso(
    scores_first: Sequence[float] | FloatArray,
    scores_second: Sequence[float] | FloatArray,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Dominance:
    """Test almost stochastic order: whether a run of the first system can be expected to beat one of the second.

    Made for the scores of several training seeds, which need no pairing and no normal distribution. Few seeds say
    little: with three a side the bound is wide.

    Args:
        scores_first: One score a seed of the first system, higher is better, shape (A,), A at least 2.
        scores_second: The same of the second system, shape (B,), B at least 2.
        resamples: Count of bootstrap resamples behind the bound.
        confidence: Of the bound, in (0, 1).
        seed: Seed of the resamples.

    Returns:
        Epsilon and its upper bound.

    Raises:
        ShapeError: A side has fewer than 2 scores.

    Source:
        Dror, Shlomov and Reichart 2019, "Deep dominance", section 4, after del Barrio et al. 2018. The integrals
        over quantiles are exact, where others take a grid; where all scores are the same epsilon is 0.5.

    Example:
        >>> compare_aso([0.8, 0.9, 0.7], [0.5, 0.6, 0.4]).bound
        0.0
    """
    # It takes a while to import, and who judges a gain or loads a classifier does not need it.
    from scipy import stats

    first, second = (np.sort(np.asarray(scores, dtype=np.float64)) for scores in (scores_first, scores_second))
    if first.ndim != 1 or second.ndim != 1 or min(len(first), len(second)) < 2:
        raise ShapeError(
            f"almost stochastic order: expected at least 2 scores a side, got {first.size} and {second.size}; "
            "run more seeds."
        )
    epsilon = float(_measure_violation(first[None], second[None])[0])
    generator = np.random.default_rng(seed)
    drawn = [
        np.sort(scores[generator.integers(len(scores), size=(resamples, len(scores)))], axis=1)
        for scores in (first, second)
    ]
    # The source scales by sqrt(A B / (A + B)) before taking the deviation, and back after it.
    deviation = float(_measure_violation(*drawn).std(ddof=1))
    bound = min(1.0, epsilon + float(stats.norm.ppf(confidence)) * deviation)
    return Dominance(epsilon, bound, confidence, len(first), len(second))


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for having made several tests, so that the chance of any false alarm keeps its level.

    Args:
        p_values: One a test, each in [0, 1].

    Returns:
        Corrected p-values in the order given, each at least what it was; compare them with the level as they are.

    Raises:
        ShapeError: A value lies outside [0, 1].

    Source:
        Holm 1979. No departures.

    Example:
        >>> adjust_holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise ShapeError(f"Holm's correction: expected p-values in [0, 1], got {list(p_values)}.")
    order = np.argsort(values, kind="stable")
    scaled = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(value) for value in adjusted]


def summarize_seeds(values: Sequence[float] | FloatArray, *, confidence: float = 0.95) -> SeedSummary:
    """Say how much the training seed matters, which is owed before any claim that rests on seeds.

    Args:
        values: One score a seed, at least 2.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        Mean, spread, and Student's interval of the mean over all seeds there could be.

    Raises:
        ShapeError: There are fewer than 2 seeds: one seed has no spread.

    Source:
        Student 1908. No departures.

    Example:
        >>> found = summarize_seeds([0.80, 0.82, 0.84])
        >>> round(found.mean, 3), round(found.spread, 3), round(found.low, 3), round(found.high, 3)
        (0.82, 0.02, 0.77, 0.87)
    """
    # It takes a while to import, and who judges a gain or loads a classifier does not need it.
    from scipy import stats

    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or len(scores) < 2:
        raise ShapeError(f"seeds: expected scores of at least 2 seeds, got {scores.size}; set training.seeds.")
    mean, spread, count = float(scores.mean()), float(scores.std(ddof=1)), len(scores)
    reach = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * spread / float(np.sqrt(count))
    return SeedSummary(mean, spread, mean - reach, mean + reach, count)


def _pair(test: str, first: np.ndarray, second: np.ndarray) -> tuple[FloatArray, FloatArray]:
    """Check that both systems were measured on the same examples."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ShapeError(
            f"{test}: expected one value an example for the same examples twice, got shapes {a.shape} and {b.shape}."
        )
    if missing := int((~(np.isfinite(a) & np.isfinite(b))).sum()):
        raise ShapeError(f"{test}: expected finite values, got {missing} examples without. Leave those out of both.")
    return a, b


def _list_swaps(count: int) -> Iterator[FloatArray]:
    """Every way to put a sign before each of ``count`` values, shape (2 ** count, count)."""
    numbers = np.arange(2**count)
    yield (1 - 2 * ((numbers[:, None] >> np.arange(count)) & 1)).astype(np.float64)


def _draw_swaps(count: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Random signs, a chunk at a time, shape (R of this chunk, count)."""
    generator = np.random.default_rng(seed)
    size = max(1, MAX_CELLS // max(1, count))
    for start in range(0, resamples, size):
        yield (1 - 2 * generator.integers(2, size=(min(size, resamples - start), count))).astype(np.float64)


def _measure_violation(first: FloatArray, second: FloatArray) -> FloatArray:
    """Epsilon of sorted scores (R, A) and (R, B), shape (R,): exact, because quantile functions are steps."""
    num_first, num_second = first.shape[1], second.shape[1]
    # Steps end at multiples of 1 / A and 1 / B; on the common grid of 1 / (A B) both are whole numbers.
    ends = np.union1d(np.arange(1, num_first + 1) * num_second, np.arange(1, num_second + 1) * num_first)
    widths = np.diff(ends, prepend=0) / (num_first * num_second)
    gaps = first[:, (ends - 1) // num_second] - second[:, (ends - 1) // num_first]
    whole = (gaps**2) @ widths
    against = (np.minimum(gaps, 0.0) ** 2) @ widths
    return np.where(whole > 0, against / np.where(whole > 0, whole, 1.0), 0.5)


FEWEST_EXAMPLES = 30
"""Below it nothing is called harm: a bootstrap over so few examples is too narrow. Chosen."""


@dataclass(frozen=True)
class Judgement:
    """What a gain says.

    Attributes:
        verdict: ``harm``, ``gain``, or ``unclear``.
        bound: End of the widened interval that harm must reach; harm where it lies on the bad side of 0.
    """

    verdict: Literal["harm", "gain", "unclear"]
    bound: float


def judge_gain(gain: Score, *, confidence: float, num_comparisons: int, lower_is_better: bool = False) -> Judgement:
    """Decide whether a difference between two trained systems is harm.

    A false alarm throws good work away, so harm has to be clearer than a gain: the interval is widened for the number
    of comparisons that one run makes (Bonferroni), and for what another training seed would have changed, which
    resampled examples do not show. The seeds' variance is that of the differences seed by seed, with the examples'
    own variance standing in as one more seed; of a single seed it is all there is.

    Args:
        gain: First minus second on the same examples, with its two-sided interval; ``per_seed`` holds the difference
            of each seed where there are several.
        confidence: Coverage of that interval, in (0.5, 1).
        num_comparisons: Count of differences that are judged in this run, at least 1.
        lower_is_better: Whether a negative difference is the good one.

    Returns:
        The verdict and the bound.

    Source:
        The rule is this package's own. Bonferroni's correction; the sum of two variances under a normal distribution.

    Example:
        >>> gain = Score(-0.10, -0.13, -0.07, 800)
        >>> judge_gain(gain, confidence=0.95, num_comparisons=1).verdict
        'harm'
        >>> judge_gain(Score(-0.03, -0.059, -0.001, 800), confidence=0.95, num_comparisons=1).verdict
        'unclear'
    """
    sign = -1.0 if lower_is_better else 1.0
    value = sign * gain.value
    low, high = sorted((sign * gain.low, sign * gain.high))
    if not all(math.isfinite(figure) for figure in (value, low, high)):
        return Judgement("unclear", math.nan)
    asked = float(ndtri((1 + confidence) / 2))
    needed = float(ndtri(1 - (1 - confidence) / (2 * num_comparisons)))
    examples = ((high - low) / (2 * asked)) ** 2
    seeds = np.asarray(gain.per_seed, dtype=np.float64)
    count = max(1, len(seeds))
    # One seed's worth of the examples' variance, so that two seeds that agree by chance do not count as certainty.
    spread = (examples + (float(((seeds - seeds.mean()) ** 2).sum()) if count > 1 else 0.0)) / count
    scale = needed / asked * (math.sqrt(1 + spread / count / examples) if examples else 1.0)
    bound = value + (high - value) * scale
    if bound < 0 and gain.n >= FEWEST_EXAMPLES:
        return Judgement("harm", sign * bound)
    return Judgement("gain" if low > 0 else "unclear", sign * bound)
