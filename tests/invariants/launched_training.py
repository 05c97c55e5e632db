"""Run under `accelerate launch`: trains a few steps, saves the weights of process 0, then goes through a whole run."""

import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from safetensors.torch import save_file

from nlp_transfer.engine.train.loop import _Loop
from tests.contracts.test_methods import train_plainly
from tests.invariants.gradient_case import train_case


def send_signal(rank: int, step: int) -> None:
    """Have one process ask itself to end, in the middle of an update."""
    add_gradients = _Loop.add_gradients

    def break_in(self: Any, window: np.ndarray) -> Any:
        if self.state.log.steps == step and self.accelerator.process_index == rank:
            os.kill(os.getpid(), signal.SIGTERM)
        return add_gradients(self, window)

    _Loop.add_gradients = break_in  # type: ignore[method-assign]


if __name__ == "__main__":
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if "weights" in task:
        weights, processes = train_case(Path(task["encoder"]), task["microbatch_size"])
        if processes[1] == 0:
            save_file({**weights}, task["weights"], metadata={"processes": str(processes[0])})
    if "method" in task:
        found = train_plainly(Path(task["encoder"]), task["method"])
        if PartialState().process_index == 0:
            save_file(found, task["out"], metadata={"processes": str(PartialState().num_processes)})
    if "signal" in task:
        send_signal(**task["signal"])
    if "recipe" in task:
        sys.argv = ["nlp-transfer", "run", task["recipe"]]
        runpy.run_module("nlp_transfer", run_name="__main__")
