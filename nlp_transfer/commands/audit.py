"""``nlp-transfer audit``: whether a classifier treats groups alike."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nlp_transfer.commands.naming import name_options, tell_notes
from nlp_transfer.commands.options import (
    Artifact,
    BatchSize,
    Delimiter,
    Encoding,
    JsonTables,
    Label,
    Sheet,
    Text,
    TextB,
)
from nlp_transfer.errors import DataError
from nlp_transfer.terminal import quiet_libraries, say_json, show, show_progress

__all__ = ["audit"]


def audit(
    artifact: Artifact,
    data: Annotated[str, typer.Argument(help="Labelled data: file, folder of splits, bundled name or Hub id.")],
    group: Annotated[
        str | None, typer.Option(help="Column of groups, several separated by ; or |; by default, identity terms.")
    ] = None,
    positive: Annotated[str | None, typer.Option(help="Label whose rates are compared, such as toxic.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Probability from which it is given; by default, as the classifier decides.")
    ] = None,
    text: Text = None,
    text_b: TextB = None,
    label: Label = None,
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = None,
    sheet: Sheet = None,
    rename: Annotated[
        list[str] | None, typer.Option(help="DATA_LABEL=LABEL, for labels with another name; may be repeated.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which split of a folder.")] = "test",
    terms: Annotated[Path | None, typer.Option(help="YAML of identity terms, instead of the shipped list.")] = None,
    min_group: Annotated[int, typer.Option(min=1, help="Fewest rows of a group that is compared.")] = 20,
    max_swaps: Annotated[int, typer.Option(min=0, help="Most texts with swapped terms to score; 0 for none.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of sampled swaps and of the bootstrap.")] = 0,
    batch_size: BatchSize = 64,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for audit.json and report.html.")] = None,
    as_json: JsonTables = False,
) -> None:
    """Audit how a classifier treats groups: rates with intervals, gaps, and the effect of identity terms.

    Groups are the values of a column, or the identity terms in the texts. Gaps are fairlearn's (extra `audit`), with
    bootstrap intervals and with what chance alone would give. Terms of the shipped list are swapped for others of
    their kind, and the change of the score is measured.
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
    """Tables, and where the page is; or JSON."""
    if as_json:
        say_json(found.to_json())
    else:
        show(found, *([] if out is None else [f"Report  {out / 'report.html'}"]))


def _read_renames(pairs: list[str]) -> dict[str, str]:
    """Labels of the data to the classifier's."""
    found = {}
    for pair in pairs:
        own, is_pair, name = pair.partition("=")
        if not is_pair or not own or not name:
            raise DataError(f"--rename: expected DATA_LABEL=LABEL, such as hateful=toxic, got {pair!r}.")
        found[own] = name
    return found
