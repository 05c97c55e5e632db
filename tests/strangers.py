"""Processes that have never heard of this package: copies of one that has imported transformers and nothing of ours."""

import os
from pathlib import Path

from tests.companions import Companion

__all__ = ["Strangers"]

_ANCESTOR = r"""
import json, os, sys, torch, traceback, transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
torch.set_num_threads(1)
assert "nlp_transfer" not in sys.modules
for line in sys.stdin:
    task = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.chdir(task["folder"])
        sys.path[:0] = task["path"]
        sys.argv = ["stranger", *task["arguments"]]
        sys.stdin.close()
        try:
            exec(compile(task["script"], "stranger", "exec"), {"__name__": "__main__"})
        except BaseException:
            with open(task["failure"], "w") as file:
                traceback.print_exc(file=file)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)
"""


class Strangers(Companion):
    """Runs scripts, each in a copy of a process that only imported torch and transformers.

    What takes a new process longest is to import those two; a copy has them, and shares nothing with its siblings.
    """

    def __init__(self) -> None:
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        super().__init__(_ANCESTOR, environment)

    def run(self, script: str, arguments: list[str], folder: Path, path: list[str]) -> None:
        """Run a script in a copy; its printing is not kept.

        Args:
            script: Python code.
            arguments: Its ``sys.argv[1:]``.
            folder: Where it runs.
            path: What goes before its ``sys.path``.
        """
        failure = folder / "failure.txt"
        task = {"script": script, "arguments": arguments, "folder": str(folder), "path": path, "failure": str(failure)}
        answer = self.ask(task)
        assert answer.strip() == "0", failure.read_text(encoding="utf-8")[-3000:] if failure.exists() else answer
