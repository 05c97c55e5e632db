"""How a signal ends the program: at once where nothing is lost by it, else as soon as what is at hand is whole.

Handlers are installed by the command line alone, for as long as a command runs. In a notebook or a script Ctrl-C stays
the `KeyboardInterrupt` that Python makes of it, and every function here does nothing.
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
"""What ends a command; Windows lacks the last."""

REPEAT_SECONDS = 1.0
"""Seconds within which a signal that comes again is the same request; chosen. A terminal and the launcher of several
processes both pass Ctrl-C on, and `timeout` signals a program and then its group."""

HELD = b"nlp-transfer: stopping once what is at hand is whole; a second signal ends at once\n"


class Stopped(KeyboardInterrupt):
    """A signal asked the program to end; it unwinds as Ctrl-C does.

    Args:
        number: Of the signal.

    Attributes:
        number: Of the signal.
        step: The update of which a checkpoint was saved for it; None where none was.
        is_done: Whether everything was finished when it took effect.

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
        """Status of a process that this ends, as shells have it: 128 and the number of the signal."""
        return 128 + self.number


@dataclass
class _Request:
    """What this process was asked for.

    Attributes:
        number: Of the signal that came; None where none did.
        since: When it came, on the monotonic clock.
        is_watched: Whether signals are waited for at all.
        num_holds: Blocks that must not be broken off, one in another.
        is_raised: Whether it was raised already.
    """

    number: int | None = None
    since: float = 0.0
    is_watched: bool = False
    num_holds: int = 0
    is_raised: bool = False


_request = _Request()


@contextlib.contextmanager
def watch_signals() -> Iterator[None]:
    """Let SIGTERM, SIGINT and SIGHUP raise `Stopped` in this block, or at the end of a block that holds them.

    A second signal ends the process at once. What the process was started to ignore, as below ``nohup``, stays
    ignored. Only the main thread can do this; in another the block changes nothing.

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
    """Take a signal in."""
    now = time.monotonic()
    if _request.number is not None:
        if now - _request.since >= REPEAT_SECONDS:
            os._exit(128 + number)
        return
    _request.number, _request.since = number, now
    if not _request.num_holds:
        raise_request()
    if os.environ.get("LOCAL_RANK", "0") == "0":
        # Not by way of sys.stderr: the signal may have come in the middle of another line.
        with contextlib.suppress(OSError):
            os.write(2, HELD)


def is_watched() -> bool:
    """Tell whether signals wait for the end of blocks that hold them, so that nothing breaks one off."""
    return _request.is_watched


def find_request() -> int | None:
    """Give the number of the signal that asked this process to end; None where none did."""
    return _request.number


def raise_request(number: int | None = None, *, is_done: bool = False) -> None:
    """End here where a signal asked for it.

    Args:
        number: The signal that another process of the same run was sent; None to ask of this one alone.
        is_done: Whether everything is finished.

    Raises:
        Stopped: A signal came.
    """
    if found := number or _request.number:
        _request.is_raised = True
        raise Stopped(found, is_done=is_done)


@contextlib.contextmanager
def hold_signals(*, is_last: bool = False) -> Iterator[None]:
    """Let signals wait until the end of a block that must not be broken off; it should be short.

    Args:
        is_last: Whether everything is finished with the block.

    Yields:
        Nothing.

    Raises:
        Stopped: A signal came meanwhile, and no other block around this one holds it.

    Example:
        >>> with hold_signals():
        ...     pass
    """
    _request.num_holds += 1
    try:
        yield
    finally:
        _request.num_holds -= 1
    # What was raised before and is on its way up is not raised a second time.
    if not _request.num_holds and not _request.is_raised:
        raise_request(is_done=is_last)
