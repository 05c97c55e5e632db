"""Run one contender of a suite once, in a process of its own."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nlp_transfer.benchmarks.launch import read_peak
from nlp_transfer.benchmarks.suite import Contender
from nlp_transfer.data.tables import read_table
from nlp_transfer.errors import DataError, TransferError
from nlp_transfer.files import copy_folder
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.recipe.schema import EncoderConfig
from nlp_transfer.recipe.shipped import locate_shipped

__all__ = ["Bench", "Task", "call_script", "run_contender"]

SAID = ("precision", "device", "threads", "processes", "told_peak_bytes")
"""What a script may say of how it computed."""


END_SECONDS = 20.0
"""Time that a contender has to come to an end; chosen."""


@dataclass(frozen=True)
class Bench:
    """Where and how a suite is run.

    Attributes:
        data: Folder whose subfolders hold the splits.
        out: Folder for what is found; what stands there is not run again.
        encoder: Encoder of every contender.
        peers: Folder of the peers' scripts, ``peer_NAME.py`` each; the shipped ones where None.
        python: Interpreter for the peers, whose libraries need not be installed beside this package's.
        rounds: Numbers of the rounds; round r has seed r.
    """

    data: Path
    out: Path
    encoder: str = "minilm-l6"
    peers: Path | None = None
    python: str = sys.executable
    rounds: Sequence[int] = (0,)


@dataclass(frozen=True)
class Task:
    """What a contender is given.

    Attributes:
        rows: Folder of splits.
        bench: Where and how the suite is run.
        seed: Of the round.
        start: Folder of the run that this one starts from.
        keep: Where the run's folder is to stay; None where it is not needed again.
        model: Folder of the run whose model predicts; None where something is trained.
    """

    rows: Path
    bench: Bench
    seed: int
    start: Path
    keep: Path | None
    model: Path | None


def run_contender(contender: Contender, task: Task) -> dict[str, Any]:
    """Run a contender.

    Args:
        contender: The job's own options added.
        task: What it is given.

    Returns:
        ``accuracy`` on test, ``seconds``, and what else is known. ``peak_memory_bytes`` is what the GPU's allocator
        held at most where a GPU was used, else the largest resident size of the contender's process from start to
        end, asked of the system from outside and so in one measure for all. ``told_peak_bytes`` is what it said
        itself, ours of training alone, where it says something.

    Raises:
        DataError: A peer's script is missing.
        TransferError: It failed, or did not say what it reached.
    """
    if task.model is not None:
        return _predict(contender, task)
    return _train(contender, task) if contender.recipe is not None else _train_peer(contender, task)


def _train(contender: Contender, task: Task) -> dict[str, Any]:
    """Run a recipe."""
    with tempfile.TemporaryDirectory(prefix="nlp_transfer-bench-") as folder:
        out = Path(folder) / "run"
        options = [
            f"data.path={task.rows}",
            f"encoder.name={task.bench.encoder}",
            *(each.replace("{after}", str(task.start)) for each in contender.overrides),
            f"training.seed={task.seed}",
            "training.seeds=null",
            f"report.output_dir={out}",
        ]
        start = [sys.executable, "-m", *_launch_processes(contender.processes), "nlp_transfer", "run"]
        # Vectors that an earlier round kept would make this one look faster than it is.
        fresh = {"HF_DATASETS_CACHE": str(Path(folder) / "cache")}
        said = _call([*start, str(contender.recipe), *options], str(contender.recipe), fresh)
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        if task.keep is not None:
            shutil.rmtree(task.keep, ignore_errors=True)
            copy_folder(out, task.keep)
    model, training = report["model"], report["training"]
    return {
        "accuracy": report["scores"]["test"]["accuracy"]["value"],
        "seconds": training["seconds"],
        "examples_per_second": training["examples_per_second"],
        "tokens_per_second": training["tokens_per_second"],
        "padding_share": training["padding_share"],
        "trainable_share": model["trainable"] / model["parameters"],
        "saved_bytes": model["saved_bytes"],
        "peak_memory_bytes": _choose_peak(
            training["peak_memory_bytes"], report["environment"]["device"] not in ("cpu", "mps"), said
        ),
        "told_peak_bytes": training["peak_memory_bytes"],
        "environment": report["environment"],
    }


def _train_peer(contender: Contender, task: Task) -> dict[str, Any]:
    """Run a peer that trains."""
    encoder = resolve_encoder(EncoderConfig(name=task.bench.encoder)).location
    options = ["--data", str(task.rows), "--encoder", encoder, "--seed", str(task.seed), *contender.arguments]
    found = call_script([task.bench.python, str(_find_script(contender, task)), *options])
    return {
        "accuracy": found["test_accuracy"],
        "seconds": found["train_seconds"],
        "examples_per_second": found.get("train_examples_per_second"),
        "peak_memory_bytes": found["peak_memory_bytes"],
        **{key: found[key] for key in SAID if key in found},
    }


def _predict(contender: Contender, task: Task) -> dict[str, Any]:
    """Let a contender name the labels of test with the job's model."""
    assert task.model is not None
    test = task.rows / "test.parquet"
    with tempfile.TemporaryDirectory(prefix="nlp_transfer-bench-") as folder:
        answers = Path(folder) / "labels.txt"
        options = ["--model", str(task.model / "model"), "--data", str(test), "--out", str(answers)]
        if contender.predictor is not None:
            command = [sys.executable, "-m", "nlp_transfer.benchmarks.prediction"]
        else:
            command = [task.bench.python, str(_find_script(contender, task))]
        found = call_script([*command, *options, *contender.arguments])
        predicted = answers.read_text(encoding="utf-8").splitlines()
    labels = [str(label) for label in read_table(test)["label"]]
    if len(predicted) != len(labels):
        raise TransferError(f"{command[-1]}: expected {len(labels)} labels, got {len(predicted)}.")
    return {
        "accuracy": sum(map(str.__eq__, predicted, labels)) / len(labels),
        "seconds": found["texts"] / found["texts_per_second"],
        "examples_per_second": found["texts_per_second"],
        "peak_memory_bytes": found["peak_memory_bytes"],
        "predicted": predicted,
        **{key: found[key] for key in SAID if key in found},
    }


def _find_script(contender: Contender, task: Task) -> Path:
    """The script of a peer."""
    script = (task.bench.peers or locate_shipped() / "benchmarks" / "peers") / f"peer_{contender.peer}.py"
    if not script.is_file():
        raise DataError(f"{script}: no such script. Name the folder of the peers' scripts with --peers.")
    return script


def call_script(command: list[str]) -> dict[str, Any]:
    """Run a script, whose last line of JSON says what it reached.

    Args:
        command: Interpreter, script or module, and options.

    Returns:
        What it said, with ``peak_memory_bytes`` in the measure of `run_contender`; None where nothing is known.

    Raises:
        TransferError: It failed, or said nothing.
    """
    name = Path(command[1]).stem if command[1] != "-m" else command[2]
    said = _call(command, name)
    for line in reversed(said.splitlines()):
        if line.startswith("{") and any(f'"{key}"' in line for key in ("peer", "flop_per_second")):
            found: dict[str, Any] = json.loads(line)
            # Peers that run on a GPU name its allocator's peak in one of two ways, the second beside their own size.
            held = found.get("peak_gpu_bytes")
            on_gpu = held is not None or found.get("device", "cpu") == "cuda"
            told = held or found.get("peak_memory_bytes")
            return {**found, "told_peak_bytes": told, "peak_memory_bytes": _choose_peak(told, on_gpu, said)}
    raise TransferError(f"{command[1]}: expected a line of JSON with what it reached, came none. Run it by hand.")


def _choose_peak(told: int | None, on_gpu: bool, said: str) -> int | None:
    """The peak that the contender tells where it is a GPU's, else the one measured from outside, if there is one."""
    outside = read_peak(said)
    return told if on_gpu or outside is None else outside


def _launch_processes(count: int) -> list[str]:
    """What stands before the module's name where several processes train together."""
    if count == 1:
        return []
    # Accelerate's own CPU launcher wants MPI; the one for several devices starts processes that meet by gloo as well.
    # Port 0: any that is free, where another run on this machine may have the default one.
    options = ["--multi_gpu", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    return ["accelerate.commands.launch", *options, "--main_process_port=0", f"--num_processes={count}", "-m"]


def _call(command: list[str], name: str, variables: Mapping[str, str] = MappingProxyType({})) -> str:
    """Run a command by way of `launch` and give what it prints; its last words where it fails."""
    if shutil.which(command[0]) is None:
        raise TransferError(f"{command[0]}: cannot be run: no such program. Name an interpreter with --python.")
    launched = [sys.executable, "-m", "nlp_transfer.benchmarks.launch", *command]
    environment = {**os.environ, "COLUMNS": "200", **variables}
    pipe = subprocess.PIPE
    with subprocess.Popen(launched, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        try:
            out, err = process.communicate()
        finally:
            # Whatever broke the waiting off: nobody would wait for it any more.
            if process.returncode is None:
                _end(process)
    if process.returncode:
        last = [line.strip() for line in err.splitlines() if line.strip()][-1:] or ["it said nothing"]
        raise TransferError(f"{name}: ended with status {process.returncode}: {last[0]}")
    return out


def _end(process: subprocess.Popen[str]) -> None:
    """End a contender by way of `launch`: one that does not come to an end is asked again, then killed."""
    for ask in (process.terminate, process.terminate, process.kill):
        ask()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=END_SECONDS)
            return
