"""Run a suite: every contender of a job in turn, each in a process of its own, round after round."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from nlp_transfer.benchmarks.runners import Bench, Task, run_contender
from nlp_transfer.benchmarks.suite import Contender, Suite
from nlp_transfer.data.sources import open_source
from nlp_transfer.errors import DataError, OutputError, name_cause
from nlp_transfer.files import explain_writing
from nlp_transfer.publishing.artifact import write_atomically
from nlp_transfer.recipe.schema import DataConfig

__all__ = ["Bench", "prepare_rows", "run_suite"]

MODEL = "model"
"""Name of what is trained once for those that predict."""


def run_suite(suite: Suite, bench: Bench, *, say: Callable[[str], None] = lambda _: None) -> list[dict[str, Any]]:
    """Run what is not there yet, and give everything that is.

    The contenders of a job take turns: first to last in one round, last to first in the next, whatever the seeds of
    the rounds are, so that what slows the machine slows them alike. Only where one needs another's artefact of the
    same round does their order stay.

    Args:
        suite: Jobs and contenders.
        bench: Where and how.
        say: Told what is run and what it gave.

    Returns:
        One record a job, contender and round, in the order of the suite: ``job``, ``contender``, ``round``,
        ``accuracy`` on test, ``seconds`` of training or predicting, and where they are known
        ``examples_per_second``, ``tokens_per_second``, ``padding_share``, ``trainable_share``, ``saved_bytes``,
        ``peak_memory_bytes``, ``told_peak_bytes`` (see `run_contender`) and the labels that were ``predicted``.

    Raises:
        DataError: A set is missing.
        TransferError: A contender failed.
        OutputError: What is there was found with other settings.
        StorageError: The disk failed.
    """
    records = []
    for turn, number in enumerate(bench.rounds, start=bench.rounds[0]):
        for job in suite.jobs:
            names = [name for name in suite.contenders if name not in suite.jobs[job].skip]
            is_chain = any(suite.find(job, name).after for name in names)
            for name in names if turn % 2 == 0 or is_chain else reversed(names):
                records.append(_find_record(suite, bench, job, name, number, say))  # noqa: PERF401 - a run each
    jobs, everyone = list(suite.jobs), list(suite.contenders)
    return sorted(records, key=lambda r: (jobs.index(r["job"]), everyone.index(r["contender"]), r["round"]))


def _find_record(
    suite: Suite, bench: Bench, job: str, name: str, number: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Read what a contender reached on a job in a round, or run it."""
    contender, folder = suite.find(job, name), bench.out / job
    is_start = any(suite.find(job, other).after == name for other in suite.contenders)
    model = suite.jobs[job].model
    task = Task(
        rows=prepare_rows(bench.data / suite.jobs[job].data, bench.out / "data", suite.jobs[job].rows),
        bench=bench,
        seed=number,
        start=folder / "artifacts" / f"{contender.after}-{number}",
        keep=folder / "artifacts" / f"{name}-{number}" if is_start else None,
        model=folder / "artifacts" / f"{MODEL}-0" if contender.predicts else None,
    )
    settings = {"rows": suite.jobs[job].rows, "encoder": bench.encoder}
    if task.model is not None and model is not None:
        _run_unless_there(model, replace(task, seed=0, keep=task.model, model=None), folder, MODEL, settings, say)
        settings = {**settings, "model": model.model_dump(exclude_defaults=True)}
    return _run_unless_there(contender, task, folder, name, settings, say)


def _run_unless_there(
    contender: Contender, task: Task, folder: Path, name: str, settings: dict[str, Any], say: Callable[[str], None]
) -> dict[str, Any]:
    """Run a contender and keep its record, or read the one that is there."""
    settings = {**contender.model_dump(exclude_defaults=True), **settings}
    place = folder / f"{name}-{task.seed}.json"
    if not place.is_file() or (task.keep is not None and not task.keep.is_dir()):
        say(f"{folder.name}, round {task.seed}: {name}")
        found = run_contender(contender, task)
        record = {"job": folder.name, "contender": name, "round": task.seed, "settings": settings, **found}
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
        way_out = "Free space, or name another --out."
        raise explain_writing(folder, error, way_out=way_out, elsewhere="name another --out") from error
    return folder


def _read(place: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Read a record back, and hold its settings against those of today."""
    try:
        record: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OutputError(f"{place}: cannot be read: {name_cause(error)}. Remove it, and it is run again.") from error
    if record.get("settings") != settings:
        raise OutputError(f"{place}: was found with other settings than the suite has now. Remove it, or change --out.")
    return record
