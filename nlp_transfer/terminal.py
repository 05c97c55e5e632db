"""How the commands deal with a terminal: progress, readers that go away, other libraries' advice."""

import codecs
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

__all__ = [
    "ReaderGone",
    "complain",
    "leave_reader",
    "name_reader",
    "note",
    "open_data",
    "prepare_streams",
    "quiet_imports",
    "quiet_libraries",
    "say",
    "say_json",
    "show",
    "show_progress",
    "show_record",
    "tell",
    "tell_warnings",
]


BROKEN_PIPE = 141
"""Exit status of work broken off as nobody reads its messages, as shells have it: 128 and the number of SIGPIPE."""

STDERR = 2

PLAIN = dict(
    zip(
        "\u2013\u2014\u2212\u2018\u2019\u201c\u201d\u2026\u00b1\u00d7\u2192\u2264\u2265\u00b7\u00a0\u2009\u2022\u2588\u2501\u2500\u2502",
        (
            "-",
            "-",
            "-",
            "'",
            "'",
            '"',
            '"',
            "...",
            "+/-",
            "x",
            "->",
            "<=",
            ">=",
            ".",
            " ",
            " ",
            "*",
            "#",
            "-",
            "-",
            "|",
        ),
        strict=True,
    )
)
"""Signs of messages and tables, and what stands for them where the terminal's encoding has no such sign."""


class ReaderGone(Exception):  # noqa: N818 - nothing went wrong
    """Nobody reads stdout or stderr any more, as behind `| head`.

    Args:
        number: Which of the two: 1 or 2.
    """

    def __init__(self, number: int = 1) -> None:
        super().__init__(number)
        self.number = number


class _Pipe(io.FileIO):
    """Stdout or stderr, telling its own reader that went away from every other pipe that breaks."""

    def write(self, data: Any, /) -> int:
        """Write bytes."""
        try:
            return super().write(data)
        except BrokenPipeError as error:
            raise ReaderGone(self.fileno()) from error


def _write_plainly(error: UnicodeError) -> tuple[str, int]:
    """Stand in for the characters that an encoding lacks: by signs that look alike, or by their numbers."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    plain = (PLAIN.get(sign) or sign.encode("ascii", "backslashreplace").decode("ascii") for sign in signs)
    return "".join(plain), error.end


def prepare_streams() -> None:
    """Let no message fail on the encoding of stdout or stderr, and no reader that goes away look like a failure.

    This is the one place that all commands go through; what libraries write goes through it too.
    """
    codecs.register_error("nlp_transfer_plain", _write_plainly)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        raw = getattr(stream.buffer, "raw", stream.buffer)  # Python without buffers (-u) has the file at once.
        # The console of Windows, and what tests put there, is no file.
        if stream is not getattr(sys, f"__{name}__") or type(raw) is not io.FileIO:
            stream.reconfigure(errors="nlp_transfer_plain")
            continue
        stream.flush()
        pipe: Any = _Pipe(stream.fileno(), "wb", closefd=False)
        if raw is not stream.buffer:
            pipe = io.BufferedWriter(pipe)
        is_direct, by_line = stream.write_through, stream.line_buffering
        new = io.TextIOWrapper(
            pipe, stream.encoding, "nlp_transfer_plain", line_buffering=by_line, write_through=is_direct
        )
        setattr(sys, name, new)


def leave_reader(gone: ReaderGone) -> int:
    """Send what is still buffered nowhere, so that Python ends without a word.

    Args:
        gone: Whose reader it was.

    Returns:
        The exit status: 0 where the reader had seen enough of a result, 141 where work was broken off.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), gone.number)
    return BROKEN_PIPE if gone.number == STDERR else 0


@contextmanager
def open_data() -> Iterator[TextIO]:
    """Open stdout for data, which goes out as UTF-8 whatever the terminal's encoding, with line ends as they are.

    Yields:
        What to write to; a terminal is written to in its own encoding.
    """
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None or sys.stdout.isatty():
        yield sys.stdout
        return
    sys.stdout.flush()
    data = io.TextIOWrapper(buffer, encoding="utf-8", newline="")
    try:
        yield data
        data.flush()
    finally:
        data.detach()


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


@contextmanager
def tell_warnings(kind: type[Warning]) -> Iterator[None]:
    """Write warnings of a kind to stderr as messages are, without the line of source that they come from."""
    with warnings.catch_warnings():
        show_others = warnings.showwarning

        def show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, kind):
                complain(f"warning: {message}")
            else:
                show_others(message, category, *where, **more)

        warnings.showwarning = show_warning
        warnings.simplefilter("always", kind)
        yield


def say_json(record: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write JSON to stdout, with every character as itself where the encoding has all of them."""
    is_full = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "").startswith("utf")
    say(json.dumps(record, indent=2, ensure_ascii=not is_full))


def show_record(found: object, record: Mapping[str, Any], *, as_json: bool) -> None:
    """Write a result to stdout, as it shows itself or as JSON."""
    if as_json:
        say_json(record)
    else:
        show(found)


def complain(message: str) -> None:
    """Write to stderr."""
    _write_message(f"nlp-transfer: {message}\n")


def note(message: str) -> None:
    """Write to stderr what went well, and is good to know."""
    _write_message(f"note: {message}\n")


def tell(line: str) -> None:
    """Write to stderr how far the work is."""
    _write_message(f"{line}\n")


def _write_message(line: str) -> None:
    """Write a line to stderr; where nobody reads it, what it is about still decides the exit status."""
    with suppress(BrokenPipeError):
        try:
            sys.stderr.write(line)
            sys.stderr.flush()
        except ReaderGone as gone:
            leave_reader(gone)
