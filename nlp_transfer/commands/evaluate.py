"""`nlp-transfer evaluate`: scores of a classifier on labelled data."""

from typing import Annotated

import typer

from nlp_transfer.commands.naming import name_options
from nlp_transfer.commands.options import Artifact, BatchSize, Delimiter, Encoding, Sheet, Text, TextB
from nlp_transfer.terminal import quiet_libraries, say_json, show, show_progress

__all__ = ["evaluate"]


def evaluate(
    artifact: Artifact,
    data: Annotated[str, typer.Argument(help="File, or a folder of splits.")],
    split: Annotated[str, typer.Option(help="Split of a folder.")] = "test",
    text: Text = None,
    text_b: TextB = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Column of the label; repeat it for multi-label 0/1 columns.")
    ] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Metric by its report key; may be repeated.")] = None,
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = None,
    sheet: Sheet = None,
    batch_size: BatchSize = 64,
    precision: Annotated[str, typer.Option(help="Number format: auto (fp32 here), fp32 or bf16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
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
