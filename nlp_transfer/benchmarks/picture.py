"""A suite's times as a picture that can stand in a README."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nlp_transfer.benchmarks.summary import ALL_JOBS, find_leaders
from nlp_transfer.publishing.artifact import write_atomically
from nlp_transfer.publishing.drawing import (
    BLUE,
    INK,
    MUTED,
    RED,
    SOFT,
    WIDTH,
    new_figure,
    place,
    tidy_bars,
    write_above,
    write_heading,
    write_svg,
)

__all__ = ["draw_alone", "draw_ratios", "draw_sizes", "write_comparison"]

WIDE = 1.35 * WIDTH
"""Points; a README is read on a wider page than a report."""

PAPER = '<rect width="100%" height="100%" rx="6" style="fill: #ffffff"/>'
"""Behind a picture that stands alone, because the page that shows it may be dark and cannot lend it its colors."""


def write_comparison(
    rows: Sequence[Mapping[str, Any]], folder: Path, *, limits: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Write ``comparison.json`` and, where there is somebody to compare with, ``comparison.svg``.

    Args:
        rows: What ``compare_contenders`` gives.
        folder: Where they go.
        limits: The machine's matrix limits, as ``add_matrix_shares`` gives them.

    Raises:
        StorageError: The disk failed.
    """
    found = {"limits": list(limits), "rows": list(rows)}
    write_atomically(folder / "comparison.json", json.dumps(found, indent=2) + "\n")
    if picture := draw_alone(rows):
        write_atomically(folder / "comparison.svg", picture + "\n")


def draw_alone(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw ratios, or sizes where contenders have one, as a picture for a file: with a size and a background.

    Args:
        rows: What ``compare_contenders`` gives.

    Returns:
        One ``<svg>`` element; empty where there is nothing to draw.
    """
    picture = draw_sizes(rows) or draw_ratios(rows)
    picture = re.sub(r'(viewBox="0 0 (\S+) (\S+)") style="[^"]*"', r'\1 width="\2pt" height="\3pt"', picture, count=1)
    return picture.replace("</title>", f"</title>{PAPER}", 1)


def draw_ratios(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw how many times as long as the first contender the others take, with the range over rounds.

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
    leaders = find_leaders(rows)
    shown = [row for row in rows if row["contender"] != leaders[row["job"]] and "time_ratio" in row]
    if not shown:
        return ""
    reached = {row["job"]: row["accuracy"] for row in rows if row["contender"] == leaders[row["job"]]}
    firsts = set(leaders.values())
    first = firsts.pop() if len(firsts) == 1 else "the first"
    ratios = np.array([row["time_ratio"] for row in shown])
    ends = np.array([[row[key] for row in shown] for key in ("time_low", "time_high")])
    places = np.arange(len(shown)) + 0.2
    with new_figure(WIDE, 58 + 42 * len(shown)) as figure:
        axes = figure.subplots()
        place(figure, left=16, right=46, bottom=40, top=12)
        colors = [BLUE if ratio >= 1 else RED for ratio in ratios]
        axes.barh(places, ratios, height=0.36, color=colors, linewidth=0)
        axes.errorbar(ratios, places, xerr=np.abs(ends - ratios), fmt="none", ecolor=INK, elinewidth=1.2, capsize=3)
        axes.vlines(
            np.ones(len(shown)),
            places - 0.26,
            places + 0.26,
            colors=SOFT,
            linewidth=1.4,
            linestyles=(0, (2, 1.5)),
            zorder=3,
        )
        for position, row in enumerate(shown):
            name = "all jobs" if row["job"] == ALL_JOBS else row["job"]
            detail = f"accuracy: {first} {reached[row['job']]:.3f}, {row['contender']} {row['accuracy']:.3f}"
            write_above(axes, position, f"{name}, {row['contender']}", detail)
            axes.annotate(
                f"{row['time_ratio']:.3g} x",
                (max(row["time_high"], row["time_ratio"]), position + 0.2),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
                fontsize=10.5,
                color=INK,
                annotation_clip=False,
            )
        tidy_bars(axes, len(shown))
        axes.set_ylim(len(shown) - 0.45, -0.62)
        axes.set_xlim(0, max(float(ends.max()), 1.0) * 1.02)
        num_rounds = max(row["rounds"] for row in shown)
        spread = f"; median and range over {num_rounds} rounds" if num_rounds > 1 else ""
        axes.set_xlabel(f"Times as long as {first} (dashed){spread}")
        return write_svg(figure, f"Seconds of every contender against {first}")


def draw_sizes(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw examples a second over the sizes of each job.

    Args:
        rows: What ``compare_contenders`` gives, with ``size``.

    Returns:
        One ``<svg>`` element; empty where no job has two contenders with a size.

    Example:
        >>> one = {"job": "rows", "contender": "a", "size": 500, "examples_per_second": 100.0, "seconds": 5.0}
        >>> draw_sizes([one])
        ''
        >>> draw_sizes([one, one | {"contender": "b", "size": 1000}])[:4]
        '<svg'
    """
    jobs = {
        job: sorted((row["size"], row["examples_per_second"]) for row in rows if row["job"] == job and "size" in row)
        for job in find_leaders(rows)
    }
    jobs = {job: points for job, points in jobs.items() if len(points) > 1}
    if not jobs:
        return ""
    with new_figure(WIDE, 170) as figure:
        panels = figure.subplots(1, len(jobs), squeeze=False, sharey=False)[0]
        place(figure, left=34, right=12, bottom=38, top=30)
        for axes, (job, points) in zip(panels, jobs.items(), strict=True):
            sizes, speeds = zip(*points, strict=True)
            axes.plot(range(len(sizes)), speeds, color=BLUE, marker="o", markersize=4.5, linewidth=1.8)
            for position, speed in enumerate(speeds):
                axes.annotate(
                    f"{speed:.0f}",
                    (position, speed),
                    xytext=(0, 7),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8.5,
                    color=MUTED,
                )
            axes.set_xticks(range(len(sizes)), [f"{size:g}" for size in sizes])
            axes.set_xlim(-0.4, len(sizes) - 0.6)
            axes.set_ylim(0, max(speeds) * 1.2)
            axes.locator_params(axis="y", nbins=4)
            axes.grid(visible=True, axis="y", linewidth=0.8)
            axes.set_xlabel(job)
        write_heading(panels[0], "Examples a second")
        return write_svg(figure, "Examples a second over sizes")
