"""How far stated confidence can be trusted: calibration error, reliability bins, Brier score."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from nlp_transfer.errors import ShapeError
from nlp_transfer.evaluation.metrics.counts import FloatArray, IntArray, divide

__all__ = [
    "BINS",
    "CalibrationCounter",
    "ReliabilityBins",
    "brier_score",
    "expected_calibration_error",
    "measure_brier",
    "reliability_bins",
]

BINS = 15
"""Count of equal-width bins; the choice of Guo et al. 2017."""


@dataclass(frozen=True)
class ReliabilityBins:
    """What a reliability diagram draws; K bins over (0, 1].

    Attributes:
        edges: Borders of the bins, float64, shape (K + 1,).
        counts: Examples per bin, int64, shape (K,).
        confidence: Mean top-class probability per bin, float64, shape (K,); NaN where a bin is empty.
        accuracy: Share of correct top classes per bin, float64, shape (K,); NaN where a bin is empty.
    """

    edges: FloatArray
    counts: IntArray
    confidence: FloatArray
    accuracy: FloatArray


class CalibrationCounter:
    """Computes the calibration error for many weightings of the same examples.

    Args:
        probabilities: Class probabilities, float64, shape (N, C).
        labels: True class ids, int64, shape (N,).
        bins: Number of equal-width bins over (0, 1].
    """

    def __init__(self, probabilities: FloatArray, labels: IntArray, *, bins: int = BINS) -> None:
        confidence, correct, of_bin = _file(probabilities, labels, bins)
        positions = np.arange(len(labels))
        self._gaps = sparse.csr_array((correct - confidence, (of_bin, positions)), shape=(bins, len(labels)))

    def compute(self, weights: FloatArray) -> FloatArray:
        """Calibration error of each sample, shape (R,); weights are float64, shape (N, R)."""
        # A bin's |accuracy - confidence| times its share is the size of its summed gaps over N.
        return divide(np.abs(self._gaps @ weights).sum(axis=0), weights.sum(axis=0))


def _file(probabilities: FloatArray, labels: IntArray, bins: int) -> tuple[FloatArray, npt.NDArray[np.bool_], IntArray]:
    """Each example's confidence, whether it is right, and its bin."""
    if probabilities.ndim != 2 or len(probabilities) != len(labels) or not len(labels):
        raise ShapeError(
            f"calibration: expected probabilities (N, C) and labels (N,) with N of at least 1, "
            f"got {probabilities.shape} and {labels.shape}; pass both for the same examples."
        )
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    of_bin = np.ceil(confidence * bins).astype(np.int64) - 1
    return confidence, correct, np.clip(of_bin, 0, bins - 1)


def expected_calibration_error(probabilities: FloatArray, labels: IntArray, *, bins: int = BINS) -> float:
    """Measure how far stated confidence sits from observed accuracy.

    Each example is filed by its top-class confidence into equal-width bins over (0, 1];
    every bin adds |accuracy - confidence|, weighted by its share of the examples.

    Args:
        probabilities: Class probabilities, float, shape (N, C); every row sums to 1.
        labels: True class ids, int64, shape (N,), each in [0, C).
        bins: Number of equal-width bins; 15 is the source's choice.

    Returns:
        A fraction in [0, 1], not a percentage; 0 means perfectly calibrated.

    Raises:
        ShapeError: The two inputs disagree on N, or N is 0.

    Source:
        Guo et al. 2017, section 2, https://arxiv.org/abs/1706.04599. No departures.

    Example:
        >>> probabilities = np.array([[0.9, 0.1], [0.6, 0.4]])
        >>> round(expected_calibration_error(probabilities, np.array([0, 1]), bins=2), 3)
        0.25
    """
    counter = CalibrationCounter(probabilities, labels, bins=bins)
    return float(counter.compute(np.ones((len(labels), 1)))[0])


def reliability_bins(probabilities: FloatArray, labels: IntArray, bins: int = BINS) -> ReliabilityBins:
    """Compare confidence with accuracy bin by bin, for a reliability diagram.

    Args:
        probabilities: Class probabilities, float, shape (N, C); every row sums to 1.
        labels: True class ids, int64, shape (N,), each in [0, C).
        bins: Number of equal-width bins over (0, 1].

    Returns:
        Counts, mean confidence and accuracy of every bin; empty bins hold NaN.

    Raises:
        ShapeError: The two inputs disagree on N, or N is 0.

    Example:
        >>> found = reliability_bins(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1]), bins=2)
        >>> found.counts.tolist(), found.accuracy.tolist()
        ([0, 2], [nan, 0.5])
    """
    confidence, correct, of_bin = _file(probabilities, labels, bins)
    counts = np.bincount(of_bin, minlength=bins)
    sizes = counts.astype(np.float64)
    confidences: FloatArray = np.bincount(of_bin, weights=confidence, minlength=bins).astype(np.float64)
    hits: FloatArray = np.bincount(of_bin, weights=correct, minlength=bins).astype(np.float64)
    empty = float("nan")
    return ReliabilityBins(
        edges=np.linspace(0.0, 1.0, bins + 1),
        counts=counts,
        confidence=divide(confidences, sizes, default=empty),
        accuracy=divide(hits, sizes, default=empty),
    )


def measure_brier(labels: IntArray, probabilities: FloatArray) -> FloatArray:
    """Squared distance of each example's probabilities from the truth.

    Args:
        labels: True class ids, int64, shape (N,).
        probabilities: Class probabilities, float64, shape (N, C).

    Returns:
        Shape (N,), lower is better. Two classes: the squared error of one of them, in [0, 1]. More: the sum over
        the classes, in [0, 2]. Both as scikit-learn has it.
    """
    truth = np.zeros_like(probabilities)
    truth[np.arange(len(labels)), labels] = 1.0
    squares: FloatArray = ((probabilities - truth) ** 2).sum(axis=1)
    return squares / 2 if probabilities.shape[1] == 2 else squares


def brier_score(probabilities: FloatArray, labels: IntArray) -> float:
    """Mean squared distance of stated probabilities from the truth.

    Args:
        probabilities: Class probabilities, float, shape (N, C); every row sums to 1.
        labels: True class ids, int64, shape (N,), each in [0, C).

    Returns:
        In [0, 1] for two classes and in [0, 2] for more; lower is better.

    Raises:
        ShapeError: The two inputs disagree on N, or N is 0.

    Source:
        Brier 1950, "Verification of forecasts expressed in terms of probability". Departure: halved for two classes,
        as is usual today.

    Example:
        >>> round(brier_score(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1])), 3)
        0.185
    """
    _file(probabilities, labels, BINS)
    return float(measure_brier(labels, probabilities).mean())
