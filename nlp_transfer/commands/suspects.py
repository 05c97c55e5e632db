"""``nlp-transfer suspects``: labels that are probably wrong."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nlp_transfer.commands.naming import name_options, tell_notes
from nlp_transfer.commands.options import Delimiter, Encoding, Label, Sheet, Text, TextB
from nlp_transfer.terminal import quiet_libraries, say, say_json, show, show_progress

if TYPE_CHECKING:
    from nlp_transfer.evidence.suspects.command import Suspects

__all__ = ["suspects"]

SHOWN = 15
"""Rows that the terminal shows; all of them are in the file."""

TEXT_LETTERS = 70

UNSURE = 0.8
"""Share of the labels that held-out estimates find again, below which the count of wrong ones is not to be trusted;
chosen."""


def suspects(
    data: Annotated[str, typer.Argument(help="File, folder of splits, bundled name or Hub id.")],
    encoder: Annotated[str, typer.Option(help="Alias, folder or Hub id.")] = "minilm-l6",
    top: Annotated[float, typer.Option(help="Share of the rows to list, in (0, 1].")] = 0.05,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="csv, tsv, jsonl or parquet for all rows listed.")
    ] = None,
    text: Text = None,
    text_b: TextB = None,
    label: Label = None,
    truth: Annotated[str | None, typer.Option(help="Column of trusted labels, to score the list against.")] = None,
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = None,
    sheet: Sheet = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read this many rows of train only.")] = None,
    drop_invalid: Annotated[
        bool, typer.Option("--drop-invalid", help="Leave out rows without a text or a label.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
) -> None:
    """List the rows whose labels look wrong, most suspect first. Nothing in the data is changed.

    The encoder runs once; a logistic regression and the nearest neighbors say of each row what the others make of it,
    and confident learning (cleanlab, extra `noise`) ranks the labels. Cells of csv and tsv that a spreadsheet would
    run as a formula get an apostrophe in front.
    """
    from nlp_transfer.data.exchange import check_output

    check_output(out, data, overwrite=overwrite)
    quiet_libraries()
    from nlp_transfer.data.tables import check_delimiter
    from nlp_transfer.evidence.suspects.command import find_suspects
    from nlp_transfer.recipe.schema import DataConfig

    invalid: Literal["error", "drop"] = "drop" if drop_invalid else "error"
    with name_options():
        delimiter = check_delimiter(delimiter)
    config = DataConfig(
        path=data,
        text=text,
        text_b=text_b,
        label=label,
        limit=limit,
        invalid=invalid,
        encoding=encoding,
        delimiter=delimiter,
        sheet=sheet,
    )
    with name_options(drops_invalid=True):
        found = find_suspects(config, encoder=encoder, top=top, truth=truth, seed=seed, track=show_progress)
    tell_notes(found.notes)
    if out is not None:
        found.save(out, overwrite=overwrite)
    if as_json:
        say_json(found.to_json())
    else:
        _show(found, truth)
        if out is not None:
            say(f"wrote {out}")


def _show(found: "Suspects", truth: str | None) -> None:
    """The list, and what it says."""
    show(_make_table(found.rows))
    say(
        f"{len(found.rows):,} of {found.num_rows:,} rows listed; confident learning counts {found.num_flagged:,} "
        f"labels ({found.flagged_share:.1%}) as wrong."
    )
    if found.agreement < UNSURE:
        say(
            f"The other rows find {found.agreement:.1%} of the labels again. Where classes are hard to tell apart, "
            "more is counted than is wrong: trust the order, not the count."
        )
    if found.precision is not None and found.noise is not None:
        say(f"Against {truth}: {found.precision:.3f} of those listed are wrong, {found.noise:.3f} of all.")


def _make_table(rows: list[dict[str, Any]]) -> Any:
    """The first of the list."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("Score", "Label", "Suggested", "Split", "Id"):
        table.add_column(name, no_wrap=True)
    # Only this one may break, so that a narrow terminal shows the labels.
    table.add_column("Text")
    for row in rows[:SHOWN]:
        shown = " ".join(str(row["text"])[: TEXT_LETTERS * 2].split())[:TEXT_LETTERS]
        cells = (f"{row['score']:.3f}", row["label"], row["suggested"], row["split"], row["id"], shown)
        # Text, not markup: brackets in data are no styles.
        table.add_row(*(Text(str(cell)) for cell in cells))
    return table
