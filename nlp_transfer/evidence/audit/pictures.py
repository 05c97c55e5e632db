"""An audit as pictures: rates of groups with their intervals, and what terms do to the score."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nlp_transfer.publishing.drawing import (
    BLUE,
    INK,
    RED,
    WIDTH,
    new_figure,
    place,
    shorten_all,
    tidy_bars,
    write_above,
    write_svg,
)

__all__ = ["draw_groups", "draw_shifts"]

MOST_SHOWN = 16
"""Groups or terms in one picture; of more, both ends."""


def draw_groups(record: Mapping[str, Any], rate: str = "false_positive_rate") -> str:
    """Draw a rate of every group with its interval, and that of all rows as a line.

    Args:
        record: What ``audit.json`` holds.
        rate: Which rate.

    Returns:
        One ``<svg>`` element; empty where no group has the rate.
    """
    rows = [row for row in record["groups"] if row[rate]["value"] is not None]
    if not rows:
        return ""
    entries = [(str(row["name"]), row[rate], row["name"] in record["worst"].values()) for row in _take_ends(rows)]
    name = rate.replace("_", " ").capitalize()
    label = f"{name}, all rows: {record['overall'][rate]['value']:.3f}" if record["overall"][rate]["n"] else name
    return _draw(entries, label, f"{name} of groups", line=record["overall"][rate]["value"], limits=(0.0, 1.0))


def draw_shifts(record: Mapping[str, Any]) -> str:
    """Draw how far terms shift the score of a text.

    Args:
        record: What ``audit.json`` holds.

    Returns:
        One ``<svg>`` element; empty where nothing was swapped.
    """
    if not record["swaps"]:
        return ""
    terms = _take_ends(record["swaps"]["terms"])
    entries = [(str(each["term"]), each["shift"], each["shift"]["low"] > 0) for each in terms]
    return _draw(entries, "Shift of the score against other terms of the kind", "Shift of the score by term", line=0.0)


def _take_ends(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """All of a few, or both ends of many."""
    half = MOST_SHOWN // 2
    return list(rows) if len(rows) <= MOST_SHOWN else [*rows[:half], *rows[-half:]]


def _draw(
    entries: Sequence[tuple[str, Mapping[str, Any], bool]],
    label: str,
    title: str,
    *,
    line: float | None,
    limits: tuple[float, float] | None = None,
) -> str:
    """Draw figures as dots with intervals, each under its name."""
    names = shorten_all([name for name, _, _ in entries], 34)
    with new_figure(WIDTH, 44 + 26 * len(entries)) as figure:
        axes = figure.subplots()
        place(figure, left=14, right=18, bottom=36, top=8)
        middles = np.arange(len(entries)) + 0.24
        for middle, (_, score, is_marked) in zip(middles, entries, strict=True):
            color = RED if is_marked else BLUE
            axes.plot([score["low"], score["high"]], [middle, middle], color=color, linewidth=1.6)
            axes.plot([score["value"]], [middle], linestyle="none", marker="o", markersize=5.5, color=color)
        for position, (name, (_, score, _)) in enumerate(zip(names, entries, strict=True)):
            write_above(axes, position + 0.1, name, f"{score['value']:.3f} of {score['n']:,}")
        if line is not None:
            axes.axvline(line, color=INK, linewidth=1.0, linestyle=(0, (3, 3)))
        tidy_bars(axes, len(entries))
        if limits is not None:
            axes.set_xlim(*limits)
        axes.set_xlabel(label)
        return write_svg(figure, title)
