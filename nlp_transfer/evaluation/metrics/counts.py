"""Metrics that are functions of class counts: accuracy, precision, recall, F1, MCC and the kappas.

All of them follow from three counts a class: correct, true, predicted. No C x C table is ever built, so that a
thousand resamples of a problem with hundreds of classes stay small. Every function works on R weighted samples at
once; a plain sample is one column of ones.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

__all__ = [
    "Average",
    "ClassCounter",
    "Counts",
    "FloatArray",
    "IntArray",
    "compute_accuracy",
    "compute_balanced_accuracy",
    "compute_cohen_kappa",
    "compute_f1",
    "compute_mcc",
    "compute_precision",
    "compute_quadratic_kappa",
    "compute_recall",
    "divide",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Average = Literal["macro", "micro", "weighted"]


@dataclass(frozen=True)
class Counts:
    """Weighted counts of R samples.

    Attributes:
        correct: Examples of a class that were given that class, shape (C, R).
        true: Examples of a class, shape (C, R).
        predicted: Examples that were given a class, shape (C, R).
        total: Examples, shape (R,).
        every_class: Whether a class that nobody has and nobody predicted counts in a macro average. As in
            scikit-learn, it does for label columns and does not for exclusive classes.
    """

    correct: FloatArray
    true: FloatArray
    predicted: FloatArray
    total: FloatArray
    every_class: bool = False


class ClassCounter:
    """Counts classes for many weightings of the same examples.

    Args:
        labels: True class ids, int64, shape (N,), or 0 / 1 per class, shape (N, C).
        predicted: What was predicted, in the same form.
        num_classes: C.

    Example:
        >>> counter = ClassCounter(np.array([0, 1, 1]), np.array([0, 1, 0]), 2)
        >>> counter.count(np.ones((3, 1))).correct.ravel().tolist()
        [1.0, 1.0]
    """

    def __init__(self, labels: IntArray, predicted: IntArray, num_classes: int) -> None:
        self.every_class = labels.ndim == 2
        self._true = _spread(labels, num_classes)
        self._predicted = _spread(predicted, num_classes)
        self._correct = self._true.multiply(self._predicted).tocsr()

    def count(self, weights: FloatArray) -> Counts:
        """Count with one weight an example and sample, float64, shape (N, R)."""
        return Counts(
            correct=self._correct @ weights,
            true=self._true @ weights,
            predicted=self._predicted @ weights,
            total=weights.sum(axis=0),
            every_class=self.every_class,
        )


def _spread(ids: IntArray, num_classes: int) -> sparse.csr_array:
    """Turn class ids or 0 / 1 columns into a sparse (C, N) table of ones."""
    if ids.ndim == 2:
        return sparse.csr_array(ids.T.astype(np.float64))
    positions = np.arange(len(ids))
    return sparse.csr_array((np.ones(len(ids)), (ids, positions)), shape=(num_classes, len(ids)))


def divide(numerator: FloatArray, denominator: FloatArray, *, default: float = 0.0) -> FloatArray:
    """Divide element by element; where the denominator is 0 the default is the answer.

    Example:
        >>> divide(np.array([1.0, 1.0]), np.array([2.0, 0.0])).tolist()
        [0.5, 0.0]
    """
    filled = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), float(default))
    np.divide(numerator, denominator, out=filled, where=denominator != 0)
    return filled


def compute_accuracy(counts: Counts) -> FloatArray:
    """Share of the examples that were given their own class.

    Args:
        counts: Counts of exclusive classes, not of label columns.

    Returns:
        Fractions in [0, 1], higher is better, shape (R,).

    Example:
        >>> counts = ClassCounter(np.array([0, 1, 1]), np.array([0, 1, 0]), 2).count(np.ones((3, 1)))
        >>> round(float(compute_accuracy(counts)[0]), 3)
        0.667
    """
    return divide(counts.correct.sum(axis=0), counts.total)


def compute_balanced_accuracy(counts: Counts) -> FloatArray:
    """Mean recall of the classes that have examples, as scikit-learn does it.

    Returns:
        Fractions in [0, 1], higher is better, shape (R,).
    """
    return divide(divide(counts.correct, counts.true).sum(axis=0), (counts.true > 0).sum(axis=0).astype(np.float64))


def compute_precision(counts: Counts, average: Average | None, *, zero_division: float = 0.0) -> FloatArray:
    """Share of what was given a class that belongs to it.

    Args:
        counts: Counts of R samples.
        average: Over the classes; None leaves them apart.
        zero_division: The precision of a class that was never predicted.

    Returns:
        Fractions in [0, 1], higher is better, shape (R,), or (C, R) where the average is None.
    """
    return _average(counts, counts.correct, counts.predicted, average, zero_division)


def compute_recall(counts: Counts, average: Average | None, *, zero_division: float = 0.0) -> FloatArray:
    """Share of a class that was found.

    Args:
        counts: Counts of R samples.
        average: Over the classes; None leaves them apart.
        zero_division: The recall of a class without examples.

    Returns:
        Fractions in [0, 1], higher is better, shape (R,), or (C, R) where the average is None.
    """
    return _average(counts, counts.correct, counts.true, average, zero_division)


def compute_f1(counts: Counts, average: Average | None, *, zero_division: float = 0.0) -> FloatArray:
    """Harmonic mean of precision and recall.

    Args:
        counts: Counts of R samples.
        average: Over the classes; None leaves them apart. ``macro`` averages the classes that occur among the
            labels or the predictions, as scikit-learn does by default.
        zero_division: The F1 of a class with neither examples nor predictions.

    Returns:
        Fractions in [0, 1], higher is better, shape (R,), or (C, R) where the average is None.

    Example:
        >>> counts = ClassCounter(np.array([0, 1, 1]), np.array([0, 1, 0]), 2).count(np.ones((3, 1)))
        >>> round(float(compute_f1(counts, "macro")[0]), 3)
        0.667
    """
    return _average(counts, 2 * counts.correct, counts.true + counts.predicted, average, zero_division)


def _average(
    counts: Counts, hits: FloatArray, base: FloatArray, average: Average | None, zero_division: float
) -> FloatArray:
    """Divide hits by their base and average the classes."""
    if average == "micro":
        return divide(hits.sum(axis=0), base.sum(axis=0), default=zero_division)
    scores = divide(hits, base, default=zero_division)
    if average is None:
        return scores
    if average == "weighted":
        return divide((scores * counts.true).sum(axis=0), counts.true.sum(axis=0), default=zero_division)
    occurs = np.ones_like(counts.true) if counts.every_class else np.float64((counts.true + counts.predicted) > 0)
    return divide((scores * occurs).sum(axis=0), occurs.sum(axis=0), default=zero_division)


def compute_mcc(counts: Counts) -> FloatArray:
    """Matthews correlation of labels and predictions, for any number of classes.

    Returns:
        Correlations in [-1, 1], higher is better, shape (R,); 0 where labels or predictions are constant, because
        nothing correlates with a constant.

    Source:
        Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient". No departures.
    """
    total = counts.total
    covariance = counts.correct.sum(axis=0) * total - (counts.true * counts.predicted).sum(axis=0)
    spread_true = total**2 - (counts.true**2).sum(axis=0)
    spread_predicted = total**2 - (counts.predicted**2).sum(axis=0)
    return divide(covariance, np.sqrt(spread_true * spread_predicted))


def compute_cohen_kappa(counts: Counts) -> FloatArray:
    """Agreement beyond chance of labels and predictions.

    Returns:
        At most 1, higher is better, shape (R,); 0 where both are the same constant, because no agreement beyond
        chance can show there.

    Source:
        Cohen 1960, "A coefficient of agreement for nominal scales". No departures.
    """
    observed = compute_accuracy(counts)
    expected = divide((counts.true * counts.predicted).sum(axis=0), counts.total**2)
    return divide(observed - expected, 1 - expected)


def compute_quadratic_kappa(counts: Counts, squared_distances: FloatArray, weights: FloatArray) -> FloatArray:
    """Agreement beyond chance of ordered classes; a miss costs the square of its distance.

    Distances are those of the label space: a class that does not occur still stands between its neighbors.

    Args:
        counts: Counts of R samples.
        squared_distances: Square of label rank minus predicted rank, float64, shape (N,).
        weights: Weights of the examples, float64, shape (N, R).

    Returns:
        At most 1, higher is better, shape (R,); 0 where both are the same constant.

    Source:
        Cohen 1968, "Weighted kappa". No departures. Equal to scikit-learn's where it is given all labels.
    """
    ranks = np.arange(len(counts.true), dtype=np.float64)
    observed = (squared_distances @ weights) * counts.total
    # The distances expected by chance follow from the moments of both margins, without a C x C table.
    expected = (ranks**2 @ (counts.true + counts.predicted)) * counts.total
    expected = expected - 2 * (ranks @ counts.true) * (ranks @ counts.predicted)
    return divide(expected - observed, expected)
