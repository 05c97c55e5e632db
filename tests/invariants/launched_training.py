"""Run under `accelerate launch`: trains a few steps, saves the weights of process 0, then goes through a whole run."""

import json
import runpy
import sys
from pathlib import Path

from safetensors.torch import save_file

from tests.invariants.gradient_case import train_case

if __name__ == "__main__":
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if "weights" in task:
        weights, processes = train_case(Path(task["encoder"]), task["microbatch_size"])
        if processes[1] == 0:
            save_file({**weights}, task["weights"], metadata={"processes": str(processes[0])})
    if "recipe" in task:
        sys.argv = ["nlp-transfer", "run", task["recipe"]]
        runpy.run_module("nlp_transfer", run_name="__main__")
