"""Options that several commands share."""

from typing import Annotated

import typer

__all__ = ["Artifact", "BatchSize", "Delimiter", "Encoding", "JsonTables", "Label", "Sheet", "Text", "TextB"]

Artifact = Annotated[str, typer.Argument(help="The folder of a run, its model/ folder, or a Hub id.")]
Text = Annotated[str | None, typer.Option(help="Column of the text.")]
TextB = Annotated[str | None, typer.Option(help="Column of the second text of a pair.")]
Label = Annotated[str | None, typer.Option(help="Column of the label.")]
Encoding = Annotated[str, typer.Option(help="Character encoding of csv, tsv, txt and jsonl files.")]
Delimiter = Annotated[
    str | None, typer.Option(help="Character between cells, or tab; detected from the rows by default.")
]
Sheet = Annotated[str | None, typer.Option(help="Sheet of an Excel workbook; by default the first.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Texts in one forward pass.")]
JsonTables = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
