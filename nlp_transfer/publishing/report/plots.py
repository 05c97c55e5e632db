"""Pictures of a run as inline SVG.

Every function returns one ``<svg>`` element without scripts, links or external fonts. It scales with its container
(a viewBox and no fixed height) and takes its colors from CSS variables with fallbacks, so that one picture serves
light and dark pages.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from nlp_transfer.evaluation.calibration import ReliabilityBins
from nlp_transfer.publishing.drawing import (
    BLUE,
    GREEN,
    GRID,
    INK,
    LETTER,
    MUTED,
    ON_BLUE,
    RED,
    SOFT,
    WIDTH,
    draw_bars,
    measure_text,
    new_figure,
    place,
    shorten,
    shorten_all,
    tidy_bars,
    write_above,
    write_heading,
    write_svg,
)
from nlp_transfer.publishing.report.outcomes import list_confused_pairs
from nlp_transfer.publishing.summary import format_number

__all__ = [
    "MAX_LABELS",
    "MAX_MATRIX_CLASSES",
    "draw_comparison",
    "draw_confusion",
    "draw_label_outcomes",
    "draw_labels",
    "draw_learning_curves",
    "draw_numbers",
    "draw_reliability",
]

MAX_LABELS = 20
"""Above this many labels only the most frequent and the rarest are shown."""

MAX_MATRIX_CLASSES = 30
"""Above this many classes the most confused pairs are shown in place of the matrix."""


def draw_learning_curves(
    losses: Sequence[tuple[int, float]],
    evaluations: Sequence[tuple[int, float]],
    *,
    metric: str,
    best_step: int | None = None,
    loss: str = "Training loss",
) -> str:
    """Draw training loss and validation metric over steps, the kept step marked.

    Args:
        losses: (step, training loss) pairs.
        evaluations: (step, validation metric) pairs.
        metric: Name of the metric, as a heading.
        best_step: Step of the weights that were kept.
        loss: Name of the loss, as a heading.

    Returns:
        One SVG element; an empty text where there is nothing to draw.
    """
    losses = [(step, value) for step, value in losses if np.isfinite(value)]
    evaluations = [(step, value) for step, value in evaluations if np.isfinite(value)]
    panels = [bool(losses), bool(evaluations)].count(True)
    if not panels:
        return ""
    with new_figure(WIDTH, 40 + 140 * panels) as figure:
        axes = list(np.atleast_1d(figure.subplots(panels, 1, sharex=True)))
        place(figure, left=46, right=14, bottom=36, top=24, gap=0.3)
        if losses:
            _plot_losses(axes[0], losses)
            write_heading(axes[0], loss)
        if evaluations:
            steps, values = zip(*evaluations, strict=True)
            axes[-1].plot(steps, values, color=BLUE, marker="o", markersize=4, linewidth=1.8)
            write_heading(axes[-1], f"{metric} on validation")
            best = [pair for pair in evaluations if pair[0] == best_step]
            if best:
                _mark_best(axes, *best[0])
        for panel in axes:
            panel.grid(visible=True, axis="y", linewidth=0.8)
            panel.margins(x=0.03, y=0.18)
        axes[-1].set_xlabel("Step")
        axes[-1].locator_params(axis="x", integer=True, nbins=6)
        return write_svg(figure, f"Learning curves: training loss and {metric} on validation by step")


def draw_confusion(matrix: np.ndarray, names: Sequence[str]) -> str:
    """Draw what was predicted per true class: a matrix, or the most confused pairs of many classes.

    Args:
        matrix: Counts, int64, shape (C, C): row true, column predicted.
        names: Class names, in order.

    Returns:
        One SVG element; an empty text where nothing was counted, or where many classes have no confusion.
    """
    if not matrix.sum():
        return ""
    if len(names) > MAX_MATRIX_CLASSES:
        pairs = list_confused_pairs(matrix, names, limit=12)
        rows = [
            (f"{shorten(true, 36)}\n→ {shorten(predicted, 36)}", count / total, f"{count} of {total}")
            for true, predicted, count, total in pairs
        ]
        return draw_bars(rows, color=RED, title="Most confused pairs of classes: true, then predicted")
    return _draw_matrix(matrix, names)


def draw_reliability(reliability: ReliabilityBins, *, of_labels: bool = False) -> str:
    """Draw stated confidence against what was right, and how many predictions stand behind each bar.

    Args:
        reliability: Binned predictions.
        of_labels: Whether every (example, label) decision was filed, as for multi-label.

    Returns:
        One SVG element; an empty text where nothing was filed.
    """
    if not reliability.counts.sum():
        return ""
    with new_figure(WIDTH, 330) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        place(figure, left=46, right=14, bottom=38, top=24, gap=0.22)
        starts, widths = reliability.edges[:-1], np.diff(reliability.edges)
        filled = reliability.counts > 0
        upper.bar(
            starts[filled],
            reliability.accuracy[filled],
            widths[filled],
            align="edge",
            color=BLUE,
            alpha=0.3,
            linewidth=0,
        )
        upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        upper.plot(
            reliability.confidence[filled],
            reliability.accuracy[filled],
            color=BLUE,
            marker="o",
            markersize=4.5,
            linewidth=1.6,
        )
        upper.set(xlim=(0, 1), ylim=(0, 1.02))
        write_heading(upper, "Share of decisions where the label is true" if of_labels else "Share that is right")
        lower.bar(starts, reliability.counts, widths, align="edge", color=SOFT, edgecolor=ON_BLUE, linewidth=0.6)
        write_heading(lower, "Decisions" if of_labels else "Examples")
        lower.locator_params(axis="y", integer=True, nbins=3)
        lower.set_xlabel("Stated probability")
        for panel in (upper, lower):
            panel.grid(visible=True, axis="y", linewidth=0.8)
            panel.set_axisbelow(True)
        return write_svg(figure, "Reliability diagram: stated probability against the share that is right")


def draw_comparison(rows: Sequence[tuple[str, Mapping[str, Any]]], *, metric: str) -> str:
    """Draw the model beside its baselines, with intervals where there are some.

    Args:
        rows: (name, score with ``value`` and perhaps ``low`` and ``high``); the first is the model.
        metric: Name of the metric, as a heading.

    Returns:
        One SVG element; an empty text where there is nothing to draw.
    """
    rows = [(name, score) for name, score in rows if score.get("value") is not None and np.isfinite(score["value"])]
    if not rows:
        return ""
    with new_figure(WIDTH, 46 + 44 * len(rows)) as figure:
        axes = figure.subplots()
        place(figure, left=14, right=62, bottom=32, top=6)
        ends = [float(score["value"] if score.get("high") is None else score["high"]) for _, score in rows]
        for position, (name, score) in enumerate(rows):
            value, low, high = score["value"], score.get("low"), score.get("high")
            axes.barh(position, value, height=0.4, color=BLUE if position == 0 else SOFT, linewidth=0)
            if low is not None and high is not None:
                axes.plot([low, high], [position, position], color=INK, linewidth=1.6)
                axes.plot([low, high], [position, position], color=INK, marker="|", markersize=7, linestyle="none")
            write_above(axes, position - 0.2, shorten(name, 44))
            axes.annotate(
                format_number(value),
                (max(value, ends[position], 0.0), position),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
                fontweight="bold" if position == 0 else "normal",
                annotation_clip=False,
            )
        tidy_bars(axes, len(rows))
        low_end = min(0.0, *(score["value"] for _, score in rows), 0.0)
        top = max([*ends, 1.0 if max(ends) <= 1.0 else 0.0])
        axes.set_xlim(low_end, top if top > low_end else low_end + 1)
        axes.set_xlabel(metric)
        return write_svg(figure, f"{metric} of the model and its baselines")


def draw_labels(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Draw the share of every label per split; of many labels the most frequent and the rarest.

    Args:
        counts: Split name to label name to examples.

    Returns:
        One SVG element; an empty text where there is nothing to draw.
    """
    counts = {split: dict(labels) for split, labels in counts.items() if sum(labels.values())}
    if not counts:
        return ""
    first = next(iter(counts.values()))
    names = list(dict.fromkeys(name for labels in counts.values() for name in labels))
    if len(names) > MAX_LABELS:
        ranked = sorted(names, key=lambda name: -first.get(name, 0))
        names = ranked[:8] + ranked[-8:]
    colors = [BLUE, SOFT, GREEN, RED]
    splits = list(counts)[: len(colors)]
    step = 22 + 8 * len(splits)
    with new_figure(WIDTH, 62 + step * len(names)) as figure:
        axes = figure.subplots()
        place(figure, left=14, right=18, bottom=34, top=24)
        height = 0.56 / len(splits)
        for order, split in enumerate(splits):
            total = sum(counts[split].values())
            shares = [counts[split].get(name, 0) / total for name in names]
            offsets = [position - 0.2 + (order + 0.5) * height for position in range(len(names))]
            axes.barh(offsets, shares, height=height * 0.9, color=colors[order], label=split, linewidth=0)
        for position, name in enumerate(names):
            detail = " · ".join(f"{counts[split].get(name, 0):,}" for split in splits)
            write_above(axes, position - 0.2, shorten(name, 30), detail)
        tidy_bars(axes, len(names))
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        axes.set_xlabel("Share of the split")
        handles = [Rectangle((0, 0), 1, 1, color=colors[order]) for order in range(len(splits))]
        figure.legend(handles, splits, loc="upper left", ncols=len(splits), frameon=False, fontsize=9, handlelength=1)
        return write_svg(figure, "Share of every label per split")


def draw_label_outcomes(rows: Sequence[tuple[str, int, int, int]]) -> str:
    """Draw found, missed and wrongly given labels of a multi-label task; of many labels the most often wrong.

    Args:
        rows: (label, found, missed, wrongly given).

    Returns:
        One SVG element; an empty text where there is nothing to draw.
    """
    shown = sorted(rows, key=lambda row: -(row[2] + row[3]))[:15] if len(rows) > 15 else list(rows)
    if not any(sum(row[1:]) for row in shown):
        return ""
    with new_figure(WIDTH, 66 + 38 * len(shown)) as figure:
        axes = figure.subplots()
        place(figure, left=14, right=18, bottom=34, top=24)
        series = (("found", BLUE, 1), ("missed", SOFT, 2), ("wrongly given", RED, 3))
        left = np.zeros(len(shown))
        for _, color, column in series:
            widths = np.array([row[column] for row in shown], dtype=np.float64)
            axes.barh(np.arange(len(shown)), widths, left=left, height=0.36, color=color, linewidth=0)
            left += widths
        for position, row in enumerate(shown):
            write_above(axes, position - 0.18, shorten(row[0], 30), f"{row[1]} · {row[2]} · {row[3]}")
        tidy_bars(axes, len(shown))
        axes.set_xlabel("Examples")
        handles = [Rectangle((0, 0), 1, 1, color=color) for _, color, _ in series]
        names = [name for name, _, _ in series]
        figure.legend(handles, names, loc="upper left", ncols=3, frameon=False, fontsize=9, handlelength=1)
        return write_svg(figure, "Found, missed and wrongly given labels")


def draw_numbers(true: np.ndarray, predicted: np.ndarray) -> str:
    """Draw predicted against true numbers of a regression; of many examples 2,000 at equal distances.

    Args:
        true: Float, shape (N,).
        predicted: Float, shape (N,).

    Returns:
        One SVG element; an empty text where there is nothing to draw.
    """
    finite = np.isfinite(true) & np.isfinite(predicted)
    true, predicted = true[finite], predicted[finite]
    if not len(true):
        return ""
    chosen = np.linspace(0, len(true) - 1, min(len(true), 2000)).astype(np.int64)
    with new_figure(WIDTH, 340) as figure:
        axes = figure.subplots()
        place(figure, left=50, right=14, bottom=38, top=24)
        ends = [float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))]
        axes.plot(ends, ends, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.scatter(true[chosen], predicted[chosen], s=14, color=BLUE, alpha=0.45, linewidths=0)
        axes.grid(visible=True, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlabel("True value")
        write_heading(axes, "Predicted value")
        return write_svg(figure, "Predicted against true values")


def _plot_losses(axes: Axes, losses: Sequence[tuple[int, float]]) -> None:
    """Plot raw losses faintly and their running mean; of long runs the means of 400 stretches."""
    points = np.array(losses, dtype=np.float64)
    if len(points) > 400:
        points = np.array([stretch.mean(axis=0) for stretch in np.array_split(points, 400)])
    # A window of a twelfth of the run is chosen: it shows the trend and hides single batches.
    window = max(1, len(points) // 12)
    sums = np.cumsum(np.insert(points[:, 1], 0, 0.0))
    ends = np.arange(1, len(points) + 1)
    starts = np.maximum(0, ends - window)
    axes.plot(points[:, 0], points[:, 1], color=SOFT, linewidth=0.9, alpha=0.7)
    axes.plot(points[:, 0], (sums[ends] - sums[starts]) / (ends - starts), color=BLUE, linewidth=1.8)


def _mark_best(axes: Sequence[Axes], step: int, value: float) -> None:
    """Mark the step whose weights were kept."""
    for panel in axes:
        panel.axvline(step, color=RED, linewidth=1.1, linestyle=(0, (3, 3)))
    axes[-1].plot([step], [value], color=RED, marker="o", markersize=7, linestyle="none")
    axes[-1].set_title(f"kept: {format_number(value)}, step {step:,}", loc="right", fontsize=9, color=RED, pad=7)


def _draw_matrix(matrix: np.ndarray, names: Sequence[str]) -> str:
    """Draw a row-normalized matrix; counts stand in the cells."""
    num = len(names)
    short = shorten_all(names, 16)
    size = 9.0 if num <= 12 else 7.5
    side = max(max(measure_text(name) for name in short) * size * LETTER + 14, 40.0)
    flat = num <= 4 and all(measure_text(name) * size * LETTER < (WIDTH - side - 12) / num for name in short)
    foot = 38.0 if flat else side * 0.8 + 14
    width = WIDTH if num <= 12 else WIDTH * 1.6
    cell = min((width - side - 12) / num, 84.0)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    with new_figure(side + cell * num + 12, foot + cell * num + 26) as figure:
        axes = figure.subplots()
        place(figure, left=side, right=12, bottom=foot, top=26)
        for row in range(num):
            for column in range(num):
                share = float(shares[row, column])
                axes.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, color=GRID, alpha=0.5, linewidth=0))
                if not matrix[row, column]:
                    continue
                color = BLUE if row == column else RED
                # Weak shares keep a visible tint.
                axes.add_patch(
                    Rectangle(
                        (column - 0.48, row - 0.48), 0.96, 0.96, color=color, alpha=0.08 + 0.92 * share, linewidth=0
                    )
                )
                ink = ON_BLUE if share > 0.55 else INK
                _write_cell(axes, column, row, int(matrix[row, column]), share if num <= 6 else None, ink, cell)
        axes.set(xlim=(-0.5, num - 0.5), ylim=(num - 0.5, -0.5))
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=size, labelcolor=INK)
        axes.set_yticks(range(num), short)
        if flat:
            axes.set_xticks(range(num), short)
        else:
            axes.set_xticks(range(num), short, rotation=50, ha="right", rotation_mode="anchor")
        axes.text(-8 / (cell * num), 1 + 11 / (cell * num), "True", transform=axes.transAxes, ha="right", color=MUTED)
        axes.xaxis.set_label_coords(0.5, -(foot - 9) / (cell * num))
        axes.set_xlabel("Predicted")
        return write_svg(figure, "Confusion matrix: rows are true classes, columns predicted ones")


def _write_cell(axes: Axes, column: int, row: int, count: int, share: float | None, ink: str, cell: float) -> None:
    """Write a count, and its share of the row where there is room."""
    size = min(11.0, cell * 0.42, cell / (len(str(count)) * LETTER * 1.1))
    if share is None or cell < 40:
        axes.text(column, row, str(count), ha="center", va="center", color=ink, fontsize=size)
        return
    axes.text(column, row - 0.1, str(count), ha="center", va="center", color=ink, fontsize=size, fontweight="bold")
    axes.text(column, row + 0.2, f"{share:.0%}", ha="center", va="center", color=ink, fontsize=min(9.0, size))
