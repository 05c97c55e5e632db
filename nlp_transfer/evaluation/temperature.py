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

    Dividing logits by one number changes no prediction of exclusive classes, only how sure it claims to be. One row's
    weight speaks for the other classes: rows without a mistake would otherwise ask for a temperature of 0, which
    claims that there never will be one.

    Args:
        logits: Float, shape (N, C).
        labels: Class ids, int64, shape (N,), or 0 / 1 of each label, shape (N, C).
        space: The label contract; a regression has no temperature.

    Returns:
        A number in [0.01, 100]; above 1 the logits were too sure.

    Raises:
        ShapeError: The two inputs disagree on N, or N is 0.

    Source:
        Guo et al. 2017, section 4.2, https://arxiv.org/abs/1706.04599. Departures: targets are smoothed as in Platt
        1999, "Probabilistic outputs for support vector machines", section 2.2, by 1 / (N + 2); each label of a
        multi-label task counts on its own.

    Example:
        >>> space = LabelSpace("classification", ("no", "yes"))
        >>> logits = np.array([[0.0, 8.0]] * 4)
        >>> round(fit_temperature(logits, np.array([1, 1, 1, 0]), space), 2)  # 3 of 4, and one each way: odds of 2
        11.54
    """
    values = np.asarray(logits, dtype=np.float64)
    if len(values) != len(labels) or not len(values):
        raise ShapeError(f"temperature: expected a label for each of {len(values)} examples, got {len(labels)}.")
    truth = np.eye(space.num_outputs)[labels] if space.is_categorical else np.asarray(labels, dtype=np.float64)
    doubt = 1 / (len(values) + 2)
    truth = (1 - doubt) * truth + doubt * (1 - truth) / (space.num_outputs - 1 if space.is_categorical else 1)

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
