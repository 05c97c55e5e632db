"""A process that has everything imported and runs recipes in children of its own, some of which kill themselves.

Each line on stdin is the path of a recipe, or that and when its child is to die, parted by tabs: at which of its
changes on the disk, and how many calls of functions later. The answer is the number of the child. An empty line asks
how the last child ended. Beside the recipe of a child that came to its end lies the count of its changes.
"""

import os
import signal
import sys
from pathlib import Path

from nlp_transfer.runs.pipeline import run
from tests.invariants.forking import prepare_to_fork

CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")
"""Audit events of Python that change what is on the disk, beside those of opening a file to write."""


class Reaper:
    """Counts the changes that this process makes on the disk, and kills it as by `kill -9` when its time has come.

    What a killed run leaves is what is on the disk, so its changes are the clock: they come as often on a busy machine.

    Args:
        last: The change at which the process dies; none by default.
        calls: How many calls of functions later it does, which may be in the middle of writing.
    """

    def __init__(self, last: int | None = None, calls: int = 0) -> None:
        self.last, self.calls = last, calls
        self.count = 0

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        """Take an audit event."""
        if event == "open":
            flags = arguments[2]
            is_change = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            is_change = event in CHANGES
        if is_change:
            self.count += 1
            if self.count == self.last:
                sys.setprofile(self.wait)

    def wait(self, *_: object) -> None:
        """Take a call of a function, or its end."""
        self.calls -= 1
        if self.calls <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Serve until stdin ends."""
    prepare_to_fork()
    child = 0
    for line in sys.stdin:
        if line.strip():
            child = os.fork()
            if child == 0:
                # What the child says would be taken for an answer.
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                recipe, *moment = line.strip().split("\t")
                reaper = Reaper(*map(int, moment))
                sys.addaudithook(reaper.hear)
                run(recipe, progress=False)
                Path(recipe).with_suffix(".changes").write_text(str(reaper.count), encoding="utf-8")
                os._exit(0)
            answer = child
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
