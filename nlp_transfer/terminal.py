"""How the commands deal with a terminal: progress, readers that go away, other libraries' advice."""

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = [
    "ReaderGone",
    "complain",
    "name_reader",
    "note",
    "quiet_imports",
    "quiet_libraries",
    "say",
    "show",
    "show_progress",
    "show_record",
]


class ReaderGone(Exception):  # noqa: N818 - nothing went wrong
    """Nobody reads stdout any more, as behind `| head`."""


@contextmanager
def show_progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr while rows are worked through; nothing where stderr is not a terminal.

    Yields:
        What is told how many more are done.
    """
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(label, total=total)
        yield lambda count: progress.advance(task, count)


def quiet_imports() -> None:
    """Leave unsaid what libraries say while they are imported, and nobody can use."""
    # A notebook without widgets shows no bars of tqdm; the bars of this package need none.
    warnings.filterwarnings("ignore", message="IProgress not found")
    # It misses a kernel for what nobody asked for, whenever peft is imported.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def quiet_libraries() -> None:
    """Keep the libraries' own advice off the terminal; what matters is said by this package."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


@contextmanager
def name_reader() -> Iterator[None]:
    """Tell a reader of stdout that went away from every other pipe that breaks."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise ReaderGone from error


def say(text: str) -> None:
    """Write text to stdout."""
    with name_reader():
        sys.stdout.write(f"{text}\n")


def show(*tables: object) -> None:
    """Write tables to stdout."""
    from rich.console import Console

    class PlainConsole(Console):
        """One that leaves a broken pipe to us, where rich would exit with 1."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    with name_reader():
        PlainConsole().print(*tables)


def show_record(found: object, record: Mapping[str, Any], *, as_json: bool) -> None:
    """Write a result to stdout, as it shows itself or as JSON."""
    if as_json:
        say(json.dumps(record, indent=2))
    else:
        show(found)


def complain(message: str) -> None:
    """Write to stderr."""
    sys.stderr.write(f"nlp-transfer: {message}\n")


def note(message: str) -> None:
    """Write to stderr what went well, and is good to know."""
    sys.stderr.write(f"note: {message}\n")
