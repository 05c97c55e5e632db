"""A finished ranking: what ``rank`` returns, and what ``rank.json`` and ``report.html`` hold."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from markupsafe import Markup
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nlp_transfer.errors import name_cause
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
from nlp_transfer.publishing.result import Result
from nlp_transfer.publishing.summary import format_count, format_duration, name_metric, name_place, show_text
from nlp_transfer.publishing.views import (
    claim_view,
    make_templates,
    read_styles,
)

__all__ = [
    "Ranking",
    "claim_ranking",
]

RANK_JSON = "rank.json"
COLUMNS_A_TABLE = 5
"""Beside place and name; as many as a terminal of 80 columns holds."""

MOST_NAMED = 3
"""Encoders that a sentence names; others are counted."""

LONGEST_NAME = 24
"""Letters of an encoder's name in a terminal; the end is kept, which tells folders apart."""


class Ranking(Result):
    """Encoders in the order of an estimator; shows itself in a terminal and in a notebook.

    Args:
        record: What ``rank.json`` holds.
        folder: Where it was written; None where it was not.

    Example:
        >>> rows = [{"name": name, "scores": {"h_score": value}} for name, value in (("big", 0.9), ("small", 0.4))]
        >>> ranking = Ranking({"encoders": rows, "settings": {"estimators": ["h_score"]}, "verification": None})
        >>> ranking.best, ranking.scores["small"]["h_score"]
        ('big', 0.4)
        >>> ranking
        Ranking(big, small; by H-score)
    """

    file = RANK_JSON
    name = "a ranking"
    missing = "Make one with: nlp-transfer rank"
    damaged = "Rank again."

    @property
    def names(self) -> list[str]:
        """Encoders, the most promising first."""
        return [str(row["name"]) for row in self.record["encoders"]]

    @property
    def best(self) -> str:
        """The one to take: best on validation where some were verified, else first by the estimator."""
        verification = self.record.get("verification")
        return str(verification["best"]) if verification else self.names[0]

    @property
    def scores(self) -> dict[str, dict[str, float | None]]:
        """Encoder to estimator to figure; None where it could not be computed."""
        return {str(row["name"]): dict(row["scores"]) for row in self.record["encoders"]}

    @property
    def estimators(self) -> list[str]:
        """Keys of the estimators; the first decides the order."""
        return list(self.record["settings"]["estimators"])

    @staticmethod
    def check(record: dict[str, Any]) -> None:
        """Refuse what is not a ranking."""
        if not isinstance(record["encoders"], list) or not record["settings"]["estimators"]:
            raise ValueError("no encoders in it")

    def render(self, *, is_page: bool) -> str:
        """Write it as a page, or as a fragment for a notebook, without scripts."""
        return _render(self, is_page=is_page)

    def __repr__(self) -> str:
        return f"Ranking({', '.join(self.names)}; by {ESTIMATOR_NAMES[self.estimators[0]]})"

    def __rich__(self) -> RenderableType:
        return Group(*_make_tables(self), *(Text(line, style="dim") for line in _describe(self)))


def claim_ranking(folder: Path, source: str) -> Path:
    """Refuse a folder that something other than a ranking for this data filled.

    Args:
        folder: Where a ranking is to go.
        source: Names the data.

    Returns:
        The folder.

    Raises:
        OutputError: It is a file, or holds something else.
    """
    return claim_view(folder, RANK_JSON, where="out", source=source, own=("verify",))


def _label(ranking: Ranking) -> list[str]:
    """Encoders' names for a table, in order."""
    texts = [show_text(label) for label in _label_encoders(ranking.names)]
    return [text if len(text) <= LONGEST_NAME else f"…{text[1 - LONGEST_NAME :]}" for text in texts]


def _show(value: float | None) -> str:
    """A figure; an em dash where there is none."""
    return "—" if value is None else format_number(value)


def _list_columns(ranking: Ranking) -> list[tuple[str, list[str]]]:
    """Heading and cells of every column behind the name."""
    rows = ranking.record["encoders"]
    columns = [(ESTIMATOR_NAMES[key], [_show(row["scores"][key]) for row in rows]) for key in ranking.estimators]
    if ranking.record["settings"].get("layers") == "all":
        best = [str(row["layers_used"].get(ranking.estimators[0], "")) for row in rows]
        columns.append(("best layer", best))
    if verification := ranking.record.get("verification"):
        metric = name_metric(verification["metric"])
        for split in ("validation", "test"):
            cells = [_show((row.get("verified") or {}).get(split)) for row in rows]
            columns.append((f"{metric}, {split}", cells))
    columns.append(("weights", [f"{row.get('parameters', 0) / 1e6:.1f} M" for row in rows]))
    columns.append(("seconds", [f"{sum(row.get('seconds', {}).values()):.1f}" for row in rows]))
    return columns


def _make_tables(ranking: Ranking) -> list[Table]:
    """The ranking as tables for a terminal: what 80 columns do not hold goes into another."""
    source = show_text(name_place(str(ranking.record.get("data", {}).get("source", ""))), 60)
    columns, labels = _list_columns(ranking), _label(ranking)
    tables = []
    for start in range(0, len(columns), COLUMNS_A_TABLE):
        title = None if start else f"Encoders for {source}"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("", justify="right")
        table.add_column("encoder", style="bold", no_wrap=True)
        part = columns[start : start + COLUMNS_A_TABLE]
        for heading, _ in part:
            table.add_column(heading, justify="right")
        for index, label in enumerate(labels):
            style = "cyan" if ranking.names[index] == ranking.best else ""
            table.add_row(str(index + 1), Text(label), *(cells[index] for _, cells in part), style=style)
        tables.append(table)
    return tables


def _describe(ranking: Ranking) -> list[str]:
    """What was looked at, what is empty and why, and how far the order was verified."""
    data, settings = ranking.record.get("data", {}), ranking.record["settings"]
    lines = []
    if data:
        layers = settings["layers"]
        which = {"mean": "the mean of all layers", "last": "the last layer", "all": "each layer, the best one counts"}
        lines.append(
            f"{format_count(data['rows'])} of {format_count(data['train_rows'])} train rows, {len(data['labels'])} "
            f"labels; {settings['pooling']} over tokens, {which.get(str(layers), f'layer {layers}')}."
        )
    lines += _explain_gaps(ranking)
    pairs = zip(_label(ranking), ranking.record["encoders"], strict=True)
    if known := [label for label, row in pairs if row.get("is_trained_here")]:
        lines.append(
            f"Fine-tuned on this very data: {', '.join(known)}. Such a figure says that these rows are known, not how "
            "well the encoder transfers."
        )
    best = _label(ranking)[ranking.names.index(ranking.best)]
    verification = ranking.record.get("verification")
    if not verification:
        return [*lines, f"Take {best}. This is an estimate; --verify 3 fine-tunes the first three."]
    most = verification["limit"]
    passes, rows = f"{verification['epochs']:g} passes", format_count(min(most, data.get("train_rows", most)))
    if verification["count"] < 2:
        return [
            *lines,
            f"Fine-tuned {best} alone, {passes} over {rows} rows, in {format_duration(verification['seconds'])}: there "
            f"is nothing to compare it with. Take {best} by its estimate; --verify 3 fine-tunes the first three.",
        ]
    agreement = verification["agreement"].get(ranking.estimators[0]) or {}
    figures = [
        f"{words} {_show(agreement.get(key))}"
        for words, key in (("Pearson", "pearson"), ("Kendall's tau", "kendall_tau"), ("regret", "regret"))
    ]
    lines.append(
        f"Verified {verification['count']}, {passes} over {rows} rows, in "
        f"{format_duration(verification['seconds'])}: {', '.join(figures)} "
        f"(validation {name_metric(verification['metric']).lower()})."
    )
    return [*lines, f"Take {best}: it is the best of those on validation."]


def _explain_gaps(ranking: Ranking) -> list[str]:
    """Say what has no figure and why, encoders of the same reason together."""
    gaps: dict[tuple[str, str], list[str]] = {}
    for label, row in zip(_label(ranking), ranking.record["encoders"], strict=True):
        for estimator, reason in (row.get("reasons") or {}).items():
            gaps.setdefault((reason, label), []).append(ESTIMATOR_NAMES[estimator])
    groups: dict[tuple[str, str], list[str]] = {}
    for (reason, label), estimators in gaps.items():
        groups.setdefault((" and ".join(estimators), show_text(reason, 160)), []).append(label)
    return [
        f"No {estimators} of {', '.join(labels[:MOST_NAMED])}"
        f"{f' and {len(labels) - MOST_NAMED} more' if len(labels) > MOST_NAMED else ''}: {name_cause(reason)}."
        for (estimators, reason), labels in groups.items()
    ]


def _render(ranking: Ranking, *, is_page: bool) -> str:
    """Fill the template; autoescape is on for every value."""
    source = show_text(name_place(str(ranking.record.get("data", {}).get("source", ""))), 60)
    return (
        make_templates("nlp_transfer.evidence")
        .get_template("rank.html.j2")
        .render(
            is_page=is_page,
            title=f"Encoders for {source}",
            names=[show_text(label, 80) for label in _label_encoders(ranking.names)],
            best=ranking.names.index(ranking.best),
            columns=_list_columns(ranking),
            lines=_describe(ranking),
            pictures=[Markup(svg) for svg in (_draw_ranking(ranking.record), _draw_agreement(ranking.record)) if svg],
            styles=Markup(read_styles()),
        )
    )


DEEPEST = 20
"""Parts of a path that are shown at most: two ways to write one path never come apart."""


def _label_encoders(names: Sequence[str]) -> list[str]:
    """Name encoders for a reader: of absolute paths the last parts, as many as tell them apart.

    Args:
        names: As they were given, each once.

    Returns:
        Names, in the same order, no two alike.

    Example:
        >>> _label_encoders(["minilm-l6", "/home/me/one/model", "/home/me/two/model"])
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


def _draw_ranking(record: Mapping[str, Any]) -> str:
    """Draw every encoder's figure by the estimator that decided the order.

    Args:
        record: What ``rank.json`` holds.

    Returns:
        One ``<svg>`` element; empty where no encoder has a figure.

    Example:
        >>> rows = [{"name": "a", "scores": {"h_score": 0.5}}]
        >>> _draw_ranking({"settings": {"estimators": ["h_score"]}, "encoders": rows})[:4]
        '<svg'
    """
    estimator = record["settings"]["estimators"][0]
    rows = [row for row in record["encoders"] if row["scores"][estimator] is not None]
    if not rows:
        return ""
    values = np.array([row["scores"][estimator] for row in rows])
    names = shorten_all(_label_encoders([row["name"] for row in rows]), 40)
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


def _draw_agreement(record: Mapping[str, Any]) -> str:
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
    names = shorten_all(_label_encoders([row["name"] for row in rows]), 20)
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
