"""How a signal ends the program: at once, or at the end of a block that must not be interrupted, such as saving.

Only the command line installs handlers, for as long as a command runs. In a notebook or a script Ctrl-C stays Python's
`KeyboardInterrupt`, and every function here does nothing.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

__all__ = ["Stopped", "find_request", "hold_signals", "is_watched", "raise_request", "watch_signals"]

NAMES = ("SIGTERM", "SIGINT", "SIGHUP")
"""Signals that end a command; Windows lacks the last."""

REPEAT_SECONDS = 1.0
"""Seconds within which a repeated signal counts as the same request; chosen. A terminal and the launcher of several
processes both pass Ctrl-C on, and `timeout` signals a program and then its group."""

HELD = b"nlp-transfer: stopping after the current operation; a second signal ends at once\n"


class Stopped(KeyboardInterrupt):
    """A signal asked the program to end; the exception propagates as that of Ctrl-C does.

    Args:
        number: Number of the signal.

    Attributes:
        number: Number of the signal.
        step: The update at which a checkpoint was saved because of the signal; None if none was saved.
        is_done: Whether everything was already finished when the exception was raised.

    Example:
        >>> Stopped(15).exit_status
        143
    """

    def __init__(self, number: int, *, is_done: bool = False) -> None:
        super().__init__(number)
        self.number, self.is_done = number, is_done
        self.step: int | None = None

    @property
    def exit_status(self) -> int:
        """Exit status of the process, as in shells: 128 plus the number of the signal."""
        return 128 + self.number


@dataclass
class _Request:
    """The request to stop that this process got.

    Attributes:
        number: Number of the signal; None if none came.
        since: When the signal came, on the monotonic clock.
        is_watched: Whether the handlers are installed.
        num_holds: Number of nested blocks that must not be interrupted.
        is_raised: Whether `Stopped` was raised already.
    """

    number: int | None = None
    since: float = 0.0
    is_watched: bool = False
    num_holds: int = 0
    is_raised: bool = False


_request = _Request()


@contextlib.contextmanager
def watch_signals() -> Iterator[None]:
    """Let SIGTERM, SIGINT and SIGHUP raise `Stopped` in this block, or at the end of a `hold_signals` block.

    A second signal ends the process at once. A signal that the process was started to ignore, as under ``nohup``,
    stays ignored. Only the main thread can install handlers; in another thread this block changes nothing.

    Yields:
        Nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    earlier = {number: signal.getsignal(number) for number in found}
    # None is a handler that Python did not install and could not put back.
    earlier = {number: handler for number, handler in earlier.items() if handler not in (signal.SIG_IGN, None)}
    _request.number, _request.is_raised, _request.is_watched = None, False, True
    for number in earlier:
        signal.signal(number, _receive)
    try:
        yield
    finally:
        _request.number, _request.is_watched = None, False
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _receive(number: int, _: FrameType | None) -> None:
    """Handle a signal."""
    now = time.monotonic()
    if _request.number is not None:
        if now - _request.since >= REPEAT_SECONDS:
            os._exit(128 + number)
        return
    _request.number, _request.since = number, now
    if not _request.num_holds:
        raise_request()
    if os.environ.get("LOCAL_RANK", "0") == "0":
        # Not through sys.stderr: the signal may have come in the middle of another line.
        with contextlib.suppress(OSError):
            os.write(2, HELD)


def is_watched() -> bool:
    """Whether the handlers are installed, so that signals wait for the end of `hold_signals` blocks."""
    return _request.is_watched


def find_request() -> int | None:
    """Return the number of the signal that asked this process to end; None if none did."""
    return _request.number


def raise_request(number: int | None = None, *, is_done: bool = False) -> None:
    """Raise `Stopped` if a signal asked the program to end.

    Args:
        number: The signal that another process of the same run got; None to consider this process alone.
        is_done: Whether everything is finished.

    Raises:
        Stopped: A signal came.
    """
    if found := number or _request.number:
        _request.is_raised = True
        raise Stopped(found, is_done=is_done)


@contextlib.contextmanager
def hold_signals(*, is_last: bool = False) -> Iterator[None]:
    """Let signals wait until the end of a block that must not be interrupted; keep the block short.

    Args:
        is_last: Whether everything is finished after the block.

    Yields:
        Nothing.

    Raises:
        Stopped: A signal came meanwhile, and no outer block makes it wait.

    Example:
        >>> with hold_signals():
        ...     pass
    """
    _request.num_holds += 1
    try:
        yield
    finally:
        _request.num_holds -= 1
    # An exception that is already propagating is not raised a second time.
    if not _request.num_holds and not _request.is_raised:
        raise_request(is_done=is_last)
