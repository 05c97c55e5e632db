"""``nlp-transfer out-of-scope``: fit and measure the detection of texts that are not a classifier's business."""

from typing import Annotated

import typer

from nlp_transfer.terminal import quiet_libraries, say

__all__ = ["out_of_scope"]


def out_of_scope(
    artifact: Annotated[str, typer.Argument(help="The model/ folder of a run, or the run's folder.")],
    data: Annotated[str, typer.Argument(help="Labelled data within scope: a file, or a folder of splits.")],
    ood_data: Annotated[
        str | None, typer.Option(help="Texts out of scope, to measure on: a file, or a folder of splits.")
    ] = None,
    method: Annotated[str, typer.Option(help="energy, of the logits, or mahalanobis, of the vectors.")] = "energy",
    split: Annotated[str, typer.Option(help="Split of both that is scored.")] = "test",
    fit_split: Annotated[str, typer.Option(help="Split of DATA that mahalanobis is fitted to.")] = "train",
    text: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    text_b: Annotated[str | None, typer.Option(help="Column of the second text of a pair.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label, for mahalanobis.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in one forward pass.")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of sentences.")] = False,
) -> None:
    """Detect texts that a classifier was not trained for; `predict --ood` then adds the score to a table.

    mahalanobis is fitted to DATA and kept in the artefact's folder; energy needs no fitting. With --ood-data both
    are measured: the chance that a text out of scope scores higher than one within (AUROC), and the share caught by
    the score that 95 in 100 texts within scope stay below.
    """
    quiet_libraries()
    import json

    from nlp_transfer.classifier import Classifier
    from nlp_transfer.data.exchange import read_split
    from nlp_transfer.evidence.out_of_scope import fit_scope, measure_scope, score_scope

    classifier = Classifier.from_pretrained(artifact)
    if method == "mahalanobis":
        rows, _ = read_split(data, fit_split)
        place = fit_scope(classifier, rows, text=text, text_b=text_b, label=label)
        if not as_json:
            say(f"fitted to {rows.num_rows:,} rows: {place}")
    if ood_data is None:
        if method != "mahalanobis":
            say("energy needs no fitting; name --ood-data to measure it.")
        return
    inside, outside = (
        score_scope(
            classifier, read_split(source, split)[0], method=method, text=text, text_b=text_b, batch_size=batch_size
        )
        for source in (data, ood_data)
    )
    found = measure_scope(inside, outside, method=method)
    if as_json:
        say(json.dumps(found.to_json(), indent=2))
        return
    say(
        f"AUROC {found.auroc:.3f} [{found.low:.3f}, {found.high:.3f}] on {found.num_inside:,} rows within scope and "
        f"{found.num_outside:,} out of it"
    )
    say(
        f"a score above {found.threshold:.4g}, which 5 in 100 within scope exceed, catches {found.caught:.1%} of those "
        "out of it"
    )
