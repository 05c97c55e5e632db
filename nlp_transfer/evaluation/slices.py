"""Scores of parts of a split: how a classifier does on each group, and on which it does worst."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.data.spelling import spell_values
from nlp_transfer.errors import DataError, ShapeError
from nlp_transfer.evaluation.scoring import is_better, score_split

__all__ = ["BUILT_IN", "SliceTable", "bucket_lengths", "find_worst", "gather_groups", "score_slices"]

BUILT_IN = ("length", "label")
"""Slices that need no column: words of the text in quarters, and the true class."""

SliceTable = dict[str, Any]
"""One column's slices, as the report holds them: ``metric``, ``groups``, ``worst``, ``left_out``."""

MOST_GROUPS = 50
"""Values of a column above which it is no grouping; the largest are scored and the rest are counted. Chosen."""

FEWEST = 10
"""Rows below which a group is shown, but is not called the worst: its interval says little. Chosen."""

NO_VALUE = "(none)"


def bucket_lengths(texts: Sequence[str], *, buckets: int = 4) -> list[str]:
    """Name the bucket of every text by its count of words.

    Args:
        texts: N texts; words are what white space separates.
        buckets: How many of about equal size; fewer where lengths repeat.

    Returns:
        N names, such as ``1-12 words``.

    Example:
        >>> bucket_lengths(["a", "a b", "a b c", "a b c d"], buckets=2)
        ['1-2 words', '1-2 words', '3-4 words', '3-4 words']
    """
    if not texts:
        return []
    counts = np.array([len(text.split()) for text in texts])
    borders = np.unique(np.quantile(counts, np.arange(1, buckets) / buckets, method="lower"))
    own = np.searchsorted(borders, counts, side="left")
    names = {int(b): f"{counts[own == b].min()}-{counts[own == b].max()} words" for b in np.unique(own)}
    return [names[int(bucket)] for bucket in own]


def score_slices(
    groups: Mapping[str, Sequence[Any]],
    labels: np.ndarray,
    probabilities: np.ndarray,
    space: LabelSpace,
    metric: str,
    *,
    resamples: int,
    confidence: float,
    thresholds: Sequence[float | None] | None = None,
) -> dict[str, SliceTable]:
    """Score every group of every column.

    Args:
        groups: Column to the value of each of N rows; nothing counts as a group of its own, lists as their members.
        labels: True labels of the rows, as ``score_split`` takes them.
        probabilities: Float, shape (N, C).
        space: The label contract.
        metric: Report key of one figure.
        resamples: Bootstrap resamples of every interval.
        confidence: Coverage of the intervals.
        thresholds: As ``predict_labels`` takes them.

    Returns:
        Column to its table: ``groups`` from worst to best with ``name``, ``value``, ``low``, ``high``, ``n``; a group
        in which the metric is undefined has None; ``worst`` the name of the worst group of ten rows or more.

    Raises:
        ShapeError: A column has another number of rows.
        DataError: Nearly every row of a column has a value of its own.
    """
    found: dict[str, SliceTable] = {}
    for column, values in groups.items():
        if len(values) != len(labels):
            raise ShapeError(f"slices: expected {len(labels)} values of {column!r}, got {len(values)}.")
        members = gather_groups(column, values)
        kept = sorted(members, key=lambda name: (-len(members[name]), name))[:MOST_GROUPS]
        rows: list[dict[str, Any]] = []
        for name in kept:
            own = np.asarray(members[name])
            scores = score_split(
                labels[own],
                probabilities[own],
                space,
                [metric],
                resamples=resamples,
                confidence=confidence,
                thresholds=thresholds,
            )
            score = scores.get(metric)
            figures: dict[str, float | None] = {"value": None, "low": None, "high": None}
            if score is not None:
                figures = {"value": score.value, "low": score.low, "high": score.high}
            rows.append({"name": name, **figures, "n": len(own)})
        rows.sort(key=lambda row: _rank(metric, row["value"]))
        worst = find_worst(rows)
        found[column] = {
            "metric": metric,
            "groups": rows,
            "worst": worst,
            "left_out": len(members) - len(kept),
        }
    return found


def gather_groups(column: str, values: Sequence[Any]) -> dict[str, list[int]]:
    """Collect the rows of every group.

    Args:
        column: Its name, for messages.
        values: One a row; a list puts the row into every group that it names, nothing into a group of its own.

    Returns:
        Group name to row numbers.

    Raises:
        DataError: Nearly every row has a value of its own, as ids and texts have.

    Example:
        >>> gather_groups("topic", ["a", None, ["a", "b"]])
        {'a': [0, 2], '(none)': [1], 'b': [2]}
    """
    members: dict[str, list[int]] = {}
    listed = [list(value) if isinstance(value, list | tuple) else [value] for value in values]
    spelled = iter(spell_values([each for parts in listed for each in parts]))
    for row, parts in enumerate(listed):
        named = [next(spelled) for _ in parts]
        for part in dict.fromkeys(name for name in named if name) or [NO_VALUE]:
            members.setdefault(part, []).append(row)
    if len(members) > max(MOST_GROUPS, len(values) // 2):
        raise DataError(
            f"evaluation.slices: expected a column that groups rows, came {column!r} with {len(members)} values "
            f"in {len(values)} rows. Name another."
        )
    return members


def _rank(metric: str, value: float | None) -> float:
    """Sorts from worst to best, undefined last."""
    if value is None:
        return float("inf")
    return value if is_better(metric, 1.0, 0.0) else -value


def find_worst(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Name the first group that has rows enough; None where there is none, or no second one to compare with."""
    judged = [row for row in rows if row["n"] >= FEWEST and row["value"] is not None]
    return str(judged[0]["name"]) if len(judged) > 1 else None
