"""Two processes under `accelerate launch`."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


def launch(folder: Path, task: Mapping[str, object], *, ends_well: bool = True) -> str:
    """Run `launched_training` in two processes.

    Args:
        folder: Where they run and the task is written.
        task: What they are to do.
        ends_well: Whether they are to end with 0.

    Returns:
        What they wrote to stderr.
    """
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
    # accelerate's own CPU launcher wants MPI; its launcher for several devices starts processes for gloo as well.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command += ["-m", "tests.invariants.launched_training", str(folder / "task.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode == 0) == ends_well, done.stderr[-3000:]
    return done.stderr
