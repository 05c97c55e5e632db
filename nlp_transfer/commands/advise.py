"""`nlp-transfer advise`: which strategy suits a table, before any training."""

from pathlib import Path
from typing import Annotated

import typer

from nlp_transfer.commands.naming import add_delimiter
from nlp_transfer.commands.options import Delimiter, JsonTables, Label, Text, TextB
from nlp_transfer.recipe.schema import EncoderConfig
from nlp_transfer.terminal import quiet_libraries, say_json, show, show_progress

__all__ = ["advise"]


def advise(
    data: Annotated[str, typer.Argument(help="Bundled name, file, folder of splits, or Hub id.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Dotted keys of data: data.invalid=drop")] = None,
    encoder: Annotated[str, typer.Option(help="Alias, folder, Hub id, or an earlier run.")] = EncoderConfig().name,
    text: Text = None,
    text_b: TextB = None,
    label: Label = None,
    delimiter: Delimiter = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first N rows of train, shuffled.")] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Use K rows of every class.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of drawn rows and folds.")] = 0,
    as_json: JsonTables = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for advice.json and report.html.")] = None,
) -> None:
    """Rank strategies for a table by expected accuracy and cost, with reasons, before any training."""
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
