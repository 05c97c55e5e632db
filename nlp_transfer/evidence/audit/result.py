"""A finished audit: what ``audit`` returns, and what ``audit.json`` and ``report.html`` hold."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

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
from nlp_transfer.publishing.result import Result
from nlp_transfer.publishing.summary import format_count, name_place, show_text
from nlp_transfer.publishing.views import (
    claim_view,
    make_templates,
    read_styles,
)

__all__ = [
    "Audit",
    "claim_audit",
]

AUDIT_JSON = "audit.json"
SHOWN_GROUPS = 12
"""Groups that the terminal shows; the page and the file have all of them."""

SHOWN_TERMS = 5
"""Terms at either end that the terminal shows."""

COLUMNS = {
    "accuracy": "accuracy",
    "selection_rate": "selected",
    "false_positive_rate": "false positive",
    "false_negative_rate": "false negative",
    "auc": "AUC",
}

GAP_NAMES = {
    "demographic_parity": "Demographic parity gap",
    "equalized_odds": "Equalized odds gap",
    "false_positive_rate": "False positive rate gap",
    "false_negative_rate": "False negative rate gap",
    "false_positive_equality_difference": "False positive equality difference (sum)",
    "false_negative_equality_difference": "False negative equality difference (sum)",
}

RATE_NAMES = {
    "accuracy": "accuracy",
    "false_positive_rate": "false positive rate",
    "false_negative_rate": "false negative rate",
}


class Audit(Result):
    """What a classifier makes of groups; shows itself in a terminal and in a notebook.

    Args:
        record: What ``audit.json`` holds.
        folder: Where it was written; None where it was not.
    """

    file = AUDIT_JSON
    name = "an audit"
    missing = "Make one with: nlp-transfer audit"
    damaged = "Audit again."

    @property
    def groups(self) -> dict[str, dict[str, Any]]:
        """Group to its rates, each with value, low, high and n."""
        return {str(row["name"]): dict(row) for row in self.record["groups"]}

    @property
    def gaps(self) -> dict[str, dict[str, Any]]:
        """Gap to its value with interval, and to what chance gives."""
        return dict(self.record["gaps"])

    @property
    def worst(self) -> dict[str, str | None]:
        """Rate to the group that surely fares worst by it; None where none stands out."""
        return dict(self.record["worst"])

    @property
    def swaps(self) -> dict[str, Any] | None:
        """What identity terms change; None where no text has one."""
        return self.record["swaps"]  # type: ignore[no-any-return]

    @staticmethod
    def check(record: dict[str, Any]) -> None:
        """Refuse what is not an audit."""
        if not isinstance(record["groups"], list) or not record["gaps"]:
            raise ValueError("no groups in it")

    def render(self, *, is_page: bool) -> str:
        """Write it as a page, or as a fragment for a notebook, without scripts."""
        return _render(self, is_page=is_page)

    def __repr__(self) -> str:
        return f"Audit({len(self.record['groups'])} groups; {_describe_gap(self, 'equalized_odds')})"

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = [_tabulate_groups(self), _tabulate_gaps(self)]
        if self.swaps is not None:
            parts.append(_tabulate_terms(self))
        return Group(*parts, *(Text(line, style="dim") for line in _describe(self)))


def claim_audit(folder: Path, source: str) -> Path:
    """Refuse a folder that something other than an audit on this data filled.

    Args:
        folder: Where an audit is to go.
        source: Names the data.

    Returns:
        The folder.

    Raises:
        OutputError: It is a file, or holds something else.
    """
    return claim_view(folder, AUDIT_JSON, where="--out", source=source)


def _show(figure: Mapping[str, Any], *, with_interval: bool = True) -> str:
    """A figure with its interval; an em dash where there is none."""
    if figure["value"] is None:
        return "—"
    text = f"{figure['value']:.3f}"
    return f"{text} ({figure['low']:.3f} to {figure['high']:.3f})" if with_interval else text


def _name_source(audit: Audit) -> str:
    """The data, as a reader knows it."""
    return show_text(name_place(str(audit.record["data"]["source"])), 60)


def _name_positive(audit: Audit) -> str:
    """The label that is looked at, and from which probability it is said where that was given."""
    threshold = audit.record.get("threshold")
    return show_text(audit.record["positive"], 40) + ("" if threshold is None else f" (from {threshold:.3g} on)")


def _tabulate_groups(audit: Audit) -> Table:
    """Groups with the most false positives first; where they are many, both ends."""
    rows = audit.record["groups"]
    title = f"{_name_source(audit)}: how often {_name_positive(audit)} is said, and rightly"
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("group", style="bold", overflow="fold")
    table.add_column("n", justify="right")
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right")
    overall = audit.record["overall"]
    cells = (_show(overall[key], with_interval=False) for key in COLUMNS)
    table.add_row(Text("all rows"), format_count(overall["accuracy"]["n"]), *cells, end_section=True)
    half = SHOWN_GROUPS // 2
    shown = rows if len(rows) <= SHOWN_GROUPS else [*rows[:half], None, *rows[-half:]]
    for row in shown:
        if row is None:
            table.add_row(Text(f"… {len(rows) - 2 * half} more"), style="dim")
            continue
        is_worst = row["name"] in audit.worst.values()
        cells = (_show(row[key], with_interval=False) for key in COLUMNS)
        table.add_row(
            Text(show_text(row["name"], 40)), format_count(row["n"]), *cells, style="cyan" if is_worst else ""
        )
    return table


def _tabulate_gaps(audit: Audit) -> Table:
    """Gaps with intervals, beside what chance gives."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("between groups", style="bold")
    table.add_column("95 % interval".replace("95", f"{audit.record['settings']['confidence'] * 100:g}"))
    table.add_column("by chance up to", justify="right")
    table.add_column("groups", justify="right")
    for key, name in GAP_NAMES.items():
        gap = audit.gaps[key]
        chance = "—" if gap["chance"] is None else f"{gap['chance']:.3f}"
        table.add_row(name, _show(gap), chance, str(gap["groups"]))
    return table


def _tabulate_terms(audit: Audit) -> Table:
    """The terms that raise the score most, and those that lower it most."""
    assert audit.swaps is not None
    terms = audit.swaps["terms"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("term", style="bold")
    table.add_column("kind")
    table.add_column("shift of the score")
    table.add_column("swaps", justify="right")
    shown = terms if len(terms) <= 2 * SHOWN_TERMS else [*terms[:SHOWN_TERMS], None, *terms[-SHOWN_TERMS:]]
    for entry in shown:
        if entry is None:
            table.add_row(Text(f"… {len(terms) - 2 * SHOWN_TERMS} more"), style="dim")
        else:
            shift = entry["shift"]
            cells = (Text(show_text(entry["term"], 40)), Text(show_text(entry["kind"], 20)), _show_signed(shift))
            table.add_row(*cells, format_count(shift["n"]))
    return table


def _show_signed(figure: Mapping[str, Any]) -> str:
    """A difference with its sign and interval."""
    return f"{figure['value']:+.3f} ({figure['low']:+.3f} to {figure['high']:+.3f})"


def _describe_gap(audit: Audit, key: str) -> str:
    """One gap in words."""
    return f"{GAP_NAMES[key].lower()} {_show(audit.gaps[key])}"


def _describe(audit: Audit) -> list[str]:
    """What was looked at, who fares worst, and what terms change."""
    data, settings = audit.record["data"], audit.record["settings"]
    by = f"column {show_text(data['group'], 40)}" if data["group"] is not None else "the identity terms in the texts"
    lines = [
        f"{format_count(data['rows'])} rows in {len(audit.record['groups'])} groups by {by}; "
        f"{format_count(data['ungrouped'])} rows are of no group and count under all rows. "
        f"A rate of fewer than {settings['min_group']} rows is shown, but not compared."
    ]
    worst = [f"{show_text(name, 40)} by {RATE_NAMES[rate]}" for rate, name in audit.worst.items() if name is not None]
    if worst:
        lines.append(f"Worst beyond chance: {', '.join(worst)}.")
    else:
        lines.append("No group is surely worse than all rows together.")
    swaps = audit.swaps
    if swaps is None:
        lines.append("No identity terms were swapped: no text has one of the list, or max_swaps is 0.")
    else:
        which = "all" if swaps["scored"] == swaps["possible"] else f"a sample (seed {settings['seed']})"
        lines.append(
            f"Identity terms swapped for others of their kind: {format_count(swaps['scored'])} of "
            f"{format_count(swaps['possible'])} swaps, {which}; the score changes by {_show(swaps['mean_change'])}, "
            f"the label in a share of {_show(swaps['flipped'])}."
        )
    lines.append("A small gap here is no proof of fairness: it holds for these groups, these rows and this threshold.")
    return lines


def _render(audit: Audit, *, is_page: bool) -> str:
    """Fill the template; autoescape is on for every value."""
    swaps = audit.swaps
    return (
        make_templates("nlp_transfer.evidence")
        .get_template("audit.html.j2")
        .render(
            is_page=is_page,
            title=f"How the groups of {_name_source(audit)} are treated",
            positive=_name_positive(audit),
            columns=list(COLUMNS.values()),
            overall=[_show(audit.record["overall"][key], with_interval=False) for key in COLUMNS],
            overall_n=format_count(audit.record["overall"]["accuracy"]["n"]),
            groups=[
                {
                    "name": show_text(row["name"], 80),
                    "n": format_count(row["n"]),
                    "is_worst": row["name"] in audit.worst.values(),
                    "cells": [_show(row[key]) for key in COLUMNS],
                }
                for row in audit.record["groups"]
            ],
            gaps=[
                (name, _show(gap), "—" if gap["chance"] is None else f"{gap['chance']:.3f}", gap["groups"])
                for key, name in GAP_NAMES.items()
                for gap in (audit.gaps[key],)
            ],
            terms=[
                (
                    show_text(each["term"], 40),
                    show_text(each["kind"], 20),
                    _show_signed(each["shift"]),
                    each["shift"]["n"],
                )
                for each in (swaps["terms"] if swaps is not None else ())
            ],
            lines=_describe(audit),
            pictures=[Markup(svg) for svg in (_draw_groups(audit.record), _draw_shifts(audit.record)) if svg],
            styles=Markup(read_styles()),
        )
    )


MOST_SHOWN = 16
"""Groups or terms in one picture; of more, both ends."""


def _draw_groups(record: Mapping[str, Any], rate: str = "false_positive_rate") -> str:
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


def _draw_shifts(record: Mapping[str, Any]) -> str:
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
