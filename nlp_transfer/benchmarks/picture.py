"""A suite's times as a picture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nlp_transfer.benchmarks.summary import ALL_JOBS
from nlp_transfer.publishing.artifact import write_atomically
from nlp_transfer.publishing.drawing import (
    BLUE,
    INK,
    SOFT,
    WIDTH,
    new_figure,
    place,
    tidy_bars,
    write_above,
    write_svg,
)

__all__ = ["draw_ratios", "write_comparison"]


def write_comparison(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write ``comparison.json`` and, where there is somebody to compare with, ``comparison.svg``.

    Args:
        rows: What ``compare_contenders`` gives.
        folder: Where they go.

    Raises:
        StorageError: The disk failed.
    """
    write_atomically(folder / "comparison.json", json.dumps(list(rows), indent=2) + "\n")
    if picture := draw_ratios(rows):
        write_atomically(folder / "comparison.svg", picture + "\n")


def draw_ratios(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw how many times the first contender's time the others take, with the range over rounds.

    Args:
        rows: What ``compare_contenders`` gives.

    Returns:
        One ``<svg>`` element; empty where there is nobody to compare with.

    Example:
        >>> one = {"job": "a", "contender": "ours", "accuracy": 0.9, "rounds": 1}
        >>> peer = one | {"contender": "peer", "accuracy": 0.8, "time_ratio": 4.0, "time_low": 3.0, "time_high": 5.0}
        >>> draw_ratios([one])
        ''
        >>> draw_ratios([one, peer])[:4]
        '<svg'
    """
    first = rows[0]["contender"]
    shown = [row for row in rows if row["contender"] != first and "time_ratio" in row]
    if not shown:
        return ""
    reached = {row["job"]: row["accuracy"] for row in rows if row["contender"] == first}
    with new_figure(WIDTH, 60 + 40 * len(shown)) as figure:
        axes = figure.subplots()
        place(figure, left=14, right=22, bottom=38, top=12)
        places = np.arange(len(shown)) + 0.18
        ratios = np.array([row["time_ratio"] for row in shown])
        axes.barh(places, ratios, height=0.22, color=BLUE, linewidth=0)
        ends = np.array([[row[key] for row in shown] for key in ("time_low", "time_high")])
        axes.errorbar(ratios, places, xerr=np.abs(ends - ratios), fmt="none", ecolor=INK, elinewidth=1.2, capsize=3)
        axes.axvline(1.0, color=SOFT, linewidth=1.0, linestyle=(0, (3, 3)), zorder=0)
        for position, row in enumerate(shown):
            name = "all jobs" if row["job"] == ALL_JOBS else row["job"]
            ours = f"accuracy {row['accuracy']:.3f}, {first} {reached[row['job']]:.3f}" if row["job"] in reached else ""
            write_above(axes, position + 0.07, f"{name}: {row['contender']} {row['time_ratio']:.3g}", ours)
        tidy_bars(axes, len(shown))
        axes.set_xlim(0, max(float(max(row["time_high"] for row in shown)), 1.0) * 1.05)
        axes.set_xlabel(f"Seconds, times those of {first}; median and range over rounds")
        return write_svg(figure, f"Seconds of every contender against {first}")
