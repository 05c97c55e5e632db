"""Scores as rows of text: the one layout that page and card share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nlp_transfer.publishing.summary import (
    choose_split,
    find_section,
    format_count,
    format_interval,
    format_number,
    list_baselines,
    list_class_scores,
    list_metrics,
    list_splits,
    name_metric,
    read_score,
)

__all__ = ["ClassBoard", "ScoreBoard", "ScoreRow", "collect_class_scores", "collect_scores"]

UNKNOWN = "—"


@dataclass(frozen=True)
class ScoreRow:
    """One metric, written out; ``beside`` holds a value for every baseline of the board."""

    metric: str
    value: str
    spread: str
    interval: str
    n: str
    beside: tuple[str, ...]


@dataclass(frozen=True)
class ScoreBoard:
    """The scores of one split; ``n`` is empty where the metrics disagree about it, ``baselines`` holds keys."""

    split: str
    n: str
    baselines: tuple[str, ...]
    rows: tuple[ScoreRow, ...]


@dataclass(frozen=True)
class ClassBoard:
    """The figures of single classes on one split: (label, cells) for every class that is shown."""

    metrics: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    total: int


def collect_scores(record: Mapping[str, Any]) -> list[ScoreBoard]:
    """Write out the scores of every split, with the same baselines in the same order on each.

    Example:
        >>> score = {"value": 0.9, "low": 0.8, "high": 1.0, "n": 9}
        >>> collect_scores({"scores": {"test": {"accuracy": score}}})[0].rows[0].interval
        '[0.800, 1.000]'
    """
    splits = list_splits(record)
    metrics = {split: list_metrics(record, split) for split in splits}
    found = {
        (split, metric): list_baselines(record, split, metric) for split, named in metrics.items() for metric in named
    }
    keys = tuple(dict.fromkeys(key for baselines in found.values() for key in baselines))
    boards = []
    for split in splits:
        rows = []
        for metric in metrics[split]:
            score = read_score(find_section(record, "scores", split)[metric])
            spread, beside = score.get("spread"), found[split, metric]
            rows.append(
                ScoreRow(
                    metric=name_metric(metric),
                    value=format_number(score.get("value")),
                    spread="" if spread is None else f"± {format_number(spread)}",
                    interval=format_interval(score) or UNKNOWN,
                    n=format_count(score.get("n")),
                    beside=tuple(format_number(beside[key]["value"]) if key in beside else UNKNOWN for key in keys),
                )
            )
        counts = {row.n for row in rows}
        boards.append(ScoreBoard(split, counts.pop() if len(counts) == 1 else "", keys, tuple(rows)))
    return boards


def collect_class_scores(record: Mapping[str, Any], limit: int) -> ClassBoard:
    """Write out the figures of single classes on the split of the headline, at most ``limit`` classes."""
    split = choose_split(record)
    scores = {} if split is None else list_class_scores(record, split)
    metrics = tuple(dict.fromkeys(metric for row in scores.values() for metric in row))
    rows = tuple(
        (label, tuple(format_number(row[metric].get("value")) if metric in row else UNKNOWN for metric in metrics))
        for label, row in list(scores.items())[:limit]
    )
    return ClassBoard(tuple(name_metric(metric) for metric in metrics), rows, len(scores))
