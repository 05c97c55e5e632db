"""Write to a terminal: messages, progress, closed pipes, and the advice of other libraries."""

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
"""Exit status of work that ended because nobody reads its messages, as in shells: 128 plus the number of SIGPIPE."""

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
"""Characters of messages and tables, and their replacements for terminals whose encoding lacks them."""


class ReaderGone(Exception):  # noqa: N818 - nothing went wrong
    """Nobody reads stdout or stderr any more, as with `| head`.

    Args:
        number: The stream's file descriptor: 1 for stdout, 2 for stderr.
    """

    def __init__(self, number: int = 1) -> None:
        super().__init__(number)
        self.number = number


class _Pipe(io.FileIO):
    """Stdout or stderr; raises `ReaderGone` when its reader went away, to tell it from any other broken pipe."""

    def write(self, data: Any, /) -> int:
        """Write bytes."""
        try:
            return super().write(data)
        except BrokenPipeError as error:
            raise ReaderGone(self.fileno()) from error


def _write_plainly(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that an encoding lacks by similar ones, or by their code points."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    plain = (PLAIN.get(sign) or sign.encode("ascii", "backslashreplace").decode("ascii") for sign in signs)
    return "".join(plain), error.end


def prepare_streams() -> None:
    """Set up stdout and stderr: missing characters are replaced, and a reader that goes away is not a failure.

    All commands go through here, and so does everything that libraries write.
    """
    codecs.register_error("nlp_transfer_plain", _write_plainly)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        raw = getattr(stream.buffer, "raw", stream.buffer)  # Unbuffered Python (-u) has the file directly.
        # The Windows console and the replacements that tests install are no files.
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
    """Discard what is still buffered, so that Python ends without a message.

    Args:
        gone: Says which stream lost its reader.

    Returns:
        The exit status: 0 if the reader of a result had seen enough, 141 if work was interrupted.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), gone.number)
    return BROKEN_PIPE if gone.number == STDERR else 0


@contextmanager
def open_data() -> Iterator[TextIO]:
    """Open stdout for data, which is written as UTF-8 with unchanged line ends.

    Yields:
        The stream to write to; a terminal keeps its own encoding.
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
    """Show a progress bar on stderr while rows are processed; nothing if stderr is not a terminal.

    Yields:
        A callable that takes the count of rows done since its last call.
    """
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(label, total=total)
        yield lambda count: progress.advance(task, count)


def quiet_imports() -> None:
    """Silence messages of libraries at import that users cannot act on."""
    # A notebook without widgets shows no tqdm bars; the bars of this package need no widgets.
    warnings.filterwarnings("ignore", message="IProgress not found")
    # Importing peft makes bitsandbytes report a missing kernel that this package does not use.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def quiet_libraries() -> None:
    """Keep the libraries' own advice off the terminal; this package says what matters itself."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


@contextmanager
def name_reader() -> Iterator[None]:
    """Raise `ReaderGone` when the reader of stdout went away, to tell it from any other broken pipe."""
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
        """A console that raises on a broken pipe, for which rich would exit with 1."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    with name_reader():
        PlainConsole().print(*tables)


@contextmanager
def tell_warnings(kind: type[Warning]) -> Iterator[None]:
    """Write warnings of a kind to stderr like messages, without the line of source that they come from."""
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
    """Write JSON to stdout; characters are escaped only if the encoding is not a Unicode one."""
    is_full = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "").startswith("utf")
    say(json.dumps(record, indent=2, ensure_ascii=not is_full))


def show_record(found: object, record: Mapping[str, Any], *, as_json: bool) -> None:
    """Write a result to stdout, as tables or as JSON."""
    if as_json:
        say_json(record)
    else:
        show(found)


def complain(message: str) -> None:
    """Write an error or a warning to stderr."""
    _write_message(f"nlp-transfer: {message}\n")


def note(message: str) -> None:
    """Write a note to stderr: something good to know that is not a problem."""
    _write_message(f"note: {message}\n")


def tell(line: str) -> None:
    """Write a line about the progress of the work to stderr."""
    _write_message(f"{line}\n")


def _write_message(line: str) -> None:
    """Write a line to stderr; if nobody reads stderr, the exit status is still that of the command."""
    with suppress(BrokenPipeError):
        try:
            sys.stderr.write(line)
            sys.stderr.flush()
        except ReaderGone as gone:
            leave_reader(gone)
