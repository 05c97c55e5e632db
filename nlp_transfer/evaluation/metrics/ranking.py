"""Metrics of a ranking: ROC-AUC and average precision, over R weighted samples at once."""

import numpy as np
import numpy.typing as npt
from scipy import sparse

from nlp_transfer.evaluation.metrics.counts import FloatArray, IntArray, divide

__all__ = ["average_over_classes", "compute_average_precision", "compute_roc_auc"]

BoolArray = npt.NDArray[np.bool_]


def compute_roc_auc(scores: FloatArray, positives: BoolArray, weights: FloatArray) -> FloatArray:
    """Chance that a positive example scores above a negative one; ties count half.

    Args:
        scores: Higher means more likely positive, float64, shape (N,).
        positives: Whether an example is positive, bool, shape (N,).
        weights: Weights of the examples, float64, shape (N, R).

    Returns:
        Fractions in [0, 1], higher is better, shape (R,); NaN where a sample lacks positives or negatives.

    Source:
        Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve". No departures.

    Example:
        >>> compute_roc_auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]), np.ones((4, 1)))
        array([0.75])
    """
    order = np.argsort(scores, kind="stable")
    starts, ends = _find_ties(scores[order])
    is_positive = positives[order]
    # Negatives are summed between the edges of the runs that hold a positive; all in between is never needed.
    edges = np.unique(np.concatenate([starts[is_positive], ends[is_positive]]))
    negatives = np.flatnonzero(~is_positive)
    run = edges.searchsorted(negatives, side="right")
    below = np.cumsum(_sum_rows(run, order[negatives], len(edges), weights), axis=0)
    winners = order[is_positive]
    half_wins = below[edges.searchsorted(starts[is_positive])] + below[edges.searchsorted(ends[is_positive])]
    wins = (weights[winners] * half_wins).sum(axis=0) / 2
    num_positive, num_negative = positives.astype(np.float64) @ weights, (~positives).astype(np.float64) @ weights
    return divide(wins, num_positive * num_negative, default=float("nan"))


def compute_average_precision(scores: FloatArray, positives: BoolArray, weights: FloatArray) -> FloatArray:
    """Mean precision over the positive examples, each at its own score as the threshold.

    Args:
        scores: Higher means more likely positive, float64, shape (N,).
        positives: Whether an example is positive, bool, shape (N,).
        weights: Weights of the examples, float64, shape (N, R).

    Returns:
        Fractions in [0, 1], higher is better, shape (R,); 0 where a sample has no positives, as in scikit-learn.

    Example:
        >>> found = compute_average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), np.ones((3, 1)))
        >>> round(float(found[0]), 4)
        0.8333
    """
    order = np.argsort(-scores, kind="stable")
    _, ends = _find_ties(scores[order])
    is_positive = positives[order]
    # Precision is read only where a run that holds a positive ends.
    edges = np.unique(ends[is_positive])
    run = edges.searchsorted(np.arange(len(order)), side="right")
    above = np.cumsum(_sum_rows(run, order, len(edges), weights), axis=0)
    found = _sum_rows(run[is_positive], order[is_positive], len(edges), weights)
    precision = divide(np.cumsum(found, axis=0), above)
    return divide((found * precision).sum(axis=0), found.sum(axis=0))


def _find_ties(ordered: FloatArray) -> tuple[IntArray, IntArray]:
    """For each place of an ordered series, where its run of equal values starts and where it has ended."""
    changes = np.flatnonzero(np.diff(ordered)) + 1
    edges = np.concatenate([[0], changes, [len(ordered)]])
    sizes = np.diff(edges)
    return np.repeat(edges[:-1], sizes), np.repeat(edges[1:], sizes)


def _sum_rows(rows: IntArray, examples: IntArray, num_rows: int, weights: FloatArray) -> FloatArray:
    """Add up the weights of the examples of each row, shape (rows, R); what lies beyond the last row is dropped."""
    kept = rows < num_rows
    ones = np.ones(int(kept.sum()))
    table = sparse.csr_array((ones, (rows[kept], examples[kept])), shape=(num_rows, len(weights)))
    return np.asarray(table @ weights)


def average_over_classes(per_class: FloatArray) -> FloatArray:
    """Average the classes that are defined in each sample; NaN where none is.

    Args:
        per_class: Float64, shape (C, R), NaN where undefined.

    Returns:
        Means, shape (R,).

    Example:
        >>> average_over_classes(np.array([[0.5], [np.nan], [1.0]])).tolist()
        [0.75]
    """
    defined = ~np.isnan(per_class)
    total = np.where(defined, per_class, 0.0).sum(axis=0)
    return divide(total, defined.sum(axis=0).astype(np.float64), default=float("nan"))
