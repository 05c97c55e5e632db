"""What the page says of trust: calibration before and after, abstention, slices."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from nlp_transfer.publishing.drawing import (
    BLUE,
    MUTED,
    SOFT,
    WIDTH,
    new_figure,
    place,
    shorten,
    tidy_bars,
    write_above,
    write_heading,
    write_svg,
)
from nlp_transfer.publishing.summary import (
    find_section,
    format_count,
    format_interval,
    format_number,
    name_metric,
    show_text,
)

__all__ = ["collect_trust", "draw_abstention", "draw_calibration", "draw_slices"]

SHOWN_GROUPS = 15
"""Groups of a column that the page shows, from the worst; all are in the JSON."""

SHOWN_THRESHOLDS = 50


def collect_trust(record: Mapping[str, Any]) -> dict[str, Any]:
    """Gather what the template of trust shows.

    Args:
        record: The report.

    Returns:
        ``calibration``, ``thresholds``, ``abstention`` and ``slices``, each None or empty where the report has none.
    """
    return {
        "calibration": _collect_calibration(find_section(record, "calibration")),
        "thresholds": _collect_thresholds(find_section(record, "thresholds")),
        "abstention": _collect_abstention(find_section(record, "abstention")),
        "slices": _collect_slices(find_section(record, "slices")),
    }


def _collect_calibration(section: Mapping[str, Any]) -> dict[str, Any] | None:
    """Rows of the table and the picture, of test where it has labels."""
    splits = find_section(section, "splits")
    split = "test" if "test" in splits else next(iter(splits), None)
    if split is None:
        return None
    before, after = (find_section(splits, split, side) for side in ("before", "after"))
    rows = [
        (
            name_metric(metric),
            format_number(score.get("value")),
            format_number(find_section(after, "scores", metric).get("value")),
            format_interval(find_section(after, "scores", metric)),
        )
        for metric, score in find_section(before, "scores").items()
    ]
    kind = str(section.get("kind"))
    how = f"temperature {format_number(section.get('temperature'))}" if kind == "temperature" else kind
    return {
        "split": show_text(split, 40),
        "how": show_text(how, 60),
        "num_rows": format_count(section.get("num_rows")),
        "rows": rows,
        "svg": Markup(draw_calibration(find_section(before, "bins"), find_section(after, "bins"))),
    }


def _collect_thresholds(section: Mapping[str, Any]) -> dict[str, Any] | None:
    """Rows of the table: label, threshold, precision and recall on validation, whether the goal is met."""
    labels = find_section(section, "labels")
    if not labels:
        return None
    goal = str(section.get("goal")).replace("_", " ")
    rows = [
        (
            show_text(name, 60),
            *(format_number(choice.get(key)) for key in ("threshold", "precision", "recall")),
            bool(choice.get("is_met")),
        )
        for name, choice in list(labels.items())[:SHOWN_THRESHOLDS]
    ]
    at = "" if section.get("goal") == "f1" else f" {format_number(section.get('at'))}"
    return {"goal": goal.replace("f1", "F1") + at, "rows": rows, "hidden": len(labels) - len(rows)}


def _collect_abstention(section: Mapping[str, Any]) -> dict[str, Any] | None:
    """Rows of the table and the picture."""
    rows = [
        (
            f"{row['coverage']:.0%}",
            format_number(row["accuracy"]),
            format_interval(row),
            format_count(row["n"]),
            format_number(row["abstain_below"]),
        )
        for row in section.get("selective") or []
    ]
    if not rows:
        return None
    return {
        "split": show_text(section.get("split"), 40),
        "aurc": format_number(section.get("aurc")),
        "rows": rows,
        "svg": Markup(draw_abstention(section.get("curve") or [])),
    }


def _collect_slices(section: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A picture a column."""
    metric = name_metric(str(section.get("metric")))
    found = []
    for column, table in find_section(section, "columns").items():
        groups = table.get("groups") or []
        worst = next((row for row in groups if row["name"] == table.get("worst")), None)
        found.append(
            {
                "column": show_text(column, 60),
                "metric": metric,
                "split": show_text(section.get("split"), 40),
                "worst": None if worst is None else show_text(worst["name"], 60),
                "score": None if worst is None else f"{format_number(worst['value'])} {format_interval(worst)}",
                "rows": None if worst is None else format_count(worst["n"]),
                "hidden": max(0, len(groups) - SHOWN_GROUPS) + int(table.get("left_out") or 0),
                "svg": Markup(draw_slices(groups[:SHOWN_GROUPS], metric=metric, column=str(column))),
            }
        )
    return found


def draw_calibration(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Draw a reliability diagram with one line before calibration and one after.

    Args:
        before: ``edges``, ``counts``, ``confidence`` and ``accuracy`` of bins; None where a bin is empty.
        after: The same after calibration.

    Returns:
        One SVG element; an empty text where nothing was filed.
    """
    if not sum(before.get("counts") or []) or not sum(after.get("counts") or []):
        return ""
    with new_figure(WIDTH, 330) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        place(figure, left=46, right=14, bottom=38, top=40, gap=0.22)
        upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        for bins, color, name in ((before, SOFT, "before"), (after, BLUE, "after")):
            pairs = zip(bins["confidence"], bins["accuracy"], strict=True)
            points = [(x, y) for x, y in pairs if x is not None and y is not None and np.isfinite(x + y)]
            xs, ys = zip(*points, strict=True)
            upper.plot(xs, ys, color=color, marker="o", markersize=4.5, linewidth=1.6, label=name)
        upper.set(xlim=(0, 1), ylim=(0, 1.02))
        write_heading(upper, "Share that is right")
        starts, widths = after["edges"][:-1], np.diff(after["edges"])
        lower.bar(starts, before["counts"], widths, align="edge", color=SOFT, linewidth=0)
        lower.bar(starts, after["counts"], widths * 0.5, align="edge", color=BLUE, linewidth=0)
        write_heading(lower, "Examples")
        lower.locator_params(axis="y", integer=True, nbins=3)
        lower.set_xlabel("Stated probability")
        handles, names = upper.get_legend_handles_labels()
        figure.legend(handles, names, loc="upper right", ncols=2, frameon=False, fontsize=9, handlelength=1)
        for panel in (upper, lower):
            panel.grid(visible=True, axis="y", linewidth=0.8)
            panel.set_axisbelow(True)
        return write_svg(figure, "Reliability before and after calibration")


def draw_abstention(curve: Sequence[Mapping[str, float]]) -> str:
    """Draw the error among the rows answered, over the share answered.

    Args:
        curve: Points with ``coverage`` and ``risk``.

    Returns:
        One SVG element; an empty text where there are no points.
    """
    if not curve:
        return ""
    with new_figure(WIDTH, 240) as figure:
        axes = figure.subplots()
        place(figure, left=50, right=14, bottom=38, top=24)
        coverage, risk = ([float(point[key]) for point in curve] for key in ("coverage", "risk"))
        axes.fill_between(coverage, risk, color=BLUE, alpha=0.15, linewidth=0)
        axes.plot(coverage, risk, color=BLUE, linewidth=1.8)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, max(max(risk) * 1.15, 0.01))
        axes.grid(visible=True, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlabel("Share of rows answered, surest first")
        write_heading(axes, "Share of wrong answers")
        return write_svg(figure, "Risk-coverage curve: wrong answers by the share of rows answered")


def draw_slices(groups: Sequence[Mapping[str, Any]], *, metric: str, column: str) -> str:
    """Draw the score of every group with its interval, worst first.

    Args:
        groups: Rows with ``name``, ``value``, ``low``, ``high`` and ``n``.
        metric: Name of the metric.
        column: Name of the column, for the title.

    Returns:
        One SVG element; an empty text where no group has a score.
    """
    rows = [row for row in groups if row.get("value") is not None]
    if not rows:
        return ""
    with new_figure(WIDTH, 46 + 40 * len(rows)) as figure:
        axes = figure.subplots()
        place(figure, left=14, right=20, bottom=34, top=6)
        for position, row in enumerate(rows):
            axes.plot([row["low"], row["high"]], [position + 0.15] * 2, color=SOFT, linewidth=4)
            axes.plot([row["value"]], [position + 0.15], color=BLUE, marker="o", markersize=6, linestyle="none")
            detail = f"{format_number(row['value'])} · n {format_count(row['n'])}"
            write_above(axes, position - 0.02, shorten(row["name"], 30), detail)
        tidy_bars(axes, len(rows))
        if all(row["low"] >= 0 and row["high"] <= 1 for row in rows):
            axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(metric)
        return write_svg(figure, f"{metric} by {shorten(column, 40)}")
