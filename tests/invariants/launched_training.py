"""Run under `accelerate launch`: trains a few steps and saves the weights that process 0 ends with."""

import sys
from pathlib import Path

from safetensors.torch import save_file

from tests.invariants.gradient_case import train_case

if __name__ == "__main__":
    encoder, out, microbatch = sys.argv[1:4]
    weights, processes = train_case(Path(encoder), None if microbatch == "none" else int(microbatch))
    if processes[1] == 0:
        save_file({**weights}, out, metadata={"processes": str(processes[0])})
