"""The command line: parses, calls, prints. Nothing heavy is imported before it is needed."""

import inspect
import os
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nlp_transfer.commands import push
from nlp_transfer.commands.advise import advise
from nlp_transfer.commands.audit import audit
from nlp_transfer.commands.compare import compare
from nlp_transfer.commands.explain import explain
from nlp_transfer.commands.export import export
from nlp_transfer.commands.naming import name_options
from nlp_transfer.commands.out_of_scope import out_of_scope
from nlp_transfer.commands.rank import rank
from nlp_transfer.commands.suspects import suspects
from nlp_transfer.commands.tune import tune
from nlp_transfer.errors import StorageError, TransferError, TransferWarning, name_cause
from nlp_transfer.stopping import Stopped, find_request, hold_signals, watch_signals
from nlp_transfer.terminal import (
    ReaderGone,
    complain,
    leave_reader,
    name_reader,
    open_data,
    prepare_streams,
    quiet_libraries,
    say,
    show,
    show_progress,
    tell_warnings,
)

__all__ = ["app", "main"]

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 and the number of the signal."""

GOES_ON = {
    "run": "from the last checkpoint",
    "compare": "with what is missing",
    "tune": "with the trials that are missing",
    "benchmark": "with what is missing",
    "push": "where it was broken off",
}
"""Where the same command goes on after it was stopped, by command."""


class _Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """A signal during the command that is named; typer would end the program without a word."""


class _Commands(TyperGroup):
    """The commands; interrupts and broken pipes, which typer would answer with a bare exit status, reach `main`."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _Interrupted(ctx.invoked_subcommand) from error
        except BrokenPipeError as error:
            message = f"{error}: what this command was talking to has ended. Run it again with -v for the traceback."
            raise StorageError(message) from error


app = typer.Typer(
    name="nlp-transfer",
    cls=_Commands,
    help="Transfer learning on text, with evidence.",
    epilog="Exit status: 0 done, 2 the input is at fault, 130 or 143 stopped by a signal, 1 anything else. -v anywhere "
    "shows the traceback.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

VERBOSE = ("-v", "--verbose")


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="Shipped name, such as sentiment/lora, or a file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Dotted keys: training.epochs=2 data.path=DIR")] = None,
    guard: Annotated[
        bool, typer.Option("--guard", help="Train the control, and keep the better model where transfer does harm.")
    ] = False,
) -> None:
    """Run a recipe: train, score, report, save."""
    from nlp_transfer.recipe.load import list_dropped, load_recipe

    overrides = [*(overrides or []), *(["evaluation.guard=true"] if guard else [])]

    # A recipe with a mistake is told at once, before the libraries are loaded.
    loaded = load_recipe(recipe, overrides)
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    for note in list_dropped(recipe, overrides) if is_first else ():
        print(f"note: {note}", file=sys.stderr)
    from rich.console import Console

    quiet_libraries()
    from nlp_transfer.runs.pipeline import run as run_recipe

    report = run_recipe(loaded, console=Console(stderr=True))
    if is_first:
        # The run is finished: a signal must not have it look as if the same command went on with it.
        with hold_signals(is_last=True):
            show(report)


@app.command(name="list")
def list_all() -> None:
    """Show the shipped recipes and the strategies."""
    from rich.table import Table

    from nlp_transfer.recipe.schema import STRATEGY_CONFIGS
    from nlp_transfer.recipe.shipped import list_shipped

    recipes = Table(title="Recipes", title_justify="left", box=None, padding=(0, 2, 0, 0))
    recipes.add_column("name", style="bold", no_wrap=True)
    recipes.add_column("what it does")
    for name, description in list_shipped().items():
        recipes.add_row(name, description)
    strategies = Table(title="\nStrategies", title_justify="left", box=None, padding=(0, 2, 0, 0))
    strategies.add_column("kind", style="bold", no_wrap=True)
    strategies.add_column("what it does")
    strategies.add_column("use it when you have")
    for kind, section in STRATEGY_CONFIGS.items():
        strategies.add_row(kind, (section.__doc__ or "").splitlines()[0], section.use_when)
    show(recipes, strategies)


@app.command()
def copy(
    recipe: Annotated[str, typer.Argument(help="Shipped name.")],
    dest: Annotated[Path, typer.Argument(help="File or folder to write to; nothing is overwritten.")],
) -> None:
    """Copy a shipped recipe, to make it your own."""
    from nlp_transfer.recipe.shipped import copy_shipped

    say(f"wrote {copy_shipped(recipe, dest)}")


@app.command()
def validate(
    recipes: Annotated[list[str], typer.Argument(help="Shipped names or files.")],
) -> None:
    """Check recipes without running them; every problem of every file is shown."""
    from nlp_transfer.errors import RecipeError
    from nlp_transfer.recipe.load import load_recipe

    failed = 0
    for recipe in recipes:
        try:
            load_recipe(recipe)
        except RecipeError as error:
            failed += 1
            complain(str(error))
        else:
            say(f"{recipe}: valid")
    if failed:
        raise typer.Exit(2)


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    import json

    from nlp_transfer.recipe.load import export_json_schema

    say(json.dumps(export_json_schema(), indent=2))


@app.command()
def predict(
    artifact: Annotated[str, typer.Argument(help="The model/ folder of a run, the run's folder, or a Hub id.")],
    table: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="csv, xlsx, jsonl, parquet, ...; - reads lines, csv or jsonl from stdin."),
    ] = "-",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="csv, tsv, jsonl or parquet; csv to stdout where absent.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    text_b: Annotated[str | None, typer.Option(help="Column of the second text of a pair.")] = None,
    encoding: Annotated[
        str, typer.Option(help="Character encoding of stdin and of csv, tsv, txt and jsonl files.")
    ] = "utf-8",
    delimiter: Annotated[
        str | None, typer.Option(help="Character between cells, or tab; told from the rows where absent.")
    ] = None,
    sheet: Annotated[str | None, typer.Option(help="Sheet of an Excel workbook; the first where absent.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in one forward pass.")] = 64,
    precision: Annotated[
        str, typer.Option(help="Number format: auto, fp32 or bf16; labels are those of fp32.")
    ] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is there.")] = False,
    ood: Annotated[str | None, typer.Option(help="Add how far out of scope: energy or mahalanobis.")] = None,
    abstain_below: Annotated[
        float | None, typer.Option(help="Give no label where the likeliest is less probable than this, such as 0.8.")
    ] = None,
) -> None:
    """Add predicted labels and probabilities to a table."""
    from nlp_transfer.data.exchange import check_output, write_table

    check_output(out, table, overwrite=overwrite)
    quiet_libraries()
    from nlp_transfer.classifier import Classifier
    from nlp_transfer.data.exchange import open_stdin, read_stdin
    from nlp_transfer.data.tables import read_table

    with name_options() as findings:
        if table == "-":
            rows = read_stdin(open_stdin(encoding), columns=(text, text_b), delimiter=delimiter, findings=findings)
        else:
            rows = read_table(table, encoding=encoding, delimiter=delimiter, sheet=sheet, findings=findings)
    classifier = Classifier.from_pretrained(artifact, precision=precision)
    with name_options(), show_progress("predicting", rows.num_rows) as advance:
        found = classifier.predict_table(
            rows,
            text=text,
            text_b=text_b,
            batch_size=batch_size,
            progress=advance,
            where="stdin" if table == "-" else table,
            abstain_below=abstain_below,
        )
    if ood is not None:
        from nlp_transfer.evidence.out_of_scope.command import add_scope

        with name_options():
            found = add_scope(classifier, found, method=ood, text=text, text_b=text_b, batch_size=batch_size)
    with name_reader(), open_data() as stream:
        write_table(found, out, stream)


@app.command()
def evaluate(
    artifact: Annotated[str, typer.Argument(help="The model/ folder of a run, the run's folder, or a Hub id.")],
    data: Annotated[str, typer.Argument(help="File, or a folder of splits.")],
    split: Annotated[str, typer.Option(help="Which split of a folder.")] = "test",
    text: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    text_b: Annotated[str | None, typer.Option(help="Column of the second text of a pair.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Column of the label; given several times, the 0/1 columns of the labels.")
    ] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Report key; may be given several times.")] = None,
    encoding: Annotated[str, typer.Option(help="Character encoding of csv, tsv, txt and jsonl files.")] = "utf-8",
    delimiter: Annotated[
        str | None, typer.Option(help="Character between cells, or tab; told from the rows where absent.")
    ] = None,
    sheet: Annotated[str | None, typer.Option(help="Sheet of an Excel workbook; the first where absent.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in one forward pass.")] = 64,
    precision: Annotated[
        str, typer.Option(help="Number format: auto is fp32 here; or bf16, which is near it.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
) -> None:
    """Score a classifier on labelled data, with intervals."""
    quiet_libraries()
    import json

    from nlp_transfer.classifier import Classifier
    from nlp_transfer.data.exchange import read_split
    from nlp_transfer.publishing.report.tables import scores_table

    with name_options() as findings:
        rows, where = read_split(data, split, encoding=encoding, delimiter=delimiter, sheet=sheet, findings=findings)
    classifier = Classifier.from_pretrained(artifact, precision=precision)
    with name_options(), show_progress("scoring", rows.num_rows) as advance:
        scores = classifier.evaluate(
            rows,
            text=text,
            text_b=text_b,
            label=label[0] if label and len(label) == 1 else label or None,
            metrics=metric,
            batch_size=batch_size,
            progress=advance,
            where=where,
        )
    found = {name: score.to_json() for name, score in scores.items()}
    if as_json:
        say(json.dumps(found, indent=2))
    else:
        show(scores_table({"scores": {split: found}}))


@app.command()
def benchmark(
    suite: Annotated[str, typer.Argument(help="Shipped suite, such as few_shot_cpu, or a file.")],
    data: Annotated[Path, typer.Option(help="Folder that holds the suite's data sets, a folder of splits each.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of results; runs/benchmark-SUITE where absent.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds, seeds 0, 1, ...; the suite's where absent.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(min=0, help="Rounds by their seeds, in place of --rounds.")] = None,
    job: Annotated[list[str] | None, typer.Option(help="Only this job; may be given several times.")] = None,
    contender: Annotated[
        list[str] | None, typer.Option(help="Only this contender; may be given several times.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="Encoder of every contender.")] = "minilm-l6",
    peers: Annotated[Path | None, typer.Option(help="Folder of other scripts for the peers, peer_NAME.py.")] = None,
    python: Annotated[
        str, typer.Option(help="Interpreter that has the peers' libraries; this one where absent.", show_default=False)
    ] = sys.executable,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
) -> None:
    """Run contenders in turn on the same rows: accuracy, seconds, ratios. What is in OUT is not run again.

    Columns: pad, share of our tokens that was padding; peak, largest resident size of the whole process; limit, the
    work on real tokens a second, as a share of what matrix products reach here. OUT also gets comparison.json and
    comparison.svg.
    """
    import json

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
    rows = compare_suite(chosen, bench, say=lambda line: print(line, file=sys.stderr, flush=True))
    if as_json:
        say(json.dumps(rows, indent=2))
    else:
        show(comparison_table(rows, whole.description))


app.command()(compare)
app.command()(advise)
app.command()(rank)
app.command()(tune)
app.command()(explain)
app.command()(suspects)
app.command()(audit)
app.command(name="out-of-scope")(out_of_scope)


@app.command()
def doctor() -> None:
    """Show what this machine has, and what is missing."""
    quiet_libraries()
    from rich.table import Table

    from nlp_transfer.doctor import examine

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, finding in examine().items():
        table.add_row(name, finding)
    show(table)


app.command()(push)
app.command()(export)

for _command in app.registered_commands:
    # A terminal breaks lines where it ends, not where the source does.
    _paragraphs = (inspect.getdoc(_command.callback) or "").split("\n\n")
    _command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in _paragraphs)


def _explain_crash(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    """Say in one line what nobody foresaw."""
    if issubclass(kind, KeyboardInterrupt):
        complain("stopped.")
        return
    complain(f"{kind.__name__}: {name_cause(error)}. Run it again with -v for the traceback.")


def main() -> None:
    """Run the command line; the errors that users meet become messages and exit statuses."""
    prepare_streams()
    is_verbose = any(argument in VERBOSE for argument in sys.argv[1:])
    sys.argv = [argument for argument in sys.argv if argument not in VERBOSE]
    if not is_verbose:
        sys.excepthook = _explain_crash
    try:
        with watch_signals(), tell_warnings(TransferWarning):
            _call_app()
    except _Interrupted as stop:
        _trace(is_verbose)
        sys.exit(_say_stopped(stop))
    except ReaderGone as gone:
        sys.exit(leave_reader(gone))
    except TransferError as error:
        _trace(is_verbose)
        complain(str(error))
        sys.exit(error.exit_status)
    except OSError as error:
        _trace(is_verbose)
        where = f"{error.filename}: " if error.filename else ""
        complain(f"{where}{name_cause(error)}. The disk or a file could not be used; nothing earlier was changed.")
        sys.exit(1)


def _call_app() -> None:
    """Run the command line as typer does."""
    try:
        # Calling the app itself would put typer's own hook in place of ours.
        typer.main.get_command(app)()
    except SystemExit as end:
        # Before and behind the command itself, typer takes what a signal raises for a failure.
        if end.code == 1 and (number := find_request()) is not None:
            raise _Interrupted(None) from Stopped(number)
        raise


def _say_stopped(stop: _Interrupted) -> int:
    """Say what a signal left, and how it goes on; gives the exit status."""
    command, cause = stop.args[0], stop.__cause__
    found = cause if isinstance(cause, Stopped) else None
    if found is not None and found.is_done and command == "run":
        complain("the run was finished when it was to stop.")
        return 0
    is_saved = found is not None and found.step is not None
    saved = f" at step {found.step:,}, which is saved" if found is not None and is_saved else ""
    place = "from there" if is_saved and command == "run" else GOES_ON.get(command)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        complain(f"stopped{saved}." + (f" The same command goes on {place}." if place else ""))
    return INTERRUPTED if found is None else found.exit_status


def _trace(is_verbose: bool) -> None:
    """Write the traceback of the error at hand where it is asked for."""
    if is_verbose:
        traceback.print_exc()
