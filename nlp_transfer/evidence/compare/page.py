"""A comparison as one HTML file, and as a fragment for notebooks; nothing is loaded, everything foreign is escaped."""

from collections.abc import Mapping
from functools import cache
from typing import Any

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
from nlp_transfer.evidence.compare.pictures import draw_curve, draw_front
from nlp_transfer.publishing.summary import format_duration
from nlp_transfer.publishing.views import make_templates, read_styles

__all__ = ["render_comparison"]


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
        front=Markup(draw_front(record["rows"], metric)),
        curve=Markup(draw_curve(record["curve"]["points"], metric)) if record.get("curve") else "",
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
