"""``nlp-transfer audit``: whether a classifier treats groups alike."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nlp_transfer.commands.naming import name_options, tell_notes
from nlp_transfer.errors import DataError
from nlp_transfer.terminal import quiet_libraries, say_json, show, show_progress

__all__ = ["audit"]


def audit(
    artifact: Annotated[str, typer.Argument(help="The model/ folder of a run, the run's folder, or a Hub id.")],
    data: Annotated[str, typer.Argument(help="Labelled data: file, folder of splits, bundled name or Hub id.")],
    group: Annotated[
        str | None, typer.Option(help="Column of groups; ; or | separates several in a cell. Absent: identity terms.")
    ] = None,
    positive: Annotated[str | None, typer.Option(help="Label whose rates are compared, such as toxic.")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Probability from which that label counts as predicted; absent: the classifier's decision."),
    ] = None,
    text: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    text_b: Annotated[str | None, typer.Option(help="Column of the second text of a pair.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
    encoding: Annotated[str, typer.Option(help="Character encoding of csv, tsv, txt and jsonl files.")] = "utf-8",
    delimiter: Annotated[
        str | None, typer.Option(help="Character between cells, or tab; detected from the rows where absent.")
    ] = None,
    sheet: Annotated[str | None, typer.Option(help="Sheet of an Excel workbook; the first where absent.")] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(help="DATA_LABEL=LABEL, where the data names a label differently; may be given several times."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of a folder to read.")] = "test",
    terms: Annotated[Path | None, typer.Option(help="YAML of identity terms in place of the shipped list.")] = None,
    min_group: Annotated[int, typer.Option(min=1, help="Fewest rows of a rate that is compared between groups.")] = 20,
    max_swaps: Annotated[int, typer.Option(min=0, help="Most swapped texts that are scored; 0 for none.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampled swaps and of the bootstrap.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in one forward pass.")] = 64,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for audit.json and report.html.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of tables.")] = False,
) -> None:
    """Audit how a classifier treats groups: rates with intervals, gaps, and the effect of swapping one identity term.

    Groups are the values of a column, or the identity terms in the texts. Gaps are fairlearn's (extra `audit`), with
    bootstrap intervals and beside the gap that chance alone would give. Terms of the shipped list are swapped for
    others of their kind, and the change of the score is measured.
    """
    quiet_libraries()
    from nlp_transfer.evidence.audit.command import audit as audit_classifier

    with name_options():
        found = audit_classifier(
            artifact,
            data,
            group=group,
            text=text,
            text_b=text_b,
            label=label,
            encoding=encoding,
            delimiter=delimiter,
            sheet=sheet,
            positive=positive,
            threshold=threshold,
            rename=_read_renames(rename or []),
            split=split,
            terms=terms,
            min_group=min_group,
            max_swaps=max_swaps,
            seed=seed,
            batch_size=batch_size,
            output_dir=out,
            track=show_progress,
        )
    tell_notes(found.record["data"]["notes"])
    _show(found, out, as_json=as_json)


def _show(found: Any, out: Path | None, *, as_json: bool) -> None:
    """Show tables and the path of the page, or print JSON."""
    if as_json:
        say_json(found.to_json())
    else:
        show(found, *([] if out is None else [f"Report  {out / 'report.html'}"]))


def _read_renames(pairs: list[str]) -> dict[str, str]:
    """Map the labels of the data to the classifier's labels."""
    found = {}
    for pair in pairs:
        own, is_pair, name = pair.partition("=")
        if not is_pair or not own or not name:
            raise DataError(f"--rename: expected DATA_LABEL=LABEL, such as hateful=toxic, got {pair!r}.")
        found[own] = name
    return found
