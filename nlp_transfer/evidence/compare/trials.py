"""One fit of the ladder: run it or read it back, and hold its predictions against the rows they must be of."""

import json
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import psutil
import torch

from nlp_transfer.contracts import LabelSpace, Splits
from nlp_transfer.errors import OutputError
from nlp_transfer.evaluation.baselines import MAX_FEATURES, predict_majority, score_tfidf
from nlp_transfer.evidence.clock import Clock, FitWatch
from nlp_transfer.evidence.compare.rungs import Rung
from nlp_transfer.models.digests import check_files, hash_files, open_record, seal_record
from nlp_transfer.publishing.artifact import write_atomically
from nlp_transfer.publishing.report.result import Report
from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.runs.ownership import list_differences
from nlp_transfer.runs.pipeline import run

__all__ = ["PeakMemory", "Reference", "Trial", "has_baseline", "read_trial", "run_baseline", "run_trial"]

MEASURED_FILE = "measured.json"
BASELINE_FILE = "predictions.npz"
WATCH_SECONDS = 0.02
"""Seconds between two readings of the memory; chosen."""

BYTES_PER_WEIGHT = 8
"""Of a linear model in float64."""

SCORED = ("validation", "test")


@dataclass(frozen=True)
class Reference:
    """The rows that every rung is scored on.

    Attributes:
        splits: Loaded tables.
        labels: Split name to labels, of train, validation and test.
        ids: Split name to row names, of validation and test.
    """

    splits: Splits
    labels: Mapping[str, np.ndarray]
    ids: Mapping[str, list[str]]

    @property
    def space(self) -> LabelSpace:
        """The label contract."""
        return self.splits.labels


@dataclass(frozen=True)
class Trial:
    """One fit and what it gave.

    Attributes:
        rung: Name of the rung.
        seed: Training seed.
        probabilities: ``validation`` and ``test`` to float64 (N, C).
        seconds: Wall time of all of it: loading, training, saving, predicting.
        training_seconds: Wall time of the training alone.
        peak_memory_bytes: Largest resident size of the process meanwhile, or of the GPU's allocator.
        parameters: Count of weights.
        trainable: Count of weights that were trained.
        saved_bytes: Size of what has to be kept to predict.
        examples: Labelled rows that it learned from.
        epochs: Passes over them.
        is_flat: Whether it gives every validation row the same class.
        folder: Of the run, where there is one.
        after_seconds: Wall time from the end of training to that of the run; None where it is not known.
    """

    rung: str
    seed: int
    probabilities: Mapping[str, np.ndarray]
    seconds: float
    training_seconds: float
    peak_memory_bytes: int
    parameters: int
    trainable: int
    saved_bytes: int
    examples: int
    epochs: float
    is_flat: bool
    folder: Path | None = None
    after_seconds: float | None = None


class PeakMemory:
    """Watches the memory of this process, or of its GPU, while a block runs.

    The kernel's own peak is that of the whole life of a process, so that every fit after a large one would show the
    large one's. Looking often misses nothing that lasts.

    Example:
        >>> with PeakMemory() as peak:
        ...     _ = bytearray(1_000)
        >>> peak.bytes > 1_000_000
        True
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._is_over = threading.Event()
        self._process = psutil.Process()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
        self._look()
        if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
            self.bytes = torch.cuda.max_memory_allocated()

    def _look(self) -> None:
        """Take the size of now, if it is larger."""
        self.bytes = max(self.bytes, int(self._process.memory_info().rss))

    def _watch(self) -> None:
        """Look until the block is over."""
        while not self._is_over.wait(WATCH_SECONDS):
            self._look()


def run_trial(
    rung: Rung, recipe: Recipe, reference: Reference, source: object | None, clock: Clock, after_seconds: float
) -> Trial:
    """Run one fit, or read it where it is finished.

    Args:
        rung: Which.
        recipe: Of the fit, with its folder.
        reference: The rows it must be scored on.
        source: Data in memory, where the recipe's path is none.
        clock: Says when it has to be through.
        after_seconds: What saving and predicting will take once it is trained.

    Returns:
        The trial.

    Raises:
        OutOfTimeError: It would not have ended in time, and was stopped.
        OutputError: The folder holds another run, or one scored on other rows.
    """
    folder = Path(recipe.report.output_dir)
    finished = read_trial(rung, recipe, reference)
    if finished is not None:
        return finished
    watch = FitWatch(time.monotonic() + clock.left - after_seconds)
    started = time.monotonic()
    with PeakMemory() as peak:
        report = run(recipe, data=source, progress=False, watch=watch)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    ended = time.monotonic()
    measured = {"seconds": ended - started, "peak_memory_bytes": peak.bytes}
    if watch.last is not None:
        measured["after_seconds"] = ended - watch.last
    write_atomically(folder / MEASURED_FILE, json.dumps(seal_record(measured)) + "\n")
    return _to_trial(rung, recipe, report, reference, measured)


def read_trial(rung: Rung, recipe: Recipe, reference: Reference) -> Trial | None:
    """Read a finished fit back; None where there is none.

    Args:
        rung: Which.
        recipe: What it must have been run with.
        reference: The rows it must have been scored on.

    Returns:
        The trial, or None.

    Raises:
        OutputError: The folder holds another run, or one scored on other rows.
    """
    folder = Path(recipe.report.output_dir)
    if not (folder / "report.json").is_file():
        return None
    report = Report.load(folder)
    differences = list_differences(_without_place(report.recipe), _without_place(recipe.model_dump(mode="json")))
    if differences:
        raise OutputError(f"out: {folder} holds another run ({', '.join(differences[:3])}). Name another folder.")
    measured = _read_measured(folder) if (folder / MEASURED_FILE).exists() else {}
    return _to_trial(rung, recipe, report, reference, measured)


def _read_measured(folder: Path) -> dict[str, Any]:
    """What was measured of a fit; what lies beside it is checked where it says."""
    path = folder / MEASURED_FILE
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise OutputError(f"out: {path} cannot be read. Remove {folder}: this part is run again.") from error
    measured, digests = open_record(content, path)
    expected = digests.get("files", {})
    check_files({name: folder / name for name in expected}, expected, record=path)
    return measured


def _without_place(content: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without its folder and without where its data lie, which may be named from elsewhere."""
    kept = {key: dict(value) if isinstance(value, Mapping) else value for key, value in content.items()}
    kept["report"].pop("output_dir", None)
    kept["data"].pop("path", None)
    return kept


def _to_trial(rung: Rung, recipe: Recipe, report: Report, reference: Reference, measured: Mapping[str, Any]) -> Trial:
    """Put together what a run left."""
    training, model = report.record["training"], report.record["model"]
    return Trial(
        rung=rung.name,
        seed=recipe.training.seed,
        probabilities=_read_probabilities(report, reference),
        # A run that was killed between its report and this file has only its own clock.
        seconds=float(measured.get("seconds", training["seconds"])),
        training_seconds=float(training["seconds"]),
        peak_memory_bytes=int(measured.get("peak_memory_bytes", training["peak_memory_bytes"])),
        parameters=int(model["parameters"]),
        trainable=int(model["trainable"]),
        saved_bytes=int(model["saved_bytes"]),
        examples=0 if rung.name == "zero_shot" else int(report.record["data"]["rows"]["train"]),
        epochs=float(training["epochs"]),
        is_flat=bool(training["collapsed"]),
        folder=Path(recipe.report.output_dir),
        after_seconds=measured.get("after_seconds"),
    )


def _read_probabilities(report: Report, reference: Reference) -> dict[str, np.ndarray]:
    """Read predictions, and refuse those of other rows or labels."""
    frame, space = report.predictions, reference.space
    found = {}
    for split in SCORED:
        rows = frame[frame["split"] == split]
        if [str(value) for value in rows["id"]] != list(reference.ids[split]) or _differ(
            rows["label"], reference, split
        ):
            raise OutputError(
                f"out: {report.folder} was scored on other {split} rows than the rest of this comparison. Name another "
                "folder."
            )
        columns = ["predicted"] if space.kind == "regression" else [f"probability_{name}" for name in space.names]
        found[split] = rows[columns].to_numpy(dtype=np.float64)
    return found


def _differ(column: Any, reference: Reference, split: str) -> bool:
    """Whether the labels beside predictions are not those of the split."""
    space, truth = reference.space, reference.labels[split]
    if len(column) != len(truth):
        return True
    if space.kind == "regression":
        return not np.allclose(column.to_numpy(dtype=np.float64), truth)
    index = space.label2id
    if space.kind == "multi_label":
        rows = np.zeros_like(truth)
        for row, names in enumerate(column):
            rows[row, [index[name] for name in names]] = 1
        return not np.array_equal(rows, truth)
    return bool([index.get(name, -1) for name in column] != truth.tolist())


def has_baseline(folder: Path) -> bool:
    """Tell whether `run_baseline` would read its figures back from a folder."""
    return (folder / BASELINE_FILE).is_file() and (folder / MEASURED_FILE).is_file()


def run_baseline(rung: Rung, reference: Reference, folder: Path, *, select_by: str) -> Trial:
    """Fit what no encoder takes part in, or read it back.

    Args:
        rung: ``majority`` or ``tfidf``.
        reference: Texts and labels.
        folder: Where its predictions are kept.
        select_by: Metric that chooses the regularization of TF-IDF.

    Returns:
        The trial, seed 0: chance plays no part.
    """
    kept, notes = folder / BASELINE_FILE, folder / MEASURED_FILE
    if has_baseline(folder):
        measured = _read_measured(folder)
        with np.load(kept, allow_pickle=False) as stored:
            probabilities = {split: stored[split] for split in SCORED}
    else:
        started = time.monotonic()
        with PeakMemory() as peak:
            probabilities = _fit_baseline(rung, reference, select_by)
        measured = {"seconds": time.monotonic() - started, "peak_memory_bytes": peak.bytes}
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(kept, **probabilities)  # type: ignore[arg-type]
        sealed = seal_record(measured, files=hash_files({BASELINE_FILE: kept}))
        write_atomically(notes, json.dumps(sealed) + "\n")
    for split in SCORED:
        if len(probabilities[split]) != len(reference.labels[split]):
            raise OutputError(f"out: {folder} was scored on other {split} rows. Name another folder.")
    classes = len(np.unique(probabilities["validation"].argmax(axis=1)))
    num_weights = _count_weights(rung, reference)
    return Trial(
        rung=rung.name,
        seed=0,
        probabilities=probabilities,
        seconds=measured["seconds"],
        training_seconds=measured["seconds"],
        peak_memory_bytes=measured["peak_memory_bytes"],
        parameters=num_weights,
        trainable=num_weights,
        saved_bytes=BYTES_PER_WEIGHT * num_weights,
        examples=len(reference.labels["train"]),
        epochs=1.0,
        is_flat=rung.name != "majority" and reference.space.is_categorical and classes == 1,
    )


def _fit_baseline(rung: Rung, reference: Reference, select_by: str) -> dict[str, np.ndarray]:
    """Fit on train, predict validation and test."""
    if rung.name == "majority":
        train = reference.labels["train"]
        return {split: predict_majority(train, len(reference.labels[split]), reference.space) for split in SCORED}
    tables = reference.splits.tables
    texts = {split: tables[split]["text"][:] for split in ("train", *SCORED)}
    texts_b = {split: tables[split]["text_b"][:] for split in texts} if reference.splits.is_pair else None
    return score_tfidf(texts, dict(reference.labels), reference.space, texts_b=texts_b, select_by=select_by)


def _count_weights(rung: Rung, reference: Reference) -> int:
    """Weights that a baseline needs to predict: one a class, or one for each word, pair of words and class."""
    num_outputs = reference.space.num_outputs
    if rung.name == "majority":
        return num_outputs
    from sklearn.feature_extraction.text import CountVectorizer

    total = 0
    analyze = CountVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b").build_analyzer()
    for column in ("text", "text_b") if reference.splits.is_pair else ("text",):
        seen: set[str] = set()
        for text in reference.splits.tables["train"][column]:
            seen.update(analyze(text))
        total += min(len(seen), MAX_FEATURES)
    # Two classes share one row of weights; each class has a bias.
    return (total + 1) * (1 if num_outputs == 2 and reference.space.is_categorical else num_outputs)
