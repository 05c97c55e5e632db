"""What a suite found: every contender against the first, job by job."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

__all__ = ["ALL_JOBS", "compare_contenders", "comparison_table", "find_leaders"]

MEDIANS = (
    "examples_per_second",
    "padding_share",
    "matrix_share",
    "trainable_share",
    "saved_bytes",
    "peak_memory_bytes",
)
"""What is given as the median over rounds where it is known."""

ALL_JOBS = "all"
"""Name of the row that averages over the jobs."""


def compare_contenders(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Hold every contender against the first one, round by round.

    Args:
        records: What ``run_suite`` gives; the first contender of each job is what the others are compared with.

    Returns:
        One row a job and contender, then one a contender over all jobs that everyone did: ``accuracy`` with its
        standard deviation over rounds (``spread``), ``seconds`` (median over rounds; over all jobs their sum), and
        against the first contender ``difference`` of accuracies with its standard error ``error`` over rounds,
        ``time_ratio``, its seconds over the first one's (median) with ``time_low`` and ``time_high``, and where labels
        were predicted ``agreement``, the share of labels that both give.

    Example:
        >>> one = {"job": "a", "round": 0, "contender": "ours", "accuracy": 0.9, "seconds": 1.0}
        >>> rows = compare_contenders([one, one | {"contender": "peer", "accuracy": 0.8, "seconds": 4.0}])
        >>> rows[1]["time_ratio"], round(rows[1]["difference"], 2)
        (4.0, -0.1)
    """
    jobs = list(dict.fromkeys(record["job"] for record in records))
    names = list(dict.fromkeys(record["contender"] for record in records))
    found = {(record["job"], record["contender"], record["round"]): record for record in records}
    rounds = {
        (job, name): sorted(number for j, n, number in found if (j, n) == (job, name)) for job in jobs for name in names
    }
    rows = []
    for job in jobs:
        leader = next(name for name in names if rounds[job, name])
        for name in names:
            if own := [found[job, name, number] for number in rounds[job, name]]:
                first = [found.get((job, leader, number)) for number in rounds[job, name]]
                rows.append({"job": job, "contender": name, **_describe(own, first)})
    common = set.intersection(*(set(numbers) for numbers in rounds.values())) if len(jobs) > 1 else set()
    for name in names if common else ():
        both = [
            [_add_up([found[job, each, number] for job in jobs]) for number in sorted(common)]
            for each in (name, names[0])
        ]
        rows.append({"job": ALL_JOBS, "contender": name, **_describe(*both)})
    return rows


def _add_up(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One round over several jobs: mean accuracy, all seconds."""
    return {
        "accuracy": float(np.mean([record["accuracy"] for record in records])),
        "seconds": sum(record["seconds"] for record in records),
    }


def _describe(own: Sequence[Mapping[str, Any]], first: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """A contender's rounds, and what they are beside the first contender's."""
    accuracies = np.array([record["accuracy"] for record in own])
    size = own[0].get("settings", {}).get("size")
    row: dict[str, Any] = {
        **({} if size is None else {"size": size}),
        "rounds": len(own),
        "accuracy": float(accuracies.mean()),
        "spread": float(accuracies.std(ddof=1)) if len(own) > 1 else None,
        "seconds": float(np.median([record["seconds"] for record in own])),
    }
    for key in MEDIANS:
        values = [record[key] for record in own if record.get(key) is not None]
        row[key] = float(np.median(values)) if values else None
    pairs = [(mine, other) for mine, other in zip(own, first, strict=True) if other is not None]
    if not pairs:
        return row
    differences = np.array([mine["accuracy"] - other["accuracy"] for mine, other in pairs])
    ratios = np.array([mine["seconds"] / other["seconds"] for mine, other in pairs if other["seconds"] > 0])
    row["difference"] = float(differences.mean())
    row["error"] = float(differences.std(ddof=1) / np.sqrt(len(pairs))) if len(pairs) > 1 else None
    same = [
        np.mean([left == right for left, right in zip(mine["predicted"], other["predicted"], strict=True)])
        for mine, other in pairs
        if mine.get("predicted") and other.get("predicted")
    ]
    if same:
        row["agreement"] = float(np.mean(same))
    if len(ratios):
        row |= {
            "time_ratio": float(np.median(ratios)),
            "time_low": float(ratios.min()),
            "time_high": float(ratios.max()),
        }
    return row


LONGEST_NAME = 8
"""Letters that a heading takes where every column is to fit a terminal of 80."""


def find_leaders(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Name what the others of each job were compared with.

    Args:
        rows: What ``compare_contenders`` gives.

    Returns:
        Job to contender.

    Example:
        >>> find_leaders([{"job": "a", "contender": "ours"}, {"job": "a", "contender": "peer"}])
        {'a': 'ours'}
    """
    leaders: dict[str, str] = {}
    for row in rows:
        leaders.setdefault(row["job"], row["contender"])
    return leaders


def comparison_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Lay out what ``compare_contenders`` gives.

    Args:
        rows: Its rows.
        title: Of the table.

    Returns:
        A table for a terminal.
    """
    leaders = find_leaders(rows)
    names = set(leaders.values())
    first = names.pop() if len(names) == 1 and max(map(len, names)) <= LONGEST_NAME else "first"
    columns = _choose_columns([row for row in rows if row["job"] != ALL_JOBS])
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("job", no_wrap=True)
    table.add_column("contender", style="bold", no_wrap=True)
    beside = [heading for heading, _, _ in columns]
    for heading in ["accuracy", "seconds", *beside, f"minus\n{first}", f"time /\n{first}"]:
        table.add_column(heading, justify="right", no_wrap=True)
    previous = None
    for row in rows:
        cells = [_join(row["accuracy"], row["spread"]), f"{row['seconds']:.1f}"]
        # Over all jobs, none of these is one figure.
        cells += ["" if row.get(key) is None else show(row[key]) for _, key, show in columns]
        is_first = row["contender"] == leaders[row["job"]]
        cells.append("" if is_first or "difference" not in row else _join(row["difference"], row["error"], sign="+"))
        cells.append("" if is_first or "time_ratio" not in row else _span(row))
        if previous is not None and previous != row["job"]:
            table.add_section()
        table.add_row("" if previous == row["job"] else row["job"], row["contender"], *cells)
        previous = row["job"]
    return table


def _choose_columns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, Callable[[float], str]]]:
    """What is shown beside accuracy and time, as (heading, key, how): sizes where a suite is about them, else speed."""
    if all(row.get("saved_bytes") for row in rows) and len({row.get("trainable_share") for row in rows}) > 1:
        return [
            ("trained\n%", "trainable_share", lambda share: f"{100 * share:.2f}"),
            ("saved\nMB", "saved_bytes", lambda size: f"{size / 1e6:.2f}"),
        ]
    columns = [
        ("ex/s", "examples_per_second", "{:.0f}".format),
        ("same\n%", "agreement", _show_percent),
        ("pad\n%", "padding_share", _show_percent),
        ("peak\nMB", "peak_memory_bytes", lambda size: f"{size / 1e6:.0f}"),
        ("limit\n%", "matrix_share", _show_percent),
    ]
    return [column for column in columns if any(row.get(column[1]) is not None for row in rows)]


def _show_percent(share: float) -> str:
    """A share, with one digit behind the point."""
    return f"{100 * share:.1f}"


def _join(value: float, spread: float | None, sign: str = "") -> str:
    """A figure with what it varies by."""
    return f"{value:{sign}.3f}" + ("" if spread is None else f"\n± {spread:.3f}")


def _span(row: Mapping[str, Any]) -> str:
    """A median with its range."""
    middle, low, high = (f"{row[key]:.3g}" for key in ("time_ratio", "time_low", "time_high"))
    return middle if row["rounds"] < 2 else f"{middle}\n{low}-{high}"
