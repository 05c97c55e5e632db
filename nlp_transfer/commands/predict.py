"""`nlp-transfer predict`: labels and probabilities for a table."""

from pathlib import Path
from typing import Annotated

import typer

from nlp_transfer.commands.naming import name_options
from nlp_transfer.terminal import name_reader, open_data, quiet_libraries, show_progress

__all__ = ["predict"]


def predict(
    artifact: Annotated[str, typer.Argument(help="The model/ folder of a run, the run's folder, or a Hub id.")],
    table: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="csv, xlsx, jsonl, parquet, ...; - reads lines, csv or jsonl from stdin."),
    ] = "-",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="csv, tsv, jsonl or parquet; csv to stdout where absent.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    text_b: Annotated[str | None, typer.Option(help="Column of the second text of a pair.")] = None,
    encoding: Annotated[
        str, typer.Option(help="Character encoding of stdin and of csv, tsv, txt and jsonl files.")
    ] = "utf-8",
    delimiter: Annotated[
        str | None, typer.Option(help="Character between cells, or tab; detected from the rows where absent.")
    ] = None,
    sheet: Annotated[str | None, typer.Option(help="Sheet of an Excel workbook; the first where absent.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in one forward pass.")] = 64,
    precision: Annotated[
        str, typer.Option(help="Number format: auto, fp32 or bf16; all three give the labels of fp32.")
    ] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is there.")] = False,
    ood: Annotated[str | None, typer.Option(help="Add an out-of-scope score: energy or mahalanobis.")] = None,
    abstain_below: Annotated[
        float | None, typer.Option(help="Give no label where the highest probability is below this, such as 0.8.")
    ] = None,
) -> None:
    """Add predicted labels and probabilities to a table."""
    from nlp_transfer.data.exchange import check_output, write_table

    check_output(out, table, overwrite=overwrite)
    quiet_libraries()
    from nlp_transfer.classifier import Classifier
    from nlp_transfer.data.exchange import open_stdin, read_stdin
    from nlp_transfer.data.tables import read_table

    with name_options() as findings:
        if table == "-":
            rows = read_stdin(open_stdin(encoding), columns=(text, text_b), delimiter=delimiter, findings=findings)
        else:
            rows = read_table(table, encoding=encoding, delimiter=delimiter, sheet=sheet, findings=findings)
    classifier = Classifier.from_pretrained(artifact, precision=precision)
    with name_options(), show_progress("predicting", rows.num_rows) as advance:
        found = classifier.predict_table(
            rows,
            text=text,
            text_b=text_b,
            batch_size=batch_size,
            progress=advance,
            where="stdin" if table == "-" else table,
            abstain_below=abstain_below,
        )
    if ood is not None:
        from nlp_transfer.evidence.out_of_scope.command import add_scope

        with name_options():
            found = add_scope(classifier, found, method=ood, text=text, text_b=text_b, batch_size=batch_size)
    with name_reader(), open_data() as stream:
        write_table(found, out, stream)
