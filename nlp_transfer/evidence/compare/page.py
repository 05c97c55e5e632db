"""A comparison as one HTML file, and as a fragment for notebooks; nothing is loaded, everything foreign is escaped."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Template
from markupsafe import Markup

from nlp_transfer.evidence.compare.cells import (
    list_cost_columns,
    list_cost_rows,
    list_curve,
    list_left_out,
    list_score_columns,
    list_score_rows,
    list_warnings,
    name_comparison,
    write_footnote,
)
from nlp_transfer.publishing.drawing import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    RED,
    SOFT,
    WIDTH,
    new_figure,
    place,
    write_heading,
    write_names,
    write_svg,
)
from nlp_transfer.publishing.summary import format_duration, name_metric
from nlp_transfer.publishing.views import make_templates, read_styles

__all__ = ["render_comparison"]

WIDE = 1.5 * WIDTH

SHORTEST = 0.1
"""Seconds; what takes less stands there."""

NEAR = 1.6
"""Times the size before, below which a point of a curve gets no tick of its own."""

LINES = ((BLUE, "o"), (RED, "s"), (GREEN, "^"), (INK, "D"), (MUTED, "v"), (SOFT, "P"))
"""Color and mark of each line of a curve; marks alone tell them apart too."""


def _draw_front(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    """Draw the test score of every rung over the seconds of one seed.

    Args:
        rows: As ``compare.json`` holds them.
        metric: Report key of the score.

    Returns:
        One ``<svg>`` element; empty where there is nothing to draw.
    """
    shown = [row for row in rows if row["test"].get(metric, {}).get("value") is not None]
    if not shown:
        return ""
    with new_figure(WIDE, 290) as figure:
        axes = figure.subplots()
        place(figure, left=44, right=64, bottom=38, top=30)
        # A logarithm has no place for what takes no time.
        costs = {row["rung"]: max(float(row["seconds"]), SHORTEST) for row in shown}
        front = sorted((row for row in shown if row["is_on_front"]), key=lambda row: costs[row["rung"]])
        axes.step(
            [costs[row["rung"]] for row in front],
            [row["test"][metric]["value"] for row in front],
            where="post",
            color=SOFT,
            linewidth=1.4,
        )
        for row in shown:
            score = row["test"][metric]
            color = GREEN if row["is_recommended"] else BLUE if row["is_on_front"] else MUTED
            x, y = costs[row["rung"]], score["value"]
            if score.get("low") is not None and score.get("high") is not None:
                axes.plot([x, x], [score["low"], score["high"]], color=color, linewidth=1.3)
            axes.plot([x], [y], marker="o", markersize=6, color=color, linestyle="none")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: format_duration(value) if value >= 0.1 else f"{value:g} s")
        axes.xaxis.set_minor_formatter(lambda *_: "")
        axes.grid(visible=True, axis="y", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlabel("Wall time of one seed, loading and prediction included")
        write_heading(axes, f"{name_metric(metric)} on test")
        write_names(axes, [(row["rung"], costs[row["rung"]], row["test"][metric]["value"]) for row in shown])
        return write_svg(figure, f"{name_metric(metric)} against seconds")


def _draw_curve(points: Sequence[Mapping[str, Any]], metric: str) -> str:
    """Draw test scores over the number of labelled rows, a line a rung.

    Args:
        points: As ``compare.json`` holds them.
        metric: Report key of the score.

    Returns:
        One ``<svg>`` element; empty where there is nothing to draw.
    """
    shown = [point for point in points if point["test"].get(metric, {}).get("value") is not None]
    if not shown:
        return ""
    sizes = sorted({point["examples"] for point in shown})
    with new_figure(WIDE, 290) as figure:
        axes = figure.subplots()
        place(figure, left=44, right=16, bottom=38, top=30)
        for number, rung in enumerate(dict.fromkeys(point["rung"] for point in shown)):
            color, mark = LINES[number % len(LINES)]
            line = [point for point in shown if point["rung"] == rung]
            values = np.array([point["test"][metric]["value"] for point in line], dtype=float)
            ends = np.array(
                [
                    [value if score.get(end) is None else score[end] for end in ("low", "high")]
                    for value, score in zip(values, (point["test"][metric] for point in line), strict=True)
                ],
                dtype=float,
            )
            places = [point["examples"] for point in line]
            axes.fill_between(places, ends[:, 0], ends[:, 1], color=color, alpha=0.12, linewidth=0)
            axes.plot(places, values, color=color, marker=mark, markersize=5, linewidth=1.6, label=rung)
        axes.set_xscale("log", base=2)
        # Of two that would stand on each other the last is kept: all rows.
        ticks = [size for size, after in zip(sizes, [*sizes[1:], 1e12], strict=True) if after >= NEAR * size]
        axes.set_xticks(ticks, [f"{size:,}" for size in ticks])
        axes.xaxis.set_minor_formatter(lambda *_: "")
        axes.grid(visible=True, axis="y", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlabel("Labelled rows")
        axes.legend(frameon=False, fontsize=9)
        write_heading(axes, f"{name_metric(metric)} on test")
        return write_svg(figure, f"{name_metric(metric)} against labelled rows")


def render_comparison(record: Mapping[str, Any], *, is_fragment: bool = False) -> str:
    """Write a comparison as HTML.

    Args:
        record: As ``compare.json`` holds it.
        is_fragment: One ``<div>`` for a notebook, in place of a page.

    Returns:
        UTF-8 text.
    """
    metric = record["metrics"][0]
    columns, rows = list_curve(record) if record.get("curve") else ([], [])
    return _read_template().render(
        is_fragment=is_fragment,
        title=name_comparison(record),
        recommendation=record["recommendation"],
        chips=_list_chips(record),
        warnings=list_warnings(record),
        effort=record["effort"],
        score_columns=list_score_columns(record),
        score_rows=list_score_rows(record),
        footnote=write_footnote(record),
        cost_columns=list_cost_columns(record),
        cost_rows=list_cost_rows(record),
        front=Markup(_draw_front(record["rows"], metric)),
        curve=Markup(_draw_curve(record["curve"]["points"], metric)) if record.get("curve") else "",
        curve_columns=columns,
        curve_rows=rows,
        left_out=list_left_out(record),
        confidence="95 %",
        version=record["version"],
        styles=Markup(read_styles()),
    )


@cache
def _read_template() -> Template:
    """The template, compiled once a process; autoescape is on for every value."""
    return make_templates("nlp_transfer.evidence").get_template("comparison.html.j2")


def _list_chips(record: Mapping[str, Any]) -> list[str]:
    """Short facts under the headline."""
    chips = [f"{count:,} {split}" for split, count in record["data"]["rows"].items()]
    if record["data"]["kind"] != "regression":
        chips.append(f"{len(record['data']['labels'])} classes")
    chips.append(f"took {format_duration(record['elapsed_seconds'])}")
    if record["budget_seconds"] is not None:
        chips.append(f"budget {format_duration(record['budget_seconds'])}")
    return chips
