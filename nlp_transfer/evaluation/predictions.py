"""From logits to probabilities to predictions, checked against the label contract."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import DivergedError, LabelError, ShapeError
from nlp_transfer.evaluation.metrics.counts import FloatArray, IntArray
from nlp_transfer.evaluation.metrics.registry import Sample

__all__ = ["gather_sample", "name_predictions", "predict_labels", "to_probabilities"]

THRESHOLD = 0.5
"""Probability from which a label of a multi-label task is given where no thresholds are."""


def to_probabilities(logits: np.ndarray, space: LabelSpace) -> FloatArray:
    """Turn logits into what the task means by them.

    Args:
        logits: Float, shape (N, C); (N,) is allowed for a regression.
        space: The label contract.

    Returns:
        Float64, shape (N, C): softmax for exclusive and ordered classes, sigmoid for multi-label, the logits
        themselves for a regression.

    Raises:
        ShapeError: The columns are not those of the label contract.

    Example:
        >>> space = LabelSpace("classification", ("no", "yes"))
        >>> to_probabilities(np.array([[0.0, 0.0]]), space).tolist()
        [[0.5, 0.5]]
    """
    values = _to_columns(logits, space, "logits")
    if space.kind == "regression":
        return values
    if space.kind == "multi_label":
        # exp of a large positive number overflows; of a negative one it does not.
        small = np.exp(-np.abs(values))
        return np.where(values >= 0, 1.0, small) / (1.0 + small)
    powers = np.exp(values - values.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _to_columns(values: np.ndarray, space: LabelSpace, what: str) -> FloatArray:
    """Give values the shape (N, C) in float64 and check C."""
    columns = np.asarray(values, dtype=np.float64)
    if space.kind == "regression" and columns.ndim == 1:
        columns = columns[:, None]
    if columns.ndim != 2 or columns.shape[1] != space.num_outputs:
        raise ShapeError(
            f"{what}: expected shape (N, {space.num_outputs}), a column a label, got {np.shape(values)}; "
            f"use the label space that the model was trained with."
        )
    return columns


def predict_labels(
    probabilities: np.ndarray, space: LabelSpace, thresholds: Sequence[float | None] | None = None
) -> IntArray | FloatArray:
    """Decide for each example.

    Args:
        probabilities: Float, shape (N, C), from ``to_probabilities``.
        space: The label contract.
        thresholds: One a label for a multi-label task; 0.5 where absent. For exclusive classes a number for one of
            them and None for the rest: it is given from that probability on, the likeliest other class below it.

    Returns:
        Class ids, int64, shape (N,), for exclusive and ordered classes, the first of equals; 0 / 1, int64, shape
        (N, C), for multi-label; float64, shape (N,), for a regression.

    Raises:
        ShapeError: Columns or thresholds are not those of the label contract.

    Example:
        >>> predict_labels(np.array([[0.4, 0.6]]), LabelSpace("multi_label", ("a", "b")), [0.3, 0.7]).tolist()
        [[1, 0]]
    """
    values = _to_columns(probabilities, space, "probabilities")
    if thresholds is not None:
        numbers = [limit for limit in thresholds if limit is not None]
        wanted = {"multi_label": space.num_outputs, "regression": -1}.get(space.kind, 1)
        if len(thresholds) != space.num_outputs or len(numbers) != wanted:
            raise ShapeError(
                f"thresholds: expected one for each of {space.num_outputs} labels of a multi_label task, or for one "
                f"of exclusive classes, got {len(numbers)} for {space.kind}."
            )
    if space.kind == "regression":
        return values[:, 0]
    if space.kind == "multi_label":
        limits = np.asarray(THRESHOLD if thresholds is None else thresholds, dtype=np.float64)
        return np.asarray(values >= limits, dtype=np.int64)
    if thresholds is not None:
        column = next(place for place, limit in enumerate(thresholds) if limit is not None)
        others = values.copy()
        others[:, column] = -np.inf
        is_given = values[:, column] >= np.float64(thresholds[column])
        return np.where(is_given, column, others.argmax(axis=1)).astype(np.int64)
    return np.asarray(values.argmax(axis=1), dtype=np.int64)


def name_predictions(
    probabilities: np.ndarray,
    space: LabelSpace,
    thresholds: Sequence[float | None] | None = None,
    *,
    abstain_below: float | None = None,
) -> list[Any]:
    """Turn probabilities into what a user reads.

    Args:
        probabilities: Float, shape (N, C), from ``to_probabilities``.
        space: The label contract.
        thresholds: As ``predict_labels`` takes them.
        abstain_below: Probability of the likeliest class under which no label is given, in [0, 1].

    Returns:
        N label names, None where it abstains; lists of names for multi_label; floats for a regression.

    Example:
        >>> name_predictions(np.array([[0.4, 0.6]]), LabelSpace("classification", ("no", "yes")))
        ['yes']
    """
    found = predict_labels(probabilities, space, thresholds)
    if space.kind == "regression":
        return [float(value) for value in found]
    if space.kind == "multi_label":
        return [[name for name, is_on in zip(space.names, row, strict=True) if is_on] for row in found]
    given = probabilities.max(axis=1) >= (abstain_below or 0.0)
    return [space.names[index] if is_given else None for index, is_given in zip(found, given, strict=True)]


def gather_sample(
    labels: np.ndarray, probabilities: np.ndarray, space: LabelSpace, thresholds: Sequence[float | None] | None
) -> Sample:
    """Check labels against probabilities and hold them together.

    Args:
        labels: int64 (N,), 0 / 1 (N, C) or float (N,), by kind of task.
        probabilities: Float, shape (N, C), from ``to_probabilities``.
        space: The label contract.
        thresholds: As ``predict_labels`` takes them.

    Returns:
        What the metrics read.

    Raises:
        ShapeError: The inputs disagree on a size, or hold nothing, or are logits.
        LabelError: A label is outside the label contract.
        DivergedError: Predictions are not finite.
    """
    values = _to_columns(probabilities, space, "probabilities")
    truth = np.asarray(labels)
    if len(truth) != len(values) or not len(truth):
        raise ShapeError(
            f"scores: expected a label for every example scored, got {len(truth)} labels and {len(values)} "
            f"predictions; score all rows of a split that has rows."
        )
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).any(axis=1).sum())
        raise DivergedError(
            f"scores: expected finite predictions, got NaN or infinity for {bad} of {len(values)} examples; "
            f"train with a lower training.learning_rate or training.precision=fp32."
        )
    _check_labels(truth, space)
    is_share = space.kind == "regression" or (values.min() >= 0 and values.max() <= 1)
    if not is_share or (space.is_categorical and np.abs(values.sum(axis=1) - 1).max() > 1e-3):
        raise ShapeError("probabilities: expected shares in [0, 1], got logits; pass them through to_probabilities.")
    return Sample(truth, values, predict_labels(values, space, thresholds), space)


def _check_labels(labels: np.ndarray, space: LabelSpace) -> None:
    """Refuse labels that the label contract does not have."""
    rank = 2 if space.kind == "multi_label" else 1
    if labels.ndim != rank or (rank == 2 and labels.shape[1] != space.num_outputs):
        raise ShapeError(f"labels: expected {rank}-dimensional labels for {space.kind}, got shape {labels.shape}.")
    top = 1 if rank == 2 else space.num_outputs - 1
    if space.kind != "regression" and not (np.isin(labels, np.arange(top + 1)).all()):
        raise LabelError(f"labels: expected whole numbers from 0 to {top}, got {labels.min()} to {labels.max()}.")
    if not np.isfinite(labels).all():
        raise LabelError("labels: expected finite numbers, got NaN or infinity; drop or fix those rows.")
