"""`nlp-transfer advise`: which strategy suits a table, before any training."""

from pathlib import Path
from typing import Annotated

import typer

from nlp_transfer.commands.naming import add_delimiter
from nlp_transfer.recipe.schema import EncoderConfig
from nlp_transfer.terminal import quiet_libraries, say_json, show, show_progress

__all__ = ["advise"]


def advise(
    data: Annotated[str, typer.Argument(help="Bundled name, file, folder of splits, or Hub id.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Dotted keys of data: data.invalid=drop")] = None,
    encoder: Annotated[str, typer.Option(help="Alias, folder, Hub id, or an earlier run.")] = EncoderConfig().name,
    text: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    text_b: Annotated[str | None, typer.Option(help="Column of the second text of a pair.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="Character between cells, or tab; detected from the rows where absent.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first N rows of train, shuffled.")] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Use K rows of every class.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of drawn rows and folds.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of tables.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for advice.json and report.html.")] = None,
) -> None:
    """Say which strategies suit a table, what each will reach and cost, and why, before any training."""
    from collections.abc import Callable, Iterator
    from contextlib import contextmanager

    quiet_libraries()
    from nlp_transfer.evidence.advise.command import advise as give_advice

    @contextmanager
    def track(name: str, total: int) -> Iterator[Callable[[int], None]]:
        with show_progress(name, total) as advance:
            yield advance

    advice = give_advice(
        data,
        add_delimiter(overrides, delimiter),
        encoder=encoder,
        text=text,
        text_b=text_b,
        label=label,
        limit=limit,
        shots=shots,
        seed=seed,
        output_dir=out,
        track=track,
    )
    if as_json:
        say_json(advice.to_json())
        return
    show(advice)
    if out is not None:
        show(f"Report  {out / 'report.html'}")
