"""``nlp-transfer explain``: which words a prediction depends on."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from nlp_transfer.terminal import quiet_libraries, say, say_json, show

__all__ = ["explain"]


def explain(
    artifact: Annotated[str, typer.Argument(help="The model/ folder of a run, the run's folder, or a Hub id.")],
    text: Annotated[str, typer.Argument(help="The text, in quotes.")],
    text_b: Annotated[str | None, typer.Option(help="The second text of a pair.")] = None,
    label: Annotated[str | None, typer.Option(help="Label to explain; the predicted one where absent.")] = None,
    method: Annotated[
        Literal["integrated_gradients", "occlusion"],
        typer.Option(
            help="integrated_gradients gives values that add up; occlusion replaces one word at a time and works for "
            "every classifier."
        ),
    ] = "integrated_gradients",
    baseline: Annotated[Literal["pad", "mask"], typer.Option(help="Token that replaces a word.")] = "pad",
    steps: Annotated[
        int | None, typer.Option(min=1, help="First number of steps of the integral; doubled until the values add up.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File: .html for a page, .json for all values.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of colored words.")] = False,
) -> None:
    """Show which words speak for a label and which against it, in log-odds (needs the extra `explain`)."""
    quiet_libraries()
    from nlp_transfer.classifier import Classifier
    from nlp_transfer.publishing.explain.result import Explanation

    if out is not None:
        Explanation.claim(out, overwrite=overwrite)
    classifier = Classifier.from_pretrained(artifact, precision="fp32")
    found = classifier.explain(text, text_b, label=label, method=method, baseline=baseline, steps=steps)
    if out is not None:
        found.save(out, overwrite=overwrite)
    if as_json:
        say_json(found.to_json())
        return
    show(found)
    if out is not None:
        say(f"wrote {out}")
