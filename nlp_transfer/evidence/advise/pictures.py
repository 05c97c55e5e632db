"""Advice as a picture: what each strategy is expected to reach, with its interval."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nlp_transfer.publishing.drawing import (
    BLUE,
    INK,
    WIDTH,
    new_figure,
    place,
    shorten,
    tidy_bars,
    write_above,
    write_svg,
)
from nlp_transfer.publishing.summary import format_number

__all__ = ["draw_candidates"]


def draw_candidates(candidates: Sequence[dict[str, Any]]) -> str:
    """Draw the expected accuracy of every candidate and its interval, the best on top.

    Args:
        candidates: ``kind``, ``expected``, ``low`` and ``high`` each.

    Returns:
        One ``<svg>`` element; empty where there is no candidate.

    Example:
        >>> draw_candidates([{"kind": "full", "expected": 0.9, "low": 0.8, "high": 1.0}])[:4]
        '<svg'
    """
    if not candidates:
        return ""
    with new_figure(WIDTH, 44 + 34 * len(candidates)) as figure:
        axes = figure.subplots()
        place(figure, left=14, right=18, bottom=36, top=8)
        middles = np.arange(len(candidates)) + 0.25
        axes.hlines(middles, [row["low"] for row in candidates], [row["high"] for row in candidates], colors=INK)
        axes.plot([row["expected"] for row in candidates], middles, linestyle="none", marker="o", color=BLUE)
        for position, row in enumerate(candidates):
            write_above(axes, position + 0.05, shorten(row["kind"], 40), format_number(row["expected"]))
        tidy_bars(axes, len(candidates))
        axes.set_xlabel("Expected accuracy, 95 % interval")
        return write_svg(figure, "Expected accuracy of each strategy")
