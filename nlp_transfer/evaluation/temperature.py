"""One number that makes stated confidence honest: the temperature of the logits."""

import math

import numpy as np
from scipy.optimize import minimize_scalar

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import ShapeError

__all__ = ["fit_temperature"]

LOWEST, HIGHEST = 0.01, 100.0
"""Bounds of a temperature; chosen."""


def fit_temperature(logits: np.ndarray, labels: np.ndarray, space: LabelSpace) -> float:
    """Find the temperature whose probabilities have the least log-loss.

    Dividing logits by one number changes no prediction of exclusive classes, only how sure it claims to be.

    Args:
        logits: Float, shape (N, C).
        labels: Class ids, int64, shape (N,), or 0 / 1 of each label, shape (N, C).
        space: The label contract; a regression has no temperature.

    Returns:
        A number in [0.01, 100]; above 1 the logits were too sure.

    Raises:
        ShapeError: The two inputs disagree on N, or N is 0.

    Source:
        Guo et al. 2017, section 4.2, https://arxiv.org/abs/1706.04599. Departure: each label of a multi-label task
        counts on its own.

    Example:
        >>> space = LabelSpace("classification", ("no", "yes"))
        >>> logits = np.array([[0.0, 8.0]] * 4)
        >>> round(fit_temperature(logits, np.array([1, 1, 1, 0]), space), 2)  # 3 of 4: odds of 3
        7.28
    """
    values = np.asarray(logits, dtype=np.float64)
    if len(values) != len(labels) or not len(values):
        raise ShapeError(f"temperature: expected a label for each of {len(values)} examples, got {len(labels)}.")
    truth = np.eye(space.num_outputs)[labels] if space.is_categorical else np.asarray(labels, dtype=np.float64)

    def measure_loss(log_temperature: float) -> float:
        """Mean log-loss at a temperature."""
        scaled = values / math.exp(log_temperature)
        if space.is_categorical:
            top = scaled.max(axis=1, keepdims=True)
            total = top + np.log(np.exp(scaled - top).sum(axis=1, keepdims=True))
            return float((truth * (total - scaled)).sum(axis=1).mean())
        return float((np.logaddexp(0.0, scaled) - truth * scaled).mean())

    bounds = (math.log(LOWEST), math.log(HIGHEST))
    found = minimize_scalar(measure_loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return math.exp(float(found.x))
