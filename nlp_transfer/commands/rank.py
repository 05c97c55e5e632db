"""`nlp-transfer rank`: which encoder suits a table."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from nlp_transfer.commands.naming import add_delimiter
from nlp_transfer.commands.options import Delimiter
from nlp_transfer.evidence.rank.options import (
    ALL,
    DEFAULT_ESTIMATOR,
    DEFAULT_LAYERS,
    DEFAULT_LIMIT,
    ESTIMATOR_NAMES,
    choose_estimators,
    read_layers_option,
)
from nlp_transfer.terminal import quiet_libraries, say_json, show

__all__ = ["rank"]


_ESTIMATORS = (
    f"{', '.join([*ESTIMATOR_NAMES, ALL])}; may be given several times, the first decides the order. "
    f"{DEFAULT_ESTIMATOR} where absent."
)
_OVERRIDES = "Dotted recipe keys: data.text=body, and for --verify training.epochs=1, data.limit=500."


def rank(
    data: Annotated[str, typer.Argument(help="Bundled name, file, folder of splits, or Hub id.")],
    overrides: Annotated[list[str] | None, typer.Argument(help=_OVERRIDES)] = None,
    encoder: Annotated[list[str] | None, typer.Option(help="Alias, folder, Hub id, earlier run; two or more.")] = None,
    estimator: Annotated[list[str] | None, typer.Option(help=_ESTIMATORS)] = None,
    layers: Annotated[
        str, typer.Option(help="mean (of all layers), last, a number, or all (the best layer counts).")
    ] = DEFAULT_LAYERS,
    limit: Annotated[int, typer.Option(min=2, help="Most train rows to read.")] = DEFAULT_LIMIT,
    pooling: Annotated[str, typer.Option(help="Pooling of token states: mean, first or max.")] = "mean",
    delimiter: Delimiter = None,
    verify: Annotated[
        int, typer.Option(min=0, help="Fine-tune this many of the best briefly, to verify the order.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the rows and of the verification.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for rank.json, report.html and the verifying runs.")
    ] = None,
) -> None:
    """Rank encoders for a table, from one forward pass of each over some of its rows."""
    # A mistake is told at once, before the libraries are loaded.
    estimators, which = choose_estimators(estimator or []), read_layers_option(layers)
    quiet_libraries()
    from rich.console import Console

    from nlp_transfer.evidence.rank.command import rank as rank_encoders

    ranking = rank_encoders(
        data,
        encoder or [],
        add_delimiter(overrides, delimiter),
        estimators=estimators,
        layers=which,
        limit=limit,
        pooling=pooling,
        verify=verify,
        seed=seed,
        output_dir=out,
        console=Console(file=sys.stderr),
    )
    if as_json:
        say_json(ranking.to_json())
    elif out is None:
        show(ranking)
    else:
        show(ranking, f"Report  {out / 'report.html'}")
