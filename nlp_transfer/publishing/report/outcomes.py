"""What the predictions of a run show: confusions, stated confidence, worst errors.

Reads the frame that is ``predictions.parquet``: columns ``split``, ``id``, ``text``, (``text_b``), ``label``,
``predicted`` and ``probability_<label>``; labels as names, lists of names for multi-label, numbers for regression.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nlp_transfer.contracts import TaskKind
from nlp_transfer.evaluation.calibration import BINS, ReliabilityBins, reliability_bins
from nlp_transfer.figures import format_number

__all__ = [
    "WorstError",
    "bin_confidence",
    "count_confusions",
    "count_label_outcomes",
    "find_worst_errors",
    "list_confused_pairs",
    "select_labelled",
]


@dataclass(frozen=True)
class WorstError:
    """One confident mistake; ``probability`` is None and ``error`` a number for regression."""

    id: str
    text: str
    text_b: str | None
    label: str
    predicted: str
    probability: float | None
    error: float | None


def select_labelled(predictions: pd.DataFrame, split: str | None) -> pd.DataFrame:
    """Keep the rows of a split that have a label; no row where the split is None."""
    if split is None or "label" not in predictions:
        return predictions.iloc[:0]
    rows = predictions[predictions["split"] == split]
    return rows[rows["label"].notna()].reset_index(drop=True)


def count_confusions(labelled: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Count predicted classes per true class.

    Args:
        labelled: Rows with ``label`` and ``predicted`` as names.
        names: Classes, in the order of the matrix.

    Returns:
        Counts, int64, shape (C, C): row true, column predicted. Names that are not classes are not counted.

    Example:
        >>> frame = pd.DataFrame({"label": ["a", "a", "b"], "predicted": ["a", "b", "b"]})
        >>> count_confusions(frame, ["a", "b"]).tolist()
        [[1, 1], [0, 1]]
    """
    index = {name: position for position, name in enumerate(names)}
    true = labelled["label"].astype(str).map(index)
    predicted = labelled["predicted"].astype(str).map(index)
    known = true.notna() & predicted.notna()
    matrix = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(matrix, (true[known].to_numpy(dtype=np.int64), predicted[known].to_numpy(dtype=np.int64)), 1)
    return matrix


def list_confused_pairs(matrix: np.ndarray, names: Sequence[str], limit: int) -> list[tuple[str, str, int, int]]:
    """List the most frequent confusions as (true, predicted, count, examples of the true class)."""
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:limit]
    totals = matrix.sum(axis=1)
    pairs = [divmod(int(flat), len(names)) for flat in order]
    return [(names[i], names[j], int(off[i, j]), int(totals[i])) for i, j in pairs if off[i, j] > 0]


def bin_confidence(
    labelled: pd.DataFrame, names: Sequence[str], kind: TaskKind, *, bins: int = BINS
) -> ReliabilityBins | None:
    """File predictions by stated confidence; for multi-label every (example, label) decision is one.

    Args:
        labelled: Rows with labels, predictions and probabilities.
        names: Classes, in column order.
        kind: The task; a regression states no confidence.
        bins: Count of equal-width bins over (0, 1].

    Returns:
        The bins, or None where there is nothing to file.

    Example:
        >>> frame = pd.DataFrame({"label": ["a", "b"], "probability_a": [0.9, 0.6], "probability_b": [0.1, 0.4]})
        >>> bin_confidence(frame, ["a", "b"], "classification", bins=2).accuracy[1].item()
        0.5
    """
    columns = [f"probability_{name}" for name in names]
    labels: np.ndarray
    if kind == "regression" or not columns or any(name not in labelled for name in columns):
        return None
    probabilities_NC = labelled[columns].to_numpy(dtype=np.float64)
    if kind == "multi_label":
        truth = [set(_read_names(value, names)) for value in labelled["label"]]
        # One column a decision: it is the right one (column 0) where the label is true.
        labels = np.array([[0 if name in true else 1 for name in names] for true in truth], dtype=np.int64).ravel()
        probabilities_NC = probabilities_NC.reshape(-1, 1)
    else:
        index = {name: position for position, name in enumerate(names)}
        labels = labelled["label"].astype(str).map(index).fillna(-1).to_numpy(dtype=np.int64)
    finite = np.isfinite(probabilities_NC).all(axis=1)
    if not finite.any():
        return None
    return reliability_bins(probabilities_NC[finite], labels[finite], bins=bins)


def count_label_outcomes(labelled: pd.DataFrame, names: Sequence[str]) -> list[tuple[str, int, int, int]]:
    """Count per label of a multi-label task: (name, found, missed, wrongly given)."""
    truth = [set(_read_names(value, names)) for value in labelled["label"]]
    given = [set(_read_names(value, names)) for value in labelled["predicted"]]
    rows = []
    for name in names:
        found = sum(name in t and name in g for t, g in zip(truth, given, strict=True))
        missed = sum(name in t and name not in g for t, g in zip(truth, given, strict=True))
        wrong = sum(name not in t and name in g for t, g in zip(truth, given, strict=True))
        rows.append((name, found, missed, wrong))
    return rows


def find_worst_errors(labelled: pd.DataFrame, names: Sequence[str], kind: TaskKind, limit: int) -> list[WorstError]:
    """Find the mistakes with the highest confidence.

    Args:
        labelled: Rows with labels and predictions.
        names: Classes, in column order.
        kind: The task: by probability of the wrong class, or by size of the error for a regression.
        limit: Most mistakes returned.

    Returns:
        Mistakes, the most confident first; ties in the order of the rows.
    """
    if not len(labelled) or limit <= 0:
        return []
    severity: np.ndarray
    if kind == "regression":
        severity = (labelled["predicted"].astype(float) - labelled["label"].astype(float)).to_numpy()
        wrong = np.abs(severity) > 0
    elif kind == "multi_label":
        severity = _measure_label_errors(labelled, names)
        wrong = severity > 0
    else:
        wrong = (labelled["label"].astype(str) != labelled["predicted"].astype(str)).to_numpy()
        severity = _read_predicted_probability(labelled, names)
    order = [int(i) for i in np.argsort(-np.abs(np.nan_to_num(severity)), kind="stable") if wrong[i]][:limit]
    return [_describe_error(labelled.iloc[i], float(severity[i]), kind, names) for i in order]


def _read_names(value: object, names: Sequence[str]) -> list[str]:
    """Names of one multi-label cell: a list, an array, or names joined by commas."""
    if isinstance(value, str):
        return [value] if value in names else [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, (list, tuple, set, np.ndarray)):
        return [str(name) for name in value]
    return []


def _read_predicted_probability(labelled: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Probability of the predicted class per row, nan where there is no such column; shape (N,)."""
    result = np.full(len(labelled), np.nan)
    predicted = labelled["predicted"].astype(str).to_numpy()
    for name in names:
        column = f"probability_{name}"
        if column in labelled:
            rows = predicted == name
            result[rows] = labelled[column].to_numpy(dtype=np.float64)[rows]
    return result


def _measure_label_errors(labelled: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Confidence of the surest wrong decision per row, 0 where every label is right; shape (N,)."""
    result = np.zeros(len(labelled))
    for position, (true, given) in enumerate(zip(labelled["label"], labelled["predicted"], strict=True)):
        truth, guess = set(_read_names(true, names)), set(_read_names(given, names))
        for name in truth ^ guess:
            column = f"probability_{name}"
            stated = float(labelled[column].iloc[position]) if column in labelled else 0.5
            # The smallest positive confidence keeps a mistake without probability in the list.
            result[position] = max(result[position], stated if name in guess else 1 - stated, 1e-9)
    return result


def _describe_error(row: "pd.Series[Any]", severity: float, kind: TaskKind, names: Sequence[str]) -> WorstError:
    """Turn one row into what the reader sees."""
    if kind == "multi_label":
        label, predicted = (", ".join(_read_names(row[key], names)) or "(none)" for key in ("label", "predicted"))
    elif kind == "regression":
        label, predicted = (format_number(float(row[key])) for key in ("label", "predicted"))
    else:
        label, predicted = str(row["label"]), str(row["predicted"])
    is_number = kind == "regression"
    second = row.get("text_b")
    return WorstError(
        id=str(row.get("id", row.name)),
        text=str(row.get("text", "")),
        text_b=second if isinstance(second, str) else None,
        label=label,
        predicted=predicted,
        probability=None if is_number or not np.isfinite(severity) else severity,
        error=severity if is_number else None,
    )
