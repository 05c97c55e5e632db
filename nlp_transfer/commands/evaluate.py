"""`nlp-transfer evaluate`: scores of a classifier on labelled data."""

from typing import Annotated

import typer

from nlp_transfer.commands.naming import name_options
from nlp_transfer.terminal import quiet_libraries, say_json, show, show_progress

__all__ = ["evaluate"]


def evaluate(
    artifact: Annotated[str, typer.Argument(help="The model/ folder of a run, the run's folder, or a Hub id.")],
    data: Annotated[str, typer.Argument(help="File, or a folder of splits.")],
    split: Annotated[str, typer.Option(help="Split of a folder to read.")] = "test",
    text: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    text_b: Annotated[str | None, typer.Option(help="Column of the second text of a pair.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Column of the label; given several times, the 0/1 columns of the labels.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Metric by its key, such as f1_macro; may be given several times.")
    ] = None,
    encoding: Annotated[str, typer.Option(help="Character encoding of csv, tsv, txt and jsonl files.")] = "utf-8",
    delimiter: Annotated[
        str | None, typer.Option(help="Character between cells, or tab; detected from the rows where absent.")
    ] = None,
    sheet: Annotated[str | None, typer.Option(help="Sheet of an Excel workbook; the first where absent.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in one forward pass.")] = 64,
    precision: Annotated[
        str, typer.Option(help="Number format: auto or fp32 compute in float32; bf16 gives nearly the same scores.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
) -> None:
    """Score a classifier on labelled data, with intervals."""
    quiet_libraries()
    from nlp_transfer.classifier import Classifier
    from nlp_transfer.data.exchange import read_split
    from nlp_transfer.publishing.report.console import scores_table

    with name_options() as findings:
        rows, where = read_split(data, split, encoding=encoding, delimiter=delimiter, sheet=sheet, findings=findings)
    classifier = Classifier.from_pretrained(artifact, precision=precision)
    with name_options(), show_progress("scoring", rows.num_rows) as advance:
        scores = classifier.evaluate(
            rows,
            text=text,
            text_b=text_b,
            label=label[0] if label and len(label) == 1 else label or None,
            metrics=metric,
            batch_size=batch_size,
            progress=advance,
            where=where,
        )
    found = {name: score.to_json() for name, score in scores.items()}
    if as_json:
        say_json(found)
    else:
        show(scores_table({"scores": {split: found}}))
