"""Probabilities from which a label is given, chosen on validation for a goal."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import ArtifactError, DataError, ShapeError
from nlp_transfer.evaluation.metrics.counts import FloatArray, IntArray

__all__ = ["Choice", "Goal", "choose_threshold", "choose_thresholds", "read_thresholds"]

Goal = Literal["f1", "precision_at_recall", "recall_at_precision"]

USUAL = 0.5
"""Threshold nearest to which ties are settled, and that of a label without a choice."""


@dataclass(frozen=True)
class Choice:
    """A threshold and what it gives on the rows it was chosen on.

    Attributes:
        threshold: In (0, 1).
        precision: Share of the rows given the label that have it; 1 where none is given it.
        recall: Share of the rows that have the label that are given it.
        is_met: Whether the wanted precision or recall is reached; always for ``f1``.
    """

    threshold: float
    precision: float
    recall: float
    is_met: bool = True

    def to_json(self) -> dict[str, Any]:
        """The choice as the report holds it."""
        return asdict(self)


def choose_threshold(probabilities: np.ndarray, is_own: np.ndarray, goal: Goal, *, at: float = 0.9) -> Choice:
    """Choose the threshold of one label.

    Thresholds lie in the middle between neighboring probabilities, so that rounding turns no row.

    Args:
        probabilities: Of the label, float, shape (N,).
        is_own: Whether a row has the label, shape (N,).
        goal: ``f1``; ``precision_at_recall``, the best precision with a recall of ``at`` or more; or
            ``recall_at_precision``, the best recall with a precision of ``at`` or more.
        at: The recall or the precision that is wanted, in (0, 1].

    Returns:
        The choice. Where nothing reaches ``at``, the one that comes nearest to it, with ``is_met`` false.

    Raises:
        ShapeError: The inputs disagree on N.
        DataError: No row has the label, so that there is nothing to choose by.

    Source:
        Lipton, Elkan and Naryanaswamy 2014, https://arxiv.org/abs/1402.1892, for thresholds that maximize F1.

    Example:
        >>> found = choose_threshold(np.array([0.9, 0.4, 0.3, 0.1]), np.array([1, 1, 0, 0]), "f1")
        >>> round(found.threshold, 2), found.precision, found.recall
        (0.35, 1.0, 1.0)
    """
    stated, own = np.asarray(probabilities, dtype=np.float64), np.asarray(is_own, dtype=bool)
    if stated.ndim != 1 or stated.shape != own.shape:
        raise ShapeError(f"thresholds: expected a truth for each of {stated.shape}, got {own.shape}.")
    if not own.any():
        raise DataError("thresholds: expected validation rows that have the label, came none. Add some.")
    levels = np.unique(stated)
    limits = np.concatenate([[levels[0] / 2], (levels[:-1] + levels[1:]) / 2, [(levels[-1] + 1) / 2]])
    # Rows at or above each limit, from sorted probabilities.
    ascending = np.sort(stated)
    ascending_own = np.sort(stated[own])
    given = len(stated) - np.searchsorted(ascending, limits, side="left")
    hits = own.sum() - np.searchsorted(ascending_own, limits, side="left")
    precision = np.where(given > 0, hits / np.maximum(given, 1), 1.0)
    recall = hits / own.sum()
    score = 2 * hits / (given + own.sum())
    is_met = True
    if goal != "f1":
        wanted, score = (recall, precision) if goal == "precision_at_recall" else (precision, recall)
        # A label that is never given is always precise; that is no way to reach a precision.
        reached = (wanted >= at - 1e-12) & (given > 0)
        is_met = bool(reached.any())
        score = np.where(reached, score, -1.0) if is_met else np.where(given > 0, wanted, -1.0)
    best = np.flatnonzero(score >= score.max() - 1e-12)
    place = int(best[np.argmin(np.abs(limits[best] - USUAL))])
    return Choice(float(limits[place]), float(precision[place]), float(recall[place]), is_met)


def choose_thresholds(
    probabilities: FloatArray, labels: IntArray, space: LabelSpace, goal: Goal, *, at: float, label: str | None
) -> dict[str, Choice]:
    """Choose thresholds for every label of a multi-label task, or for one of exclusive classes.

    Args:
        probabilities: Float, shape (N, C), of validation.
        labels: 0 / 1, shape (N, C), or class ids, shape (N,).
        space: The label contract.
        goal: See `choose_threshold`.
        at: See `choose_threshold`.
        label: The one label that gets a threshold; all of a multi-label task where absent.

    Returns:
        Label name to choice; a label that no validation row has gets none and stays at 0.5.

    Raises:
        DataError: There is no such label, it has no validation rows, or exclusive classes came without one.
    """
    if label is not None and label not in space.names:
        raise DataError(
            f"evaluation.threshold_label: expected one of {', '.join(space.names[:8])}, came {label!r}. Name one."
        )
    if space.kind != "multi_label" and label is None:
        raise DataError("evaluation.threshold_label: expected the class that gets the threshold, came none. Name it.")
    truth = np.asarray(labels)
    own_NC = truth.astype(bool) if truth.ndim == 2 else np.eye(space.num_outputs, dtype=bool)[truth]
    chosen = range(space.num_outputs) if label is None else [space.names.index(label)]
    found: dict[str, Choice] = {}
    for column in chosen:
        if label is not None or own_NC[:, column].any():
            found[space.names[column]] = choose_threshold(probabilities[:, column], own_NC[:, column], goal, at=at)
    return found


def read_thresholds(metadata: Mapping[str, Any], space: LabelSpace, *, where: str) -> list[float | None] | None:
    """Read the thresholds that an artefact holds.

    Args:
        metadata: What ``nlp_transfer.json`` holds; ``thresholds`` maps label names to numbers.
        space: The label contract.
        where: The artefact, for messages.

    Returns:
        One a label, as ``predict_labels`` takes them; None where the artefact has none.

    Raises:
        ArtifactError: What stands there does not fit the label contract.

    Example:
        >>> space = LabelSpace("classification", ("ham", "spam"))
        >>> read_thresholds({"thresholds": {"spam": 0.8}}, space, where="model")
        [None, 0.8]
    """
    record = metadata.get("thresholds")
    if record is None:
        return None
    is_sound = isinstance(record, dict) and set(record) <= set(space.names) and len(record) > 0
    values: Sequence[Any] = list(record.values()) if is_sound else []
    is_sound = is_sound and all(isinstance(value, int | float) and 0 <= value <= 1 for value in values)
    if not is_sound or space.kind == "regression" or (space.is_categorical and len(values) > 1):
        raise ArtifactError(
            f"{where}: thresholds: expected numbers in [0, 1] by label name, of one class where classes are "
            f"exclusive, came {record!r}. Copy the artefact again, or train it again."
        )
    usual = USUAL if space.kind == "multi_label" else None
    return [record.get(name, usual) for name in space.names]
