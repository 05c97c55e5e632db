"""Run a command and say, as a last line of JSON on stdout, how large its process became.

Run as ``python -m nlp_transfer.benchmarks.launch COMMAND ...``. A program asked for its own ``ru_maxrss`` is no fair
measure: Linux carries the peak of whoever started it over into it, so a large program would lend its size to every
contender. This one is small, and it asks for the peak of what it waited for, which is the same measure for everyone.
"""

import json
import signal
import subprocess
import sys

__all__ = ["main", "read_peak"]

KEY = "peak_resident_bytes"
"""Names the last line."""


def main() -> int:
    """Run the command that is given and pass its exit status on."""
    with subprocess.Popen(sys.argv[1:]) as process:
        for number in (signal.SIGTERM, signal.SIGINT):
            # What ends this process is meant for that one, which may have something to put in order.
            signal.signal(number, lambda number, _: process.send_signal(number))
        status = process.wait()
    sys.stdout.write(f"\n{json.dumps({KEY: _measure_children()})}\n")
    # A shell's way to say that a signal ended it.
    return status if status >= 0 else 128 - status


def read_peak(said: str) -> int | None:
    r"""Find the size in what a launched command wrote.

    Args:
        said: Its stdout.

    Returns:
        Bytes of the largest process of the command, at its largest; None where the system
        does not tell, or the command was not launched from here.

    Example:
        >>> read_peak('working\n{"peak_resident_bytes": 2048}\n'), read_peak("working")
        (2048, None)
    """
    for line in reversed(said.splitlines()):
        if line.startswith(f'{{"{KEY}"'):
            peak: int | None = json.loads(line)[KEY]
            return peak
    return None


def _measure_children() -> int | None:
    """Largest resident size among the processes that were waited for."""
    try:
        import resource
    except ImportError:  # Windows has no such count
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit


if __name__ == "__main__":
    sys.exit(main())
