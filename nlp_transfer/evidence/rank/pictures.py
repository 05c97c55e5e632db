"""A ranking as pictures: the estimator's figures, and what fine-tuning made of them."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from nlp_transfer.evidence.rank.options import ESTIMATOR_NAMES
from nlp_transfer.figures import format_number
from nlp_transfer.publishing.drawing import (
    BLUE,
    MUTED,
    SOFT,
    WIDTH,
    new_figure,
    place,
    shorten_all,
    tidy_bars,
    write_above,
    write_heading,
    write_names,
    write_svg,
)
from nlp_transfer.publishing.summary import name_metric, name_place

__all__ = ["draw_agreement", "draw_ranking", "label_encoders"]


DEEPEST = 20
"""Parts of a path that are shown at most: two ways to write one path never come apart."""


def label_encoders(names: Sequence[str]) -> list[str]:
    """Name encoders for a reader: of absolute paths the last parts, as many as tell them apart.

    Args:
        names: As they were given, each once.

    Returns:
        Names, in the same order, no two alike.

    Example:
        >>> label_encoders(["minilm-l6", "/home/me/one/model", "/home/me/two/model"])
        ['minilm-l6', 'one/model', 'two/model']
    """
    labels = [name_place(name) for name in names]
    depth = 1
    while len(set(labels)) < len(labels) and depth < DEEPEST:
        depth += 1
        labels = [
            "/".join(PurePath(name).parts[-depth:]) if labels.count(label) > 1 else label
            for name, label in zip(names, labels, strict=True)
        ]
    return labels


def draw_ranking(record: Mapping[str, Any]) -> str:
    """Draw every encoder's figure by the estimator that decided the order.

    Args:
        record: What ``rank.json`` holds.

    Returns:
        One ``<svg>`` element; empty where no encoder has a figure.

    Example:
        >>> rows = [{"name": "a", "scores": {"h_score": 0.5}}]
        >>> draw_ranking({"settings": {"estimators": ["h_score"]}, "encoders": rows})[:4]
        '<svg'
    """
    estimator = record["settings"]["estimators"][0]
    rows = [row for row in record["encoders"] if row["scores"][estimator] is not None]
    if not rows:
        return ""
    values = np.array([row["scores"][estimator] for row in rows])
    names = shorten_all(label_encoders([row["name"] for row in rows]), 40)
    with new_figure(WIDTH, 44 + 30 * len(rows)) as figure:
        axes = figure.subplots()
        place(figure, left=14, right=18, bottom=36, top=8)
        # Figures below zero have no length; dots on a line are read by their place alone.
        middles = np.arange(len(rows)) + 0.2
        axes.hlines(middles, min(0.0, values.min()) if values.min() >= 0 else values.min(), values, colors=SOFT)
        axes.plot(values, middles, linestyle="none", marker="o", markersize=6, color=BLUE)
        for position, (name, value) in enumerate(zip(names, values, strict=True)):
            write_above(axes, position + 0.02, name, format_number(value))
        tidy_bars(axes, len(rows))
        axes.set_xlabel(f"{ESTIMATOR_NAMES[estimator]}, more is better")
        return write_svg(figure, f"Encoders by {ESTIMATOR_NAMES[estimator]}")


def draw_agreement(record: Mapping[str, Any]) -> str:
    """Draw what was measured over what was estimated.

    Args:
        record: What ``rank.json`` holds.

    Returns:
        One ``<svg>`` element; empty where fewer than two encoders were verified.
    """
    estimator = record["settings"]["estimators"][0]
    rows = [row for row in record["encoders"] if row.get("verified") and row["scores"][estimator] is not None]
    if len(rows) < 2:
        return ""
    metric = name_metric(record["verification"]["metric"])
    guessed = [row["scores"][estimator] for row in rows]
    measured = [row["verified"]["validation"] for row in rows]
    names = shorten_all(label_encoders([row["name"] for row in rows]), 20)
    with new_figure(WIDTH, 230) as figure:
        axes = figure.subplots()
        place(figure, left=46, right=22, bottom=38, top=26)
        axes.plot(guessed, measured, linestyle="none", marker="o", markersize=6, color=BLUE)
        axes.grid(visible=True, linewidth=0.8)
        axes.margins(x=0.08, y=0.15)
        write_names(axes, list(zip(names, guessed, measured, strict=True)))
        axes.set_xlabel(f"{ESTIMATOR_NAMES[estimator]}, before training", color=MUTED)
        write_heading(axes, f"{metric} on validation, after training")
        return write_svg(figure, f"{metric} after fine-tuning over {ESTIMATOR_NAMES[estimator]} before")
