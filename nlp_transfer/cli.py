"""The command line: calls a command, and turns the errors that users meet into messages and exit statuses."""

import os
import sys
import traceback
from types import TracebackType

import typer

from nlp_transfer.commands.app import Interrupted, app
from nlp_transfer.errors import TransferError, TransferWarning, name_cause
from nlp_transfer.stopping import Stopped, find_request, watch_signals
from nlp_transfer.terminal import ReaderGone, complain, leave_reader, prepare_streams, tell_warnings

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
"""Where the same command continues after it was stopped, by command."""

VERBOSE = ("-v", "--verbose")


def _explain_crash(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    """Report an unexpected error in one line."""
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
    except Interrupted as stop:
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
        # Before and after the command itself, typer turns the exception of a signal into a failure.
        if end.code == 1 and (number := find_request()) is not None:
            raise Interrupted(None) from Stopped(number)
        raise


def _say_stopped(stop: Interrupted) -> int:
    """Say what is saved after a signal and how to continue; returns the exit status."""
    command, cause = stop.args[0], stop.__cause__
    found = cause if isinstance(cause, Stopped) else None
    if found is not None and found.is_done and command == "run":
        complain("the run was already finished when it was asked to stop.")
        return 0
    is_saved = found is not None and found.step is not None
    saved = f" at step {found.step:,}, which is saved" if found is not None and is_saved else ""
    place = "from there" if is_saved and command == "run" else GOES_ON.get(command)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        complain(f"stopped{saved}." + (f" The same command goes on {place}." if place else ""))
    return INTERRUPTED if found is None else found.exit_status


def _trace(is_verbose: bool) -> None:
    """Write the traceback of the current error if ``-v`` was given."""
    if is_verbose:
        traceback.print_exc()
