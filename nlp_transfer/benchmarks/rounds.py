"""Run a suite: every contender of a job in turn, each in a process of its own, round after round."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from nlp_transfer.benchmarks.suite import Contender, Suite
from nlp_transfer.data.sources import open_source
from nlp_transfer.errors import DataError, OutputError, StorageError, TransferError
from nlp_transfer.models.sources import resolve_encoder
from nlp_transfer.publishing.artifact import write_atomically
from nlp_transfer.recipe.schema import DataConfig, EncoderConfig
from nlp_transfer.recipe.shipped import locate_shipped

__all__ = ["Bench", "prepare_rows", "run_suite"]


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


def run_suite(suite: Suite, bench: Bench, *, say: Callable[[str], None] = lambda _: None) -> list[dict[str, Any]]:
    """Run what is not there yet, and give everything that is.

    The contenders of a job take turns: first to last in one round, last to first in the next (as far as one does not
    need another's artefact), so that what slows the machine slows them alike.

    Args:
        suite: Jobs and contenders.
        bench: Where and how.
        say: Told what is run and what it gave.

    Returns:
        One record a job, contender and round, in the order of the suite: ``job``, ``contender``, ``round``,
        ``accuracy`` on test, ``seconds`` of training, and where they are known ``examples_per_second``,
        ``trainable_share``, ``saved_bytes`` and ``peak_memory_bytes``.

    Raises:
        DataError: A set is missing.
        TransferError: A contender failed.
        OutputError: What is there was found with other settings.
        StorageError: The disk failed.
    """
    records = []
    for number in bench.rounds:
        for job in suite.jobs:
            names = [name for name in suite.contenders if name not in suite.jobs[job].skip]
            is_chain = any(suite.find(job, name).after for name in names)
            for name in names if number % 2 == 0 or is_chain else reversed(names):
                records.append(_find_record(suite, bench, job, name, number, say))  # noqa: PERF401 - a run each
    jobs, everyone = list(suite.jobs), list(suite.contenders)
    return sorted(records, key=lambda r: (jobs.index(r["job"]), everyone.index(r["contender"]), r["round"]))


def _find_record(
    suite: Suite, bench: Bench, job: str, name: str, number: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Read what a contender reached on a job in a round, or run it."""
    contender, shortened = suite.find(job, name), suite.jobs[job].rows
    settings = {**contender.model_dump(exclude_defaults=True), "rows": shortened, "encoder": bench.encoder}
    folder = bench.out / job
    place = folder / f"{name}-{number}.json"
    is_start = any(suite.find(job, other).after == name for other in suite.contenders)
    kept = folder / "artifacts" / f"{name}-{number}" if is_start else None
    if not place.is_file() or (kept is not None and not kept.is_dir()):
        rows = prepare_rows(bench.data / suite.jobs[job].data, bench.out / "data", shortened)
        say(f"{job}, round {number}: {name}")
        start = folder / "artifacts" / f"{contender.after}-{number}"
        found = _run_one(contender, rows, bench, number, start=start, keep=kept)
        record = {"job": job, "contender": name, "round": number, "settings": settings, **found}
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(place, json.dumps(record, indent=2) + "\n")
        say(f"  accuracy {found['accuracy']:.4f}, {found['seconds']:.1f} s")
    return _read(place, settings)


def prepare_rows(source: Path, target: Path, rows: dict[Any, int]) -> Path:
    """Give a folder of the splits, some of them shortened to the first rows of ``split.shuffle(seed=0)``.

    Args:
        source: Folder of splits.
        target: Where shortened copies go; named after the source and the counts.
        rows: Split to the most rows of it.

    Returns:
        The source itself, or the copy.

    Raises:
        DataError: There is no such folder.
        StorageError: The disk failed.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder. Name the folder that holds it with --data.")
    if not rows:
        return source
    folder = target / "-".join([source.name, *(f"{split}{count}" for split, count in sorted(rows.items()))])
    done = folder / "done"
    if done.is_file():
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for split, table in open_source(DataConfig(path=str(source))).tables.items():
            if split in rows:
                table = table.shuffle(seed=0).select(range(min(rows[split], table.num_rows)))
            pq.write_table(table.with_format("arrow")[:], folder / f"{split}.parquet")
        done.touch()
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error}. Free space, or name another --out.") from error
    return folder


def _run_one(
    contender: Contender, rows: Path, bench: Bench, seed: int, *, start: Path, keep: Path | None
) -> dict[str, Any]:
    """Run one contender once in a process of its own."""
    if contender.peer is not None:
        return _run_peer(contender, rows, bench, seed)
    with tempfile.TemporaryDirectory(prefix="nlp_transfer-bench-") as folder:
        out = Path(folder) / "run"
        options = [
            f"data.path={rows}",
            f"encoder.name={bench.encoder}",
            *(each.replace("{after}", str(start)) for each in contender.overrides),
            f"training.seed={seed}",
            "training.seeds=null",
            f"report.output_dir={out}",
        ]
        _call([sys.executable, "-m", "nlp_transfer", "run", str(contender.recipe), *options], str(contender.recipe))
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        if keep is not None:
            shutil.rmtree(keep, ignore_errors=True)
            shutil.copytree(out, keep)
    return _summarize(report)


def _summarize(report: dict[str, Any]) -> dict[str, Any]:
    """What a suite keeps of a report."""
    model, training = report["model"], report["training"]
    return {
        "accuracy": report["scores"]["test"]["accuracy"]["value"],
        "seconds": training["seconds"],
        "examples_per_second": training["examples_per_second"],
        "trainable_share": model["trainable"] / model["parameters"],
        "saved_bytes": model["saved_bytes"],
        "peak_memory_bytes": training["peak_memory_bytes"],
        "environment": report["environment"],
    }


def _run_peer(contender: Contender, rows: Path, bench: Bench, seed: int) -> dict[str, Any]:
    """Run a peer's script, whose last line of JSON says what it reached."""
    script = (bench.peers or locate_shipped() / "benchmarks" / "peers") / f"peer_{contender.peer}.py"
    if not script.is_file():
        raise DataError(f"{script}: no such script. Name the folder of the peers' scripts with --peers.")
    encoder = resolve_encoder(EncoderConfig(name=bench.encoder)).location
    options = ["--data", str(rows), "--encoder", encoder, "--seed", str(seed), *contender.arguments]
    lines = _call([bench.python, str(script), *options], script.stem).splitlines()
    for line in reversed(lines):
        if line.startswith("{") and '"peer"' in line:
            found = json.loads(line)
            return {
                "accuracy": found["test_accuracy"],
                "seconds": found["train_seconds"],
                "examples_per_second": found.get("train_examples_per_second"),
                "peak_memory_bytes": found.get("peak_memory_bytes"),
            }
    raise TransferError(f"{script}: expected a line of JSON with what it reached, came none. Run it by hand.")


def _call(command: list[str], name: str) -> str:
    """Run a command and give what it prints; its last words where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"})
    except OSError as error:
        raise TransferError(f"{command[0]}: cannot be run: {error}. Name an interpreter with --python.") from error
    if done.returncode:
        last = [line.strip() for line in done.stderr.splitlines() if line.strip()][-1:] or ["it said nothing"]
        raise TransferError(f"{name}: ended with status {done.returncode}: {last[0]}")
    return done.stdout


def _read(place: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Read a record back, and hold its settings against those of today."""
    try:
        record: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OutputError(f"{place}: cannot be read: {error}. Remove it, and it is run again.") from error
    if record.get("settings") != settings:
        raise OutputError(f"{place}: was found with other settings than the suite has now. Remove it, or change --out.")
    return record
