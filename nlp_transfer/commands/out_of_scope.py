"""``nlp-transfer out-of-scope``: fit and measure the detection of out-of-scope texts."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from nlp_transfer.commands.naming import name_options
from nlp_transfer.commands.options import BatchSize, Delimiter, Encoding, Sheet, Text, TextB
from nlp_transfer.errors import OutputError
from nlp_transfer.terminal import quiet_libraries, say, say_json

__all__ = ["out_of_scope"]


def out_of_scope(
    artifact: Annotated[str, typer.Argument(help="The model/ folder of a run, or the run's folder.")],
    data: Annotated[str, typer.Argument(help="Labelled data within scope: a file, or a folder of splits.")],
    ood_data: Annotated[
        str | None, typer.Option(help="Texts out of scope, to measure on: a file, or a folder of splits.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="energy (of the logits) or mahalanobis (of the hidden states).")
    ] = "energy",
    split: Annotated[str, typer.Option(help="Split to score, of DATA and of OUTSIDE.")] = "test",
    fit_split: Annotated[str, typer.Option(help="Split of DATA that mahalanobis is fitted to.")] = "train",
    text: Text = None,
    text_b: TextB = None,
    label: Annotated[str | None, typer.Option(help="Column of the label, for mahalanobis.")] = None,
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = None,
    sheet: Sheet = None,
    batch_size: BatchSize = 64,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Fit mahalanobis again if it is fitted already.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of sentences.")] = False,
) -> None:
    """Detect texts that a classifier was not trained for; `predict --ood` then adds the score to a table.

    mahalanobis is fitted to DATA and kept in the artefact's folder; energy needs no fitting. With --ood-data both
    are measured: the chance that a text out of scope scores higher than one within (AUROC), and the share caught by
    the score that 95 in 100 texts within scope stay below. What is fitted already is used as it is.
    """
    quiet_libraries()
    from nlp_transfer.classifier import Classifier
    from nlp_transfer.data.exchange import read_split
    from nlp_transfer.evidence.out_of_scope.command import check_method, fit_scope, has_fit, measure_scope, score_scope

    check_method(method, where="--method")
    classifier = Classifier.from_pretrained(artifact)
    held = has_fit(classifier)
    is_fitting = method == "mahalanobis" and (overwrite or held is None)
    if method == "mahalanobis" and ood_data is None and not is_fitting:
        raise OutputError(
            f"{held}: mahalanobis is fitted already. Measure it with --ood-data, or fit it again with --overwrite."
        )
    record: dict[str, Any] = {"method": method, "fitted_rows": None}
    columns = {"text": text, "text_b": text_b}
    with name_options() as findings:
        reading: dict[str, Any] = {"encoding": encoding, "delimiter": delimiter, "sheet": sheet, "findings": findings}
        if is_fitting:
            rows, _ = read_split(data, fit_split, **reading)
            record |= {"file": str(fit_scope(classifier, rows, label=label, **columns)), "fitted_rows": rows.num_rows}
        if ood_data is not None:
            inside, outside = (
                score_scope(classifier, table, method=method, batch_size=batch_size, **columns)
                for table in (read_split(source, split, **reading)[0] for source in (data, ood_data))
            )
            record |= measure_scope(inside, outside, method=method).to_json()
        elif not is_fitting:
            # What cannot be read is told, though energy asks nothing of it yet.
            read_split(data, split, **reading)
    _say_found(record, as_json=as_json)


def _say_found(found: Mapping[str, Any], *, as_json: bool) -> None:
    """What was fitted and measured, in sentences or as JSON."""
    if as_json:
        say_json(found)
        return
    if found["fitted_rows"] is not None:
        say(f"fitted to {found['fitted_rows']:,} rows: {found['file']}")
    elif "auroc" not in found:
        say("energy needs no fitting; name --ood-data to measure it.")
    if "auroc" not in found:
        return
    say(f"AUROC {found['auroc']:.3f} [{found['low']:.3f}, {found['high']:.3f}]")
    say(f"on {found['num_inside']:,} rows within scope and {found['num_outside']:,} out of it")
    say(f"a score above {found['threshold']:.4g} catches {found['caught']:.1%} of those out of it,")
    say("and 5 in 100 within scope")
