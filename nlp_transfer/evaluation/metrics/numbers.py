"""Metrics of single examples and of two series: log-loss, squared and absolute error, correlations.

Every function works on R weighted samples of the same N examples at once; a plain sample is one column of ones.
"""

import numpy as np

from nlp_transfer.evaluation.metrics.counts import FloatArray, IntArray, divide

__all__ = [
    "compute_mean",
    "compute_pearson",
    "compute_r2",
    "compute_spearman",
    "measure_log_loss",
    "rank_values",
]


def compute_mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Average the examples of every sample.

    Args:
        values: One value an example, float64, shape (N,).
        weights: Weights of the examples, float64, shape (N, R).

    Returns:
        Means in the unit of the values, shape (R,).

    Example:
        >>> compute_mean(np.array([1.0, 4.0]), np.array([[1.0, 2.0], [1.0, 0.0]])).tolist()
        [2.5, 1.0]
    """
    return divide(values @ weights, weights.sum(axis=0))


def measure_log_loss(labels: IntArray, probabilities: FloatArray) -> FloatArray:
    """Measure what each true class cost, in nats.

    Args:
        labels: True class ids, int64, shape (N,).
        probabilities: Class probabilities, float64, shape (N, C).

    Returns:
        Losses, at least 0, lower is better, shape (N,); a probability of 0 costs 36.04, as in scikit-learn.
    """
    # scikit-learn's bound: an infinite loss of one example would hide all others.
    smallest = np.finfo(np.float64).eps
    chosen = probabilities[np.arange(len(labels)), labels]
    return -np.log(np.clip(chosen, smallest, 1.0))


def compute_pearson(first: FloatArray, second: FloatArray, weights: FloatArray) -> FloatArray:
    """Linear correlation of two series.

    Args:
        first: Float64, shape (N,), or (N, R) where it differs between samples.
        second: In the same form.
        weights: Weights of the examples, float64, shape (N, R).

    Returns:
        Correlations in [-1, 1], higher is better, shape (R,); 0 where a series is constant (a single example
        included), because a constant predicts nothing and a report holds no NaN.

    Example:
        >>> compute_pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]), np.ones((3, 1))).round(6).tolist()
        [1.0]
    """
    centered_first, spread_first = _center(first, weights)
    centered_second, spread_second = _center(second, weights)
    covariance = (weights * centered_first * centered_second).sum(axis=0)
    return np.clip(divide(covariance, spread_first * spread_second), -1.0, 1.0)


def compute_r2(labels: FloatArray, predicted: FloatArray, weights: FloatArray) -> FloatArray:
    """Share of the labels' variance that predictions explain.

    Args:
        labels: Float64, shape (N,).
        predicted: Float64, shape (N,).
        weights: Weights of the examples, float64, shape (N, R).

    Returns:
        At most 1, higher is better, shape (R,); 0 is what their mean gives, and below it is worse than that. Where
        labels are constant: 1 for the very same predictions, else 0, as in scikit-learn.

    Example:
        >>> compute_r2(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 2.0]), np.ones((3, 1))).round(6).tolist()
        [0.5]
    """
    _, spread = _center(labels, weights)
    missed = ((labels - predicted) ** 2) @ weights
    is_constant = spread == 0
    explained = 1 - missed / np.where(is_constant, 1.0, spread**2)
    return np.where(is_constant, (missed == 0).astype(np.float64), explained)


def _center(values: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Subtract each sample's mean; also its root of summed squares, exactly 0 where the sample is constant."""
    values_NR = values if values.ndim == 2 else values[:, None]
    means = divide((values_NR * weights).sum(axis=0), weights.sum(axis=0))
    centered = values_NR - means
    spread = np.sqrt((weights * centered**2).sum(axis=0))
    # Rounding leaves a constant sample a spread of about 1e-16 of its size; scipy warns at the same bound.
    bound = 1e-13 * np.abs(values_NR).max(axis=0) * np.sqrt(weights.sum(axis=0))
    return centered, np.where(spread <= bound, 0.0, spread)


def rank_values(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Rank the examples within every sample; ties share their mean rank.

    Args:
        values: Float64, shape (N,).
        weights: How often each example is in each sample, float64, shape (N, R).

    Returns:
        Ranks, 1 the lowest, shape (N, R).

    Example:
        >>> rank_values(np.array([5.0, 1.0, 5.0]), np.ones((3, 1))).ravel().tolist()
        [2.5, 1.0, 2.5]
    """
    order = np.argsort(values, kind="stable")
    _, first, group = np.unique(values[order], return_index=True, return_inverse=True)
    counts = np.add.reduceat(weights[order], first, axis=0)
    ranks = np.cumsum(counts, axis=0) - (counts - 1) / 2
    of_example = np.empty(len(values), dtype=np.int64)
    of_example[order] = group
    return ranks[of_example]


def compute_spearman(first: FloatArray, second: FloatArray, weights: FloatArray) -> FloatArray:
    """Correlation of the ranks of two series.

    Args:
        first: Float64, shape (N,).
        second: Float64, shape (N,).
        weights: How often each example is in each sample, float64, shape (N, R).

    Returns:
        Correlations in [-1, 1], higher is better, shape (R,); 0 where a series is constant, as for
        ``compute_pearson``.

    Example:
        >>> compute_spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 8.0, 9.0]), np.ones((3, 1))).round(6).tolist()
        [1.0]
    """
    return compute_pearson(rank_values(first, weights), rank_values(second, weights), weights)
