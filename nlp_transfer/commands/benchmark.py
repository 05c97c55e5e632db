"""`nlp-transfer benchmark`: contenders that do the same job in turn."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from nlp_transfer.terminal import quiet_libraries, say_json, show, tell

__all__ = ["benchmark"]


def benchmark(
    suite: Annotated[str, typer.Argument(help="Shipped suite, such as few_shot_cpu, or a file.")],
    data: Annotated[Path, typer.Option(help="Folder with one folder of splits for each data set of the suite.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of results; by default runs/benchmark-SUITE.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Number of rounds, with seeds 0, 1, ...; by default the suite's.")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="Seed of a round, instead of --rounds; may be repeated.")
    ] = None,
    job: Annotated[list[str] | None, typer.Option(help="Run this job only; may be repeated.")] = None,
    contender: Annotated[list[str] | None, typer.Option(help="Run this contender only; may be repeated.")] = None,
    encoder: Annotated[str, typer.Option(help="Encoder of every contender.")] = "minilm-l6",
    peers: Annotated[
        Path | None, typer.Option(help="Folder with scripts peer_NAME.py, instead of the shipped ones.")
    ] = None,
    python: Annotated[
        str, typer.Option(help="Python that has the peers' libraries; by default this one.", show_default=False)
    ] = sys.executable,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Run contenders in turn on the same rows: accuracy, seconds, ratios. What is in OUT is not run again.

    Columns: pad, share of our tokens that was padding; peak, largest resident size of the whole process; limit, the
    work on real tokens a second, as a share of what matrix products reach here. OUT also gets comparison.json and
    comparison.svg.
    """
    from nlp_transfer.benchmarks.suite import load_suite, narrow_suite

    # A suite with a mistake is told at once, before the libraries are loaded.
    whole = load_suite(suite)
    chosen = narrow_suite(whole, jobs=job, contenders=contender)
    quiet_libraries()
    from nlp_transfer.benchmarks.compare import compare_suite
    from nlp_transfer.benchmarks.runners import Bench
    from nlp_transfer.benchmarks.summary import comparison_table

    bench = Bench(
        data=data,
        out=out or Path("runs") / f"benchmark-{Path(suite).stem}",
        encoder=encoder,
        peers=peers,
        python=python,
        rounds=seed or range(rounds or whole.rounds),
    )
    rows = compare_suite(chosen, bench, say=tell)
    if as_json:
        say_json(rows)
    else:
        show(comparison_table(rows, whole.description))
