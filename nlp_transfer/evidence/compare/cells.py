"""The tables of a comparison as rows of text: terminal, notebook and page share them."""

from collections.abc import Mapping
from typing import Any

from nlp_transfer.publishing.summary import (
    format_bytes,
    format_count,
    format_duration,
    format_interval,
    format_number,
    name_metric,
    show_text,
)

__all__ = [
    "NARROW",
    "list_cost_columns",
    "list_cost_rows",
    "list_curve",
    "list_left_out",
    "list_score_columns",
    "list_score_rows",
    "list_warnings",
    "name_comparison",
    "write_footnote",
]

COST_COLUMNS = (
    "Rung",
    "Validation",
    "Also",
    "Seeds",
    "Time a seed",
    "Memory",
    "Trained",
    "Saved",
    "Training",
    "Weights",
    "Rows x passes",
)
"""Heads of the table of costs; the second metric of the comparison takes the place of "Also"."""

NARROW = 8
"""Columns of that table which 80 letters have room for."""


def name_comparison(record: Mapping[str, Any]) -> str:
    """Say what was compared on what."""
    return f"{show_text(record['encoder']['name'], 60)} on {show_text(record['data']['source'], 80)}"


def list_score_columns(record: Mapping[str, Any]) -> list[str]:
    """Heads of the table of scores."""
    return ["Rung", name_metric(record["metrics"][0]), "Spread", "Interval", "Minus best", "Interval", "p"]


def list_score_rows(record: Mapping[str, Any]) -> list[list[str]]:
    """Cells of the table of scores."""
    found = []
    for row in record["rows"]:
        score = row["test"].get(record["metrics"][0], {})
        marks = ("*" if row["is_recommended"] else "") + ("!" if row["collapsed"] else "")
        if score.get("spread") is not None:
            spread = f"±{format_number(score['spread'])}"
        else:
            spread = "1 seed" if row["is_seeded"] else "±0"
        gap = row["difference"]
        beside = ["best", "", ""]
        if not row["is_best"]:
            beside = [format_number(gap["value"]), format_interval(gap), _write_p(row["p_holm"])]
        found.append(
            [f"{row['rung']}{marks}", format_number(score.get("value")), spread, format_interval(score), *beside]
        )
    return found


def _write_p(value: float) -> str:
    """Write a p-value; what lies below the finest step of the test as such."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def list_cost_columns(record: Mapping[str, Any]) -> list[str]:
    """Heads of the table of costs."""
    second = [name_metric(metric) for metric in record["metrics"][1:2]]
    return [*COST_COLUMNS[:2], *(second or ["Test"]), *COST_COLUMNS[3:]]


def list_cost_rows(record: Mapping[str, Any]) -> list[list[str]]:
    """Cells of the table of costs."""
    first, second = record["metrics"][0], record["metrics"][-1]
    return [
        [
            row["rung"],
            format_number(row["validation"].get(first, {}).get("value")),
            format_number(row["test"].get(second, {}).get("value")),
            str(len(row["seeds"])),
            format_duration(row["seconds"]),
            format_bytes(row["peak_memory_bytes"]),
            _write_share(row["trainable_share"]),
            format_bytes(row["saved_bytes"]) if row["saved_bytes"] else "0 B",
            format_duration(row["training_seconds"]),
            format_count(row["parameters"]),
            f"{row['examples']:,} x {row['epochs']:g}" if row["examples"] and row["epochs"] else f"{row['examples']:,}",
        ]
        for row in record["rows"]
    ]


def _write_share(share: float) -> str:
    """Write a share of the weights in percent, small ones with two figures."""
    return f"{100 * share:.3g} %"


def list_curve(record: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the learning curve: a row a size, a column a rung."""
    points, metric = record["curve"]["points"], record["metrics"][0]
    rungs = list(dict.fromkeys(point["rung"] for point in points))
    held = {(point["examples"], point["rung"]): point["test"].get(metric, {}) for point in points}
    rows = []
    for size in sorted({point["examples"] for point in points}):
        scores = [held.get((size, rung)) for rung in rungs]
        cells = [f"{format_number(s.get('value'))} {format_interval(s)}" if s else "left out" for s in scores]
        rows.append([f"{size:,}", *cells])
    return ["Rows", *rungs], rows


def list_warnings(record: Mapping[str, Any]) -> list[str]:
    """What the reader should know: collapsed seeds, then what was found in the data."""
    found = [
        f"{row['rung']}: collapsed with seed{'s' if len(row['collapsed']) > 1 else ''} "
        f"{', '.join(map(str, row['collapsed']))}, near the majority class; the mean holds it."
        for row in record["rows"]
        if row["collapsed"]
    ]
    return found + [show_text(line, 300) for line in record["data"].get("warnings", [])]


def list_left_out(record: Mapping[str, Any]) -> list[str]:
    """What was left out and why, the points of the curve included."""
    found = []
    for each in record["left_out"]:
        seeds = ", ".join(map(str, each["seeds"]))
        which = f", seed{'s' if len(each['seeds']) > 1 else ''} {seeds}" if each["is_partial"] else ""
        found.append(f"{each['rung']}{which}: {show_text(each['why'], 300)}")
    return found + [show_text(note, 300) for note in (record.get("curve") or {}).get("notes", [])]


def write_footnote(record: Mapping[str, Any]) -> str:
    """Say what the columns hold."""
    n = record["rows"][0]["difference"]["n"]
    return (
        f"Scores of {n:,} test rows, means over seeds, with 95 % bootstrap intervals; spread: standard deviation over "
        "seeds (0 where chance plays no part). Minus best: paired with the best test score on the same rows; p: paired "
        "test (swaps for accuracy and MSE, else from the interval's width), corrected by Holm for all rungs. "
        "*: recommended, by validation alone; !: collapsed seeds. Time: wall time of one seed, all included; memory: "
        "peak of the process; trained: share of the weights."
    )
