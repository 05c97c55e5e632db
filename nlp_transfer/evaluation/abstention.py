"""What a classifier gains by keeping silent where it is unsure: the risk-coverage curve."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import DataError, ShapeError
from nlp_transfer.evaluation.intervals import wilson_interval
from nlp_transfer.evaluation.metrics.counts import FloatArray, IntArray

__all__ = ["RiskCoverage", "check_abstention", "measure_abstention", "trace_risk"]

POINTS = 101
"""Most points of a curve that a report keeps; chosen."""


@dataclass(frozen=True)
class RiskCoverage:
    """The error among the rows that are answered, as ever more are.

    Attributes:
        coverage: Share answered, ascending to 1, float64, shape (N,).
        risk: Share of wrong answers among those, float64, shape (N,).
        confidence: Least confidence among those, descending, float64, shape (N,).
    """

    coverage: FloatArray
    risk: FloatArray
    confidence: FloatArray

    @property
    def area(self) -> float:
        """Area under the curve (AURC), the mean risk over all coverages; lower is better."""
        return float(self.risk.mean())

    @property
    def excess_area(self) -> float:
        """AURC less that of the best order of the same answers (E-AURC); 0 where every mistake comes last."""
        num_rows = len(self.risk)
        num_wrong = round(float(self.risk[-1]) * num_rows)
        best = np.maximum(np.arange(1, num_rows + 1) - (num_rows - num_wrong), 0) / np.arange(1, num_rows + 1)
        return self.area - float(best.mean())


def check_abstention(abstain_below: float | None, space: LabelSpace) -> None:
    """Refuse a limit that no probability is compared with.

    Args:
        abstain_below: The limit; None for none.
        space: The label contract.

    Raises:
        DataError: It is no share, or the task has no likeliest class.

    Example:
        >>> check_abstention(80, LabelSpace("classification", ("no", "yes")))
        Traceback (most recent call last):
        nlp_transfer.errors.DataError: abstain_below: expected a probability in [0, 1], got 80. Write 0.8 for 80 %.
    """
    if abstain_below is None:
        return
    if not 0 <= abstain_below <= 1:
        raise DataError(f"abstain_below: expected a probability in [0, 1], got {abstain_below:g}. Write 0.8 for 80 %.")
    if not space.is_categorical:
        raise DataError(
            f"abstain_below: expected a classifier with one class a text, this one is of task.kind={space.kind}. "
            "Leave it out."
        )


def trace_risk(confidence: np.ndarray, correct: np.ndarray) -> RiskCoverage:
    """Answer the surest rows first and follow the error.

    Rows of equal confidence are answered together: each of their steps has the mean risk of the tie, so that the
    curve does not depend on the order of the rows.

    Args:
        confidence: Stated probability of the answer, float, shape (N,).
        correct: Whether the answer is right, bool, shape (N,).

    Returns:
        The curve.

    Raises:
        ShapeError: The inputs disagree on N, or N is 0.

    Source:
        Geifman and El-Yaniv 2017, https://arxiv.org/abs/1705.08500 (curve); Geifman, Uziel and El-Yaniv 2019,
        https://arxiv.org/abs/1805.08206 (AURC, E-AURC). Departure: ties share their mistakes evenly.

    Example:
        >>> curve = trace_risk(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True]))
        >>> curve.coverage.tolist(), curve.risk.round(3).tolist(), round(curve.area, 4)
        ([0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.333, 0.25], 0.1458)
    """
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=bool)
    if sure.ndim != 1 or sure.shape != right.shape or not len(sure):
        raise ShapeError(f"abstention: expected N confidences and N answers, got {sure.shape} and {right.shape}.")
    order = np.argsort(-sure, kind="stable")
    sorted_N = sure[order]
    _, groups, sizes = np.unique(-sorted_N, return_inverse=True, return_counts=True)
    wrong = np.bincount(groups, weights=~right[order]) / sizes
    steps = np.arange(1, len(sure) + 1)
    return RiskCoverage(steps / len(sure), np.cumsum(wrong[groups]) / steps, sorted_N)


def measure_abstention(
    probabilities: FloatArray,
    labels: IntArray,
    coverages: Sequence[float],
    *,
    confidence: float,
    predicted: np.ndarray | None = None,
) -> dict[str, Any]:
    """Measure what keeping silent would gain, as the report holds it.

    Args:
        probabilities: Float, shape (N, C).
        labels: Class ids, int64, shape (N,).
        coverages: Shares of the rows that are answered, each in (0, 1].
        confidence: Coverage of the intervals.
        predicted: The answers, class ids, int64, shape (N,); the likeliest classes where absent.

    Returns:
        ``aurc``, ``e_aurc``, ``n``; ``selective``: a row a coverage with the accuracy among those answered, its
        Wilson interval, their number and the ``abstain_below`` that gives it; ``curve``: points of the curve.

    Raises:
        ShapeError: The inputs disagree on N, or N is 0.
    """
    correct = (probabilities.argmax(axis=1) if predicted is None else predicted) == labels
    curve = trace_risk(probabilities.max(axis=1), correct)
    num_rows = len(labels)
    selective = []
    for coverage in coverages:
        wanted = max(1, int(np.ceil(coverage * num_rows - 1e-9)))
        # A threshold answers all of a tie or none of it.
        limit = float(curve.confidence[wanted - 1])
        answered = int((curve.confidence >= limit).sum())
        num_right = round((1 - float(curve.risk[answered - 1])) * answered)
        low, high = wilson_interval(num_right, answered, confidence)
        selective.append(
            {
                "coverage": answered / num_rows,
                "accuracy": num_right / answered,
                "low": low,
                "high": high,
                "n": answered,
                "abstain_below": limit,
            }
        )
    shown = np.unique(np.linspace(0, num_rows - 1, min(POINTS, num_rows)).round().astype(np.int64))
    points = [{"coverage": float(curve.coverage[i]), "risk": float(curve.risk[i])} for i in shown]
    return {
        "aurc": curve.area,
        "e_aurc": curve.excess_area,
        "n": num_rows,
        "selective": selective,
        "curve": points,
    }
