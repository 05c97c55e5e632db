"""A process that has everything imported and runs recipes in children of its own, which a test then kills.

Each line on stdin is the path of a recipe; the answer is the number of the child that runs it. An empty line asks how
the last child ended.
"""

import os
import sys

from nlp_transfer.pipeline import run


def main() -> None:
    """Serve until stdin ends."""
    child = 0
    for line in sys.stdin:
        if line.strip():
            child = os.fork()
            if child == 0:
                # What the child says would be taken for an answer.
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                run(line.strip(), progress=False)
                os._exit(0)
            answer = child
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
