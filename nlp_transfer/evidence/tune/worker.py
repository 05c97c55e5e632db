"""Several processes at work on one search; they know of each other through the file of trials alone.

Run as ``python -m nlp_transfer.evidence.tune.worker FOLDER SETTINGS`` by `run_workers`.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from rich.console import Console

from nlp_transfer.engine.precision import keep_measured
from nlp_transfer.errors import TransferError
from nlp_transfer.evidence.tune.runner import Runner, describe_trial, open_book
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.runs.ownership import MACHINE_FILE
from nlp_transfer.runs.pipeline import prepare

__all__ = ["main", "run_workers"]

POLL_SECONDS = 0.5
MOST_LETTERS = 500
"""Of what a process said before it failed; chosen."""


def run_workers(runner: Runner, jobs: int, seed: int) -> None:
    """Run the trials of a search in processes of their own, and show them as they end.

    Args:
        runner: The search, which this process runs no trial of.
        jobs: How many processes.
        seed: Of the search.

    Raises:
        TransferError: A process failed; the others are stopped, and the search can go on.
    """
    deadline = None if runner.deadline == float("inf") else runner.deadline
    settings = {
        "seed": seed,
        "deadline": deadline,
        "num_after": runner.num_after,
        "num_trials": runner.num_trials,
        "started": runner.started,
        # Told, not asked for by the worker: it may be orphaned before its imports are through.
        "parent": os.getpid(),
    }
    command = [sys.executable, "-m", "nlp_transfer.evidence.tune.worker", str(runner.book.folder), json.dumps(settings)]
    environment = {**os.environ}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, _count_cores() // jobs)))
    logs = [runner.book.folder / f".worker-{number}.log" for number in range(jobs)]
    workers: list[subprocess.Popen[bytes]] = []
    shown = {each.index for each in runner.book.read() if each.state != "interrupted"}
    try:
        for log in logs:
            with log.open("wb") as file:
                workers.append(subprocess.Popen(command, env=environment, stdout=file, stderr=file))
        while any(worker.poll() is None for worker in workers):
            time.sleep(POLL_SECONDS)
            _show_ended(runner, shown)
            failed = next((number for number, worker in enumerate(workers) if worker.poll()), None)
            if failed is not None:
                break
        _show_ended(runner, shown)
        for worker, log in zip(workers, logs, strict=True):
            if worker.poll():
                said = log.read_text(encoding="utf-8", errors="replace").strip()[-MOST_LETTERS:]
                raise TransferError(
                    f"--jobs: a process of the search ended with status {worker.returncode}: {said or 'no message'}. "
                    "Give the same command to go on, with fewer --jobs where memory was short."
                )
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
        for log in logs:
            log.unlink(missing_ok=True)
        runner.book.release_lost()


def _show_ended(runner: Runner, shown: set[int]) -> None:
    """Say which trials ended since the last time."""
    best = runner.book.find_best()
    for tried in runner.book.read():
        if tried.index not in shown and tried.state not in ("running", "interrupted"):
            shown.add(tried.index)
            line = describe_trial(tried, runner.recipe, best)
            runner.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end_with(parent: int) -> None:
    """End this process as soon as the one that started it is gone, killed perhaps, at whatever it is."""
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)


def main() -> int:
    """Run trials of a search that another process has laid out; gives the exit status."""
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    threading.Thread(target=_end_with, args=(settings["parent"],), daemon=True).start()
    quiet = Console(quiet=True)
    try:
        recipe = load_recipe(folder / "recipe.yaml")
        seed = (recipe.training.seeds or [recipe.training.seed])[0]
        spaces = prepare(recipe, [seed], None, quiet)
        runner = Runner(
            recipe,
            spaces,
            open_book(recipe, folder, int(settings["seed"]), spaces[seed]),
            quiet,
            deadline=float("inf") if settings["deadline"] is None else float(settings["deadline"]),
            num_after=int(settings["num_after"]),
            num_trials=settings["num_trials"],
            parent=int(settings["parent"]),
            started=float(settings["started"]),
        )
        with keep_measured(folder / MACHINE_FILE):
            runner.run_all()
    except TransferError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
