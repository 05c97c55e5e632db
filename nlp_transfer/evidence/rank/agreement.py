"""How well an order that was guessed agrees with what was measured."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from nlp_transfer.errors import ShapeError

__all__ = ["Agreement", "measure_agreement"]


@dataclass(frozen=True)
class Agreement:
    """What `measure_agreement` found.

    Attributes:
        pearson: Linear correlation in [-1, 1]; None for fewer than three pairs, or where one side is constant.
        kendall_tau: Tau-b in [-1, 1], ties taken into account; None for fewer than two pairs, or where one side is
            constant.
        regret: What is lost by taking the one with the highest guess: the best measured value minus its own, at least
            0, in the unit of the measured values.
        n: Count of pairs.
    """

    pearson: float | None
    kendall_tau: float | None
    regret: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """As a plain dictionary."""
        return asdict(self)


def measure_agreement(guessed: Sequence[float], measured: Sequence[float]) -> Agreement:
    """Compare guesses with measurements of the same things.

    Args:
        guessed: Figures of which more is better, N of them.
        measured: Figures of which more is better, in the same order.

    Returns:
        Correlations and regret.

    Raises:
        ShapeError: They differ in count, are none, or are not finite.

    Source:
        Kendall 1945, tau-b; regret as in Renggli et al. 2022, https://arxiv.org/abs/2010.06402, but as a difference,
        not as a share.

    Example:
        >>> measure_agreement([1.0, 2.0, 3.0], [0.7, 0.9, 0.8]).kendall_tau
        0.3333333333333333
    """
    left, right = np.asarray(guessed, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1 or not len(left):
        raise ShapeError(f"agreement: expected as many guesses as measurements, got {left.shape} and {right.shape}.")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ShapeError("agreement: expected finite figures, got nan or inf. Leave those out.")
    regret = float(right.max() - right[left.argmax()])
    return Agreement(_correlate(left, right), _rank_correlate(left, right), regret, len(left))


def _correlate(left: np.ndarray, right: np.ndarray) -> float | None:
    """Pearson's correlation."""
    if len(left) < 3 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    return float(np.corrcoef(left, right)[0, 1])


def _rank_correlate(left: np.ndarray, right: np.ndarray) -> float | None:
    """Kendall's tau-b, from every pair."""
    pairs = list(combinations(range(len(left)), 2))
    signs = np.array([[np.sign(side[one] - side[other]) for one, other in pairs] for side in (left, right)])
    untied = np.abs(signs).sum(axis=1) if pairs else np.zeros(2)
    if not untied.all():
        return None
    return float((signs[0] * signs[1]).sum() / np.sqrt(untied[0] * untied[1]))
