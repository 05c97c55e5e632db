"""The command that writes an artefact for another engine."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nlp_transfer.commands.naming import name_options
from nlp_transfer.commands.options import Artifact, Delimiter, Encoding, Sheet, Text, TextB
from nlp_transfer.terminal import quiet_libraries, say

__all__ = ["export"]


def export(
    artifact: Artifact,
    to: Annotated[Literal["onnx", "openvino"], typer.Option(help="onnx for onnxruntime, or openvino.")],
    int8: Annotated[bool, typer.Option("--int8", help="Round weights to eight bits: smaller, often faster.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="New folder; by default beside the model.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Largest difference of logits allowed in fp32; by default 1e-4.")
    ] = None,
    agreement: Annotated[
        float | None, typer.Option(help="Smallest share of equal labels on DATA in int8; by default 0.985.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="File or folder of splits with texts to check the export on.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of a folder.")] = "validation",
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = None,
    sheet: Sheet = None,
    text: Text = None,
    text_b: TextB = None,
) -> None:
    """Export a classifier to ONNX or OpenVINO and compare it with torch; predict and evaluate read the result."""
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
