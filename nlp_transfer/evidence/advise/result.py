"""Advice as ``advise`` returns it, and as ``advice.json`` and ``report.html`` hold it."""

import shlex
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
    WIDTH,
    new_figure,
    place,
    shorten,
    tidy_bars,
    write_above,
    write_svg,
)
from nlp_transfer.publishing.result import Result
from nlp_transfer.publishing.summary import format_duration, format_interval, format_number, show_text
from nlp_transfer.publishing.views import (
    claim_view,
    make_templates,
    read_styles,
)

__all__ = [
    "Advice",
    "claim_advice",
    "describe_facts",
]

ADVICE_JSON = "advice.json"
COMMAND_LETTERS = 76
"""Letters of a line of the command in a terminal, so that its end fits in as well."""

PROBE_NAMES = {
    "features": "Features, last layer",
    "middle_features": "Features, middle and last layer",
    "neighbors": "Nearest neighbors",
    "tfidf": "TF-IDF + logistic regression",
}
"""Probes as a reader knows them."""


class Advice(Result):
    """Ranked strategies for a table; shows itself in a terminal and in a notebook.

    Args:
        record: What ``advice.json`` holds. It is copied; figures that are not finite become None.

    Example:
        >>> candidate = {"kind": "full", "expected": 0.9, "low": 0.85, "high": 0.95, "command": "nlp-transfer run x"}
        >>> advice = Advice({"candidates": [candidate]})
        >>> advice.best, advice.command
        ('full', 'nlp-transfer run x')
        >>> advice
        Advice(full 0.900 [0.850, 0.950])
    """

    file = ADVICE_JSON
    name = "advice"
    missing = "Ask for it: nlp-transfer advise"
    damaged = "Ask for it again."

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """Strategies, the best first: ``kind``, ``expected``, ``low``, ``high``, ``seconds``, ``reasons``, ..."""
        return list(self.record["candidates"])

    @property
    def best(self) -> str:
        """Kind of the first strategy."""
        return str(self.candidates[0]["kind"])

    @property
    def command(self) -> str:
        """Command line that runs the first strategy."""
        return str(self.candidates[0]["command"])

    @staticmethod
    def check(record: dict[str, Any]) -> None:
        """Refuse what is no advice."""
        if not record["candidates"]:
            raise ValueError("no candidates in it")

    def render(self, *, is_page: bool) -> str:
        """Write it as a page, or as a fragment for a notebook, without scripts."""
        return _render(self, is_page=is_page)

    def __repr__(self) -> str:
        figures = (f"{row['kind']} {format_number(row['expected'])} {format_interval(row)}" for row in self.candidates)
        return f"Advice({', '.join(figures)})"

    def __rich__(self) -> RenderableType:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_column("", justify="right")
        table.add_column("Strategy", no_wrap=True)
        for heading in ("Accuracy", "95 % interval", "Time"):
            table.add_column(heading, justify="right", no_wrap=True)
        reasons = []
        for number, row in enumerate(self.candidates, start=1):
            figures = (format_number(row["expected"]), format_interval(row), format_duration(row["seconds"]))
            table.add_row(str(number), row["kind"], *figures, style="bold" if number == 1 else "")
            reasons.append(Text(f"{row['kind']}: {' '.join(row['reasons'][1:])}"))
        facts = [Text(f"{name}: {value}", style="dim") for name, value in describe_facts(self.record)]
        lead, gap = Text(self.candidates[0]["reasons"][0]), Text()
        return Group(
            lead, gap, table, gap, *reasons, gap, *facts, gap, Text("Run it:"), Text(_break_command(self.command))
        )


def claim_advice(folder: Path | str, source: str) -> Path:
    """Refuse a folder that something other than advice on this data filled.

    Args:
        folder: Where advice is to go.
        source: Names the data.

    Returns:
        The folder.

    Raises:
        OutputError: It is a file, or holds something else.
    """
    return claim_view(Path(folder), ADVICE_JSON, where="out", source=source)


def describe_facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say in lines what was found; data sets' own words are cut and cleaned.

    Args:
        record: What ``advice.json`` holds.

    Returns:
        Name and value of each fact.
    """
    found = [*_describe_rows(record["data"]), *_describe_distance(record["distance"]), *_describe_probes(record)]
    found += [("Note", note) for note in record["notes"]]
    found.append(("Took", format_duration(record["seconds"])))
    return [(show_text(name, 60), show_text(value, 400)) for name, value in found]


def _describe_rows(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Facts of the table."""
    classes, lengths, repeats = data["classes"], data["lengths"], data["duplicates"]
    rows = ", ".join(f"{count:,} {split}" for split, count in data["rows"].items())
    scripts = ", ".join(list(data["scripts"])[:3]).lower()
    language = data["language"] or (f"language not sure, letters {scripts}" if scripts else "no letters")
    return [
        ("Rows", rows),
        (
            "Classes",
            f"{classes['classes']:.0f}, of {classes['smallest']:,.0f} to {classes['largest']:,.0f} train rows",
        ),
        (
            "Texts",
            f"{language}; {lengths['median']:.0f} tokens in the middle, {lengths['p95']:.0f} at the 95th percentile, "
            f"{lengths['truncated']:.1%} longer than is read",
        ),
        (
            "Repeats",
            f"{repeats['exact']:,} texts word for word, {repeats['near']:,} but for case and punctuation; "
            f"{data['conflicting']:,} rows with a text that has another label too",
        ),
        ("Suspected labels", f"{data['label_noise']:.1%} of {data['probed_rows']:,} rows"),
    ]


def _describe_distance(distance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How far the texts lie from the reference sample."""
    words, losses, reference = distance["fragmentation"], distance["masked_loss"], distance["reference"]
    found = [
        (
            "Words",
            f"{words['data']['tokens_per_word']:.2f} tokens each ({words['reference']['tokens_per_word']:.2f} in "
            f"{reference}), {words['data']['broken_share']:.1%} in four pieces or more, "
            f"{words['data']['unknown_share']:.1%} of the tokens unknown",
        ),
        (
            f"Distance from {reference}",
            f"proxy A-distance {distance['proxy_a_distance']:.2f}, MMD {distance['mmd']:.3f}, CORAL "
            f"{distance['coral']:.2e}",
        ),
    ]
    if losses is not None:
        told = f"{format_number(losses['data'])} nats each ({format_number(losses['reference'])} in {reference})"
        found.append(("Masked tokens", told))
    return found


def _describe_probes(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What quick classifiers reached on train."""
    found = [
        (PROBE_NAMES[probe["name"]], f"{probe['score']:.3f}, spread {probe['spread']:.3f} over {probe['folds']} folds")
        for probe in record["probes"]
    ]
    found.append(("LogME", f"{record['log_evidence']:.3f} nats an example"))
    if record["zero_shot"] is not None:
        found.append(("Labels' own names", f"{record['zero_shot']['score']:.3f}"))
    curve = ", ".join(f"{point['score']:.3f} at {point['rows']:,} rows" for point in record["curve"])
    return [*found, ("Curve of features", curve)]


def _render(advice: Advice, *, is_page: bool) -> str:
    """Fill the template; autoescape is on for every value."""
    return (
        make_templates("nlp_transfer.evidence")
        .get_template("advice.html.j2")
        .render(
            is_page=is_page,
            title=f"Advice for {show_text(advice.record['data']['source'], 60)}",
            lead=advice.candidates[0]["reasons"][0],
            candidates=[
                {
                    "kind": row["kind"],
                    "figures": (format_number(row["expected"]), format_interval(row), format_duration(row["seconds"])),
                    "reasons": " ".join(row["reasons"][1:]),
                    "command": show_text(row["command"], 600),
                }
                for row in advice.candidates
            ],
            facts=describe_facts(advice.record),
            suspects=[
                {key: show_text(value, 200) for key, value in row.items()} for row in advice.record["data"]["suspects"]
            ],
            picture=Markup(_draw_candidates(advice.candidates)),
            styles=Markup(read_styles()),
        )
    )


def _break_command(command: str) -> str:
    """Break a command between its arguments, in lines that a shell takes as one when they are pasted."""
    lines: list[str] = []
    for word in map(shlex.quote, shlex.split(command)):
        if lines and len(lines[-1]) + len(word) <= COMMAND_LETTERS:
            lines[-1] += f" {word}"
        else:
            lines.append(f"    {word}" if lines else word)
    return " \\\n".join(lines)


def _draw_candidates(candidates: Sequence[dict[str, Any]]) -> str:
    """Draw the expected accuracy of every candidate and its interval, the best on top.

    Args:
        candidates: ``kind``, ``expected``, ``low`` and ``high`` each.

    Returns:
        One ``<svg>`` element; empty where there is no candidate.

    Example:
        >>> _draw_candidates([{"kind": "full", "expected": 0.9, "low": 0.8, "high": 1.0}])[:4]
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
