"""A process that has everything imported and runs commands in children of its own, which a test then asks to end.

It writes 0 when it is ready. Then each line on stdin is a command line as a list of JSON; the answer is the number of
the child that runs it. An empty line asks how the last child ended: its exit status, or less than 0 the number of the
signal that killed it.
"""

import json
import os
import sys
from importlib import import_module

from nlp_transfer import cli
from nlp_transfer.engine.machine import compare_formats
from tests.invariants.forking import prepare_to_fork

LATE = (
    "nlp_transfer.evidence.compare.command",
    "nlp_transfer.evidence.tune.command",
    "optuna",
    "sklearn.feature_extraction.text",
)
"""What these commands import when they need it, beside what every run does."""


def call(arguments: list[str]) -> int:
    """Run a command line; gives its exit status."""
    sys.argv = ["nlp-transfer", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    return 0


def main() -> None:
    """Serve until stdin ends."""
    for name in LATE:
        import_module(name)
    # Measured once: on a busy machine every child would measure again, and two might compute in two formats.
    compare_formats()
    prepare_to_fork()
    child = 0
    print(child, flush=True)
    for line in sys.stdin:
        if line.strip():
            child = os.fork()
            if child == 0:
                # What the child says would be taken for an answer.
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                status = call(json.loads(line))
                sys.stderr.flush()
                os._exit(status)
            answer = child
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
