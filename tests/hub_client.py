"""A process in which the real Hub client talks to a Hub of ours, and nothing else of the network."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from tests.companions import Companion

__all__ = ["TOKEN", "HubClient", "HubOutcome"]

TOKEN = "hf_" + "Planted" * 5
"""What the client sends; no file may hold it."""

ROOT = Path(__file__).parents[1]

_PROGRAM = r"""
import contextlib, io, json, sys, time, traceback
real_sleep = time.sleep
slept = []
def sleep(seconds):
    slept.append(seconds)
    real_sleep(min(seconds, 0.01))
time.sleep = sleep
answers = sys.stdout
for line in sys.stdin:
    task = json.loads(line)
    out, err, status = io.StringIO(), io.StringIO(), 0
    slept.clear()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if "argv" in task:
                from nlp_transfer import cli
                sys.argv = ["nlp-transfer", *task["argv"]]
                cli.main()
            else:
                exec(compile(task["script"], "script", "exec"), {"__name__": "__main__"})
        except SystemExit as stop:
            status = stop.code or 0
        except BaseException:
            status = 70
            traceback.print_exc()
    print(json.dumps([status, out.getvalue(), err.getvalue(), list(slept)]), file=answers, flush=True)
"""


@dataclass(frozen=True)
class HubOutcome:
    """What a call gave: exit status, stdout, stderr, and the pauses in seconds that it wanted."""

    status: int
    out: str
    err: str
    slept: list[float]


class HubClient(Companion):
    """A process of its own, because the client reads the Hub's address once, when it is imported.

    Args:
        url: Address of the Hub.
        cache: Folder of its cache.
        path: What PYTHONPATH is: without this package's folder, the process has not heard of it.
        offline: Whether HF_HUB_OFFLINE is set.
    """

    def __init__(self, url: str, cache: Path, *, path: str = str(ROOT), offline: bool = False) -> None:
        environment = os.environ | {
            "HF_ENDPOINT": url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_OFFLINE": str(int(offline)),
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(cache),
            "HF_HUB_CACHE": str(cache / "hub"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": path,
        }
        super().__init__(_PROGRAM, environment)

    def call(self, *argv: object) -> HubOutcome:
        """Call a command."""
        return HubOutcome(*json.loads(self.ask({"argv": [str(each) for each in argv]})))

    def run(self, script: str) -> HubOutcome:
        """Run a script."""
        return HubOutcome(*json.loads(self.ask({"script": script})))
