"""`nlp-transfer compare`: every strategy on one table."""

import time
from pathlib import Path
from typing import Annotated

import typer

from nlp_transfer.commands.naming import add_delimiter
from nlp_transfer.commands.options import Delimiter, JsonTables, Text, TextB
from nlp_transfer.terminal import quiet_libraries, show_record

__all__ = ["compare"]


def compare(
    data: Annotated[str, typer.Argument(help="File, folder of splits, bundled name, or Hub id.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Dotted keys of data, task: data.invalid=drop")] = None,
    encoder: Annotated[str, typer.Option(help="Alias, folder, earlier run, or Hub id.")] = "minilm-l6",
    budget: Annotated[str | None, typer.Option(help="Total time, such as 10m, 90s or 1h.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each strategy.")] = 3,
    rung: Annotated[
        list[str] | None, typer.Option(help="Run this rung only, such as lora or tfidf; may be repeated.")
    ] = None,
    curve: Annotated[
        bool, typer.Option("--curve", help="Also plot the score against the number of labelled rows.")
    ] = False,
    curve_rung: Annotated[
        list[str] | None, typer.Option(help="A rung of the curve; by default tfidf, features and full.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first N rows of train, shuffled.")] = None,
    text: Text = None,
    text_b: TextB = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Column of the label; repeat it for multi-label 0/1 columns.")
    ] = None,
    delimiter: Delimiter = None,
    task: Annotated[str, typer.Option(help="classification, ordinal, multi_label or regression.")] = "classification",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of results; by default runs/compare-DATA.")
    ] = None,
    as_json: JsonTables = False,
) -> None:
    """Compare every strategy on the same rows and seeds and recommend one. Results in OUT are not computed again."""
    started = time.monotonic()
    quiet_libraries()
    from nlp_transfer.evidence.clock import parse_budget

    # A budget with a mistake is told before the heavier libraries are loaded.
    parse_budget(budget)
    from nlp_transfer.evidence.compare.command import compare as compare_table

    comparison = compare_table(
        data,
        add_delimiter(overrides, delimiter),
        encoder=encoder,
        budget=budget,
        seeds=seeds,
        rungs=rung,
        curve=curve,
        curve_rungs=curve_rung,
        limit=limit,
        text=text,
        text_b=text_b,
        label=label[0] if label and len(label) == 1 else label or None,
        task=task,
        output_dir=out,
        # Half a second for the start of the interpreter and of this program.
        spent_seconds=time.monotonic() - started + 0.5,
    )
    show_record(comparison, comparison.record, as_json=as_json)
