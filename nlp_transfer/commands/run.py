"""`nlp-transfer run`: a recipe from data to report."""

import os
from typing import Annotated

import typer

from nlp_transfer.stopping import hold_signals
from nlp_transfer.terminal import note, quiet_libraries, show

__all__ = ["run"]


def run(
    recipe: Annotated[str, typer.Argument(help="Shipped name, such as sentiment/lora, or a file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Dotted keys: training.epochs=2 data.path=DIR")] = None,
    guard: Annotated[
        bool,
        typer.Option(
            "--guard", help="Also train the no-transfer control, and keep the better model if transfer did harm."
        ),
    ] = False,
) -> None:
    """Run a recipe: train, score, report, save."""
    from nlp_transfer.recipe.load import list_dropped, load_recipe

    overrides = [*(overrides or []), *(["evaluation.guard=true"] if guard else [])]

    # A recipe with a mistake is told at once, before the libraries are loaded.
    loaded = load_recipe(recipe, overrides)
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    for dropped in list_dropped(recipe, overrides) if is_first else ():
        note(dropped)
    from rich.console import Console

    quiet_libraries()
    from nlp_transfer.runs.pipeline import run as run_recipe

    report = run_recipe(loaded, console=Console(stderr=True))
    if is_first:
        # The run is finished: a signal must not have it look as if the same command went on with it.
        with hold_signals(is_last=True):
            show(report)
