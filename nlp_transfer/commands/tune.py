"""The command that searches the settings of a recipe."""

import time
from pathlib import Path
from typing import Annotated

import typer

from nlp_transfer.terminal import quiet_libraries, show_record

__all__ = ["tune"]


def tune(
    recipe: Annotated[str, typer.Argument(help="Shipped name, such as sentiment/lora, or a file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Dotted keys: training.epochs=2 data.path=DIR")] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials in all; 20 without --budget, else as many as fit.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Time for everything, an earlier start's trials included: 90s, 15m, 2h.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that run trials at once.")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder; the recipe's output folder with -tuned where absent.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the search; the training seed is the recipe's.")] = 0,
    confirm: Annotated[
        int, typer.Option(min=0, help="Further training seeds that the recipe and the best are compared with.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
) -> None:
    """Search rates, lengths, regularization and the strategy's own settings; validation chooses.

    The first trial is the recipe as it stands. OUT gets best.yaml, tuning.json and report.html. The same command goes
    on with a search that was broken off.
    """
    started = time.monotonic()
    from nlp_transfer.evidence.clock import parse_seconds
    from nlp_transfer.recipe.load import load_recipe

    # A mistake in recipe or budget is told at once, before the libraries are loaded.
    load_recipe(recipe, overrides or [])
    seconds = None if budget is None else parse_seconds(budget)
    quiet_libraries()
    from rich.console import Console

    from nlp_transfer.evidence.tune.command import tune as tune_recipe

    # Importing the libraries is time of the user's too.
    left = None if seconds is None else max(1.0, seconds - (time.monotonic() - started))
    found = tune_recipe(
        recipe,
        overrides or [],
        trials=trials,
        budget=left,
        jobs=jobs,
        output_dir=out,
        seed=seed,
        confirm=confirm,
        console=Console(stderr=True),
    )
    show_record(found, found.record, as_json=as_json)
