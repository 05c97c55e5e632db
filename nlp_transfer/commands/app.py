"""The command line as typer builds it: every command by its name, in the order of the help."""

import inspect
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from nlp_transfer.commands.advise import advise
from nlp_transfer.commands.audit import audit
from nlp_transfer.commands.benchmark import benchmark
from nlp_transfer.commands.compare import compare
from nlp_transfer.commands.doctor import doctor
from nlp_transfer.commands.evaluate import evaluate
from nlp_transfer.commands.explain import explain
from nlp_transfer.commands.export import export
from nlp_transfer.commands.out_of_scope import out_of_scope
from nlp_transfer.commands.predict import predict
from nlp_transfer.commands.push import push
from nlp_transfer.commands.rank import rank
from nlp_transfer.commands.recipes import copy, list_all, schema, validate
from nlp_transfer.commands.run import run
from nlp_transfer.commands.suspects import suspects
from nlp_transfer.commands.tune import tune
from nlp_transfer.errors import StorageError

__all__ = ["Interrupted", "app"]


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """A signal during the command that is named; typer would end the program without a word."""


class _Commands(TyperGroup):
    """The commands; interrupts and broken pipes, which typer would answer with a bare exit status, reach `main`."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted(ctx.invoked_subcommand) from error
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

COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "list": list_all,
    "copy": copy,
    "validate": validate,
    "schema": schema,
    "predict": predict,
    "evaluate": evaluate,
    "benchmark": benchmark,
    "compare": compare,
    "advise": advise,
    "rank": rank,
    "tune": tune,
    "explain": explain,
    "suspects": suspects,
    "audit": audit,
    "out-of-scope": out_of_scope,
    "doctor": doctor,
    "push": push,
    "export": export,
}
"""Every command by its name, in the order of the help."""

for _name, _command in COMMANDS.items():
    # A terminal breaks lines where it ends, not where the source does.
    _paragraphs = (inspect.getdoc(_command) or "").split("\n\n")
    app.command(name=_name, help="\n\n".join(" ".join(each.split()) for each in _paragraphs))(_command)
