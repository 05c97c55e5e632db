"""The command that writes an artefact for another engine."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nlp_transfer.commands.naming import name_options
from nlp_transfer.terminal import quiet_libraries, say

__all__ = ["export"]


def export(
    artifact: Annotated[str, typer.Argument(help="The model/ folder of a run, the run's folder, or a Hub id.")],
    to: Annotated[Literal["onnx", "openvino"], typer.Option(help="onnx for onnxruntime, or openvino.")],
    int8: Annotated[bool, typer.Option("--int8", help="Round weights to eight bits: smaller, often faster.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to create; beside the model where absent.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Largest allowed difference of logits from PyTorch in fp32; 1e-4 where absent.")
    ] = None,
    agreement: Annotated[
        float | None, typer.Option(help="Least share of DATA that keeps its label in int8; 0.985 where absent.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="File, or folder of splits, with texts on which the export is checked as well.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of a folder to read.")] = "validation",
    encoding: Annotated[str, typer.Option(help="Character encoding of csv, tsv, txt and jsonl files.")] = "utf-8",
    delimiter: Annotated[
        str | None, typer.Option(help="Character between cells, or tab; detected from the rows where absent.")
    ] = None,
    sheet: Annotated[str | None, typer.Option(help="Sheet of an Excel workbook; the first where absent.")] = None,
    text: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    text_b: Annotated[str | None, typer.Option(help="Column of the second text of a pair.")] = None,
) -> None:
    """Export a classifier for onnxruntime or OpenVINO, checked against PyTorch; predict and evaluate run the export."""
    quiet_libraries()
    from nlp_transfer.data.exchange import read_split
    from nlp_transfer.publishing.export.command import export_artifact

    table = None
    if data is not None:
        with name_options() as findings:
            reading: dict[str, Any] = {"encoding": encoding, "delimiter": delimiter, "sheet": sheet}
            table, _ = read_split(data, split, **reading, findings=findings)
    done = export_artifact(
        artifact,
        to=to,
        output_dir=out,
        int8=int8,
        tolerance=tolerance,
        agreement=agreement,
        data=table,
        text=text,
        text_b=text_b,
    )
    say(f"wrote {done.folder} ({done.num_bytes / 1e6:.1f} MB)")
    for what, check in (("made-up", done.shapes), ("given", done.texts)):
        if check is not None:
            say(
                f"{check.num_texts} {what} texts in {check.num_batches} batches: largest difference of logits from "
                f"PyTorch {check.largest_difference:.2g}, same label for {check.agreement:.1%}"
            )
    if int8 and done.texts is None:
        say("int8 changes labels a little: measure it on texts of yours with --data")
