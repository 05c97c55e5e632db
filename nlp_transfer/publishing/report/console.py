"""A finished run on the terminal: tables of rich that fit 80 columns."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nlp_transfer.publishing.report.harm import describe_outcome, list_warnings
from nlp_transfer.publishing.report.scoreboard import collect_scores
from nlp_transfer.publishing.summary import (
    count_updates,
    describe_methods,
    find_section,
    format_bytes,
    format_count,
    format_duration,
    format_interval,
    format_number,
    list_splits,
    name_baseline,
    name_title,
    show_text,
    write_headline,
)

__all__ = ["facts_lines", "result_block", "scores_table", "show_path"]

MAX_BASELINES = 3
"""Columns of baselines that 80 columns have room for."""

VERDICT_STYLES = {
    "gain": "green",
    "better": "green",
    "harm": "bold red",
    "worse": "bold red",
    "unclear": "yellow",
    "unknown": "dim",
}


def show_path(path: Path) -> str:
    """Write a path relative to the working directory where it lies in it, else as it is."""
    try:
        return str(Path(os.path.abspath(path)).relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def scores_table(record: Mapping[str, Any]) -> Table:
    """Build the table of all scores with intervals and n, baselines beside.

    Args:
        record: The report.

    Returns:
        A table of at most 80 columns, a row for every split's name and every score; empty where nothing was scored.

    Example:
        >>> scores_table({"scores": {"test": {"accuracy": {"value": 0.9, "low": 0.8, "high": 1.0, "n": 9}}}}).row_count
        2
    """
    confidence = find_section(record, "recipe", "evaluation").get("confidence", 0.95)
    boards = collect_scores(record)
    has_spread = any(row.spread for board in boards for row in board.rows)
    # The box itself puts a space between columns; with spreads there is no room for another.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0 if has_spread else 1, 0, 0), show_edge=False)
    table.add_column("Metric", overflow="ellipsis", no_wrap=True, max_width=18)
    table.add_column("Value", justify="right", no_wrap=True)
    table.add_column(f"{confidence * 100:g} % interval", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for key in boards[0].baselines[:MAX_BASELINES] if boards else ():
        table.add_column(name_baseline(record, key, short=True), justify="right", max_width=8, style="dim")
    for board in boards:
        # The name of a split stands in the rule's place, so that it takes no column.
        table.add_section()
        table.add_row(Text(show_text(board.split, 18).capitalize(), style="cyan"))
        for row in board.rows:
            value = f"{row.value} {row.spread.replace(' ', '')}".strip()
            cells = [Text(row.metric), Text(value, style="bold"), Text(row.interval), Text(row.n)]
            table.add_row(*cells, *row.beside[:MAX_BASELINES])
    return table


def facts_lines(record: Mapping[str, Any]) -> list[str]:
    """Say in a few lines what was trained on what, how fast, and what the reader should know.

    Args:
        record: The report.

    Returns:
        Plain sentences; warnings of the data last, each starting with "Note:".
    """
    data, training, model = (find_section(record, key) for key in ("data", "training", "model"))
    lines = []
    rows = [f"{show_text(split)} {format_count(n)}" for split, n in find_section(data, "rows").items()]
    if rows:
        counted = [
            f"{sum(find_section(data, key).values())} {word}"
            for key, word in (("truncated", "truncated"), ("unseen", "unseen by the encoder"), ("dropped", "dropped"))
            if sum(find_section(data, key).values())
        ]
        leaked = sum(sum(kinds.values()) for kinds in find_section(data, "leaked").values())
        counted += [f"{leaked} in two splits"] if leaked else []
        lines.append(f"Rows: {', '.join(rows)}" + (f" ({', '.join(counted)})" if counted else ""))
    if model.get("parameters"):
        trained = f"{format_count(model.get('trainable'))} of {format_count(model['parameters'])} weights trained"
        lines.append(f"Model: {show_text(model.get('encoder', ''), 60)}, {trained}")
    if training.get("steps") or training.get("seconds"):
        speed = training.get("examples_per_second")
        parts = [f"{count_updates(training)} in {format_duration(training.get('seconds'))}"]
        parts += [f"{speed:,.0f} examples/s"] if speed else []
        parts += [f"peak {format_bytes(training['peak_memory_bytes'])}"] if training.get("peak_memory_bytes") else []
        lines.append(f"Training: {', '.join(parts)}")
    lines += [f"{name}: {said}" for name, said in describe_methods(record)]
    lines += _list_trust_lines(record)
    if training.get("collapsed"):
        lines.append("Note: the model gives one class to every validation example: it learned nothing.")
    lines += [f"Note: {show_text(warning, 300)}" for warning in data.get("warnings") or []]
    return lines


def _list_trust_lines(record: Mapping[str, Any]) -> list[str]:
    """What calibration did to the error of the probabilities, and the group on which the model does worst."""
    lines = []
    calibration = find_section(record, "calibration")
    splits = find_section(calibration, "splits")
    if splits:
        split = "test" if "test" in splits else next(iter(splits))
        before, after = (find_section(splits, split, side, "scores", "ece") for side in ("before", "after"))
        ends = f"{format_number(before.get('value'))} before, {format_number(after.get('value'))} after"
        lines.append(f"Calibration ({calibration.get('kind')}): ECE on {show_text(split)} {ends}; no decision changed")
    for name, choice in find_section(record, "thresholds", "labels").items():
        if not choice.get("is_met"):
            wanted = str(find_section(record, "thresholds").get("goal")).rpartition("_")[2]
            lines.append(f"Note: no threshold of {show_text(name, 40)} reaches the {wanted} that is wanted.")
    for column, table in find_section(record, "slices", "columns").items():
        worst = next((row for row in table["groups"] if row["name"] == table["worst"]), None)
        if worst is not None:
            figures = f"{format_number(worst['value'])} {format_interval(worst)} on {format_count(worst['n'])} rows"
            lines.append(f"Worst {show_text(column, 40)}: {show_text(worst['name'], 40)}, {figures}")
    return lines


def result_block(record: Mapping[str, Any], folder: Path) -> RenderableType:
    """Compose the last block of a run: headline, scores, where things are, what to do next.

    Args:
        record: The report.
        folder: The run's folder.

    Returns:
        Something rich can print.
    """
    verdict, sentence = describe_outcome(record)
    place = show_path(folder)
    model = os.path.join(place, str(record.get("artifact") or "model"))
    parts: list[RenderableType] = [
        Text(name_title(record), style="bold"),
        Text(write_headline(record), style="bold cyan"),
        Text(sentence, style=VERDICT_STYLES[verdict]),
        *(Text(f"!! {line}", style="bold red") for line in list_warnings(record)),
        Text(),
    ]
    if list_splits(record):
        parts += [scores_table(record), Text()]
    parts += [Text(line, style="yellow" if line.startswith("Note:") else "dim") for line in facts_lines(record)]
    parts += [
        Text(),
        _line_up("Report", show_text(os.path.join(place, "report.html"))),
        _line_up("Model", show_text(model)),
        _line_up("Predict", f"nlp-transfer predict {shlex.quote(model)} INPUT.csv"),
    ]
    return Group(*parts)


def _line_up(name: str, value: str) -> Text:
    """One name and one value, on one line that a narrow terminal does not break inside a word."""
    return Text.assemble((f"{name:<8} ", "dim"), value, overflow="fold")
