"""Train one seed of a run, save its artefact, and predict with the saved artefact."""

import json
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from accelerate import Accelerator
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from nlp_transfer.contracts import Evaluation, Hook, Loader, Prepared, RunLog, Splits, track_nothing
from nlp_transfer.data.encode import resolve_max_length
from nlp_transfer.data.fingerprints import identify_rows
from nlp_transfer.engine.precision import Precision, choose_device, choose_precision, count_processes
from nlp_transfer.engine.train.hooks import TrackerHook, build_progress, track_work, watch_work
from nlp_transfer.engine.train.loop import OTHER_ROWS
from nlp_transfer.errors import DamageError, MissingExtraError, OutputError, RecipeError, name_cause
from nlp_transfer.evaluation.calibration import Calibrator, read_calibrator
from nlp_transfer.evaluation.predictions import predict_labels
from nlp_transfer.evaluation.thresholds import Choice, read_thresholds
from nlp_transfer.files import explain_writing
from nlp_transfer.fitting.fit import Fitted, predict_all
from nlp_transfer.fitting.series import Fits
from nlp_transfer.fitting.stages import HookMaker
from nlp_transfer.methods import train_with_methods
from nlp_transfer.models.digests import check_artifact, check_files, hash_files, open_record, seal_record
from nlp_transfer.models.encoder import OpenedEncoder
from nlp_transfer.models.resolve import ARTIFACT_FILE, EncoderSource
from nlp_transfer.publishing.artifact import load_artifact, save_artifact, write_atomically
from nlp_transfer.publishing.card import drop_places
from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.recipe.strategies.table import find_facts
from nlp_transfer.runs.calibrate import calibrate_artifact, calibrate_splits, settle_thresholds

__all__ = [
    "SeedResult",
    "Workspace",
    "build_predictions",
    "check_machine",
    "choose_length",
    "clear_progress",
    "count_reserved",
    "list_versions",
    "make_accelerator",
    "train_seed",
]

PACKAGES = ("nlp_transfer", "torch", "transformers", "datasets", "peft", "accelerate", "evaluate", "scikit-learn")
MIN_LENGTH = 4  # as data.max_length: the special tokens of a pair, and one more
SEED_FILE = ".seed.json"
PROBABILITIES_FILE = ".probabilities.npz"
PREDICTIONS_FILE = "predictions.parquet"


@dataclass
class Workspace:
    """Data and settings that all fits of a run share.

    Attributes:
        splits: Loaded tables and the label contract.
        prepared: The same, tokenized.
        tokenizer: The encoder's tokenizer.
        source: Where the encoder comes from.
        max_length: Tokens that the encoder reads.
        console: Where progress is shown.
        watch: Makes further hooks for training and for other tracked work; an exception in a hook ends the fit.
    """

    splits: Splits
    prepared: Prepared
    tokenizer: PreTrainedTokenizerBase
    source: EncoderSource
    max_length: int
    console: Console
    watch: HookMaker | None = None

    @cached_property
    def rows(self) -> str:
        """Fingerprint of the rows of all splits."""
        return identify_rows(self.prepared)

    def make_hooks(self, num_steps: int, label: str) -> Sequence[Hook]:
        """Hooks of one fit: progress, unless the console is quiet, and the hooks of ``watch``."""
        shown = () if self.console.quiet else (build_progress(self.console, num_steps, label),)
        return (*shown, *(self.watch(num_steps, label) if self.watch is not None else ()))

    def track(self, label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show work other than training, unless the console is quiet; the hooks of ``watch`` see it as steps."""
        shown = track_nothing(label, total) if self.console.quiet else track_work(self.console, label, total)
        return shown if self.watch is None else watch_work(shown, self.watch(total, label))


def choose_length(recipe: Recipe, opened: OpenedEncoder, wanted: int) -> int:
    """Choose how many tokens of a text an encoder reads, without the positions of prompts.

    Args:
        recipe: Its strategy may reserve positions for prompts.
        opened: The encoder's tokenizer and configuration.
        wanted: Maximum number of tokens, as ``data.max_length``.

    Returns:
        At least `MIN_LENGTH`.

    Raises:
        RecipeError: The encoder has no room for a text.
    """
    reserved = count_reserved(recipe)
    length = resolve_max_length(opened.tokenizer, opened.settings, wanted, reserved=reserved)
    if length < MIN_LENGTH:
        key = find_facts(recipe.strategy).reserves
        raise RecipeError([f"strategy.{key}: {reserved} prompts leave no room for a text in this encoder. Lower it."])
    return length


def count_reserved(recipe: Recipe) -> int:
    """Count the tokens of the encoder's input that a strategy reserves."""
    key = find_facts(recipe.strategy).reserves
    return int(getattr(recipe.strategy, key)) if key else 0


@dataclass
class SeedResult:
    """One trained seed.

    Attributes:
        seed: Training seed.
        folder: Holds ``model/`` and ``predictions.parquet``.
        log: What happened while training.
        model: Facts of the model: family, parameters, trainable, saved_bytes.
        loader: ``transformers``, ``peft`` or ``nlp_transfer``.
        probabilities: Split name to float64 (N, C), from the saved weights, calibrated if the recipe asks for it.
        raw: The same before calibration.
        calibrator: The calibrator that turns ``raw`` into ``probabilities``.
        choices: Label name to its chosen threshold and the validation figures at that threshold.
        thresholds: The thresholds as ``predict_labels`` takes them; None if there are none.
    """

    seed: int
    folder: Path
    log: RunLog
    model: dict[str, Any]
    loader: Loader
    probabilities: dict[str, np.ndarray]
    raw: dict[str, np.ndarray] = field(default_factory=dict)
    calibrator: Calibrator | None = None
    choices: dict[str, Choice] = field(default_factory=dict)
    thresholds: list[float | None] | None = None


def check_machine(recipe: Recipe) -> tuple[str, Precision]:
    """Refuse a device or precision that this machine does not have, before anything is loaded.

    Args:
        recipe: Device, precision and trackers.

    Returns:
        Device kind, and number format of the run with the reason for it.

    Raises:
        RecipeError: The device or the number format is not available on this machine.
        MissingExtraError: A tracker is not installed.
    """
    device = choose_device(recipe.training.device)
    precision = choose_precision(recipe.training.precision, device)
    for tracker in recipe.training.trackers:
        if find_spec(tracker) is None:
            raise MissingExtraError(tracker, extra=tracker, purpose=f"training.trackers: {tracker}")
    return device, precision


def make_accelerator(recipe: Recipe, folder: Path | None = None) -> Accelerator:
    """Build the accelerator of one fit.

    Args:
        recipe: Device, precision and trackers.
        folder: Folder for trackers that write files; None for a fit without trackers.

    Returns:
        An accelerator.

    Raises:
        RecipeError: The device or the number format is not available on this machine.
        MissingExtraError: A tracker is not installed.
    """
    device, precision = check_machine(recipe)
    trackers = list(recipe.training.trackers) if folder is not None else []
    # A single CPU process trains with weights in bf16: autocast to bf16 was slower than float32.
    is_plain = precision.format == "fp32" or (device == "cpu" and count_processes() == 1)
    return Accelerator(
        cpu=device == "cpu",
        mixed_precision="no" if is_plain else precision.format,
        log_with=trackers or None,
        project_dir=str(folder / "trackers") if trackers and folder is not None else None,
    )


def list_versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def train_seed(recipe: Recipe, seed: int, space: Workspace, folder: Path, console: Console) -> SeedResult:
    """Train one seed, save it, reload it, and predict with the reloaded weights.

    A seed that is already finished in the folder is read back instead.

    Args:
        recipe: The run.
        seed: Which seed.
        space: Data and tokenizer.
        folder: Where the seed's files go.
        console: Where progress is shown.

    Returns:
        The trained seed.

    Raises:
        EncoderError: The encoder cannot be loaded.
        StorageError: The disk is full or failing.
    """
    if (folder / SEED_FILE).is_file() and (folder / PREDICTIONS_FILE).is_file():
        try:
            return _read_seed(folder, seed, space)
        except DamageError as error:
            message = f"  warning: {error} The seed is trained again, from its last checkpoint."
            console.print(message, style="yellow", highlight=False, markup=False, soft_wrap=True)
    training = recipe.training.model_copy(update={"seed": seed, "seeds": None})
    recipe = recipe.model_copy(update={"training": training})
    accelerator = make_accelerator(recipe, folder)
    hooks_of = space.make_hooks if accelerator.is_main_process else (lambda *_: ())
    if training.trackers:
        accelerator.init_trackers("nlp_transfer", config=_flatten(recipe.model_dump(mode="json")))
        hooks_of = lambda steps, label: (*space.make_hooks(steps, label), TrackerHook(accelerator, training))  # noqa: E731
    device = accelerator.device.type
    console.print(
        f"{recipe.strategy.kind} of {space.source.name} on {device}, seed {seed}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    fits = Fits(
        recipe,
        space.splits,
        space.prepared,
        accelerator,
        make_hooks=hooks_of,
        checkpoints=folder / "checkpoints",
        rows=space.rows,
        label=f"{recipe.strategy.kind}, seed {seed}",
        track=space.track if accelerator.is_main_process else track_nothing,
        precision=choose_precision(training.precision, device),
    )
    fitted = train_with_methods(fits)
    _tell_resumed(fitted.log, console)
    loader, log = _save(recipe, fitted, space, folder, accelerator), fitted.log
    place, is_main = folder / "model", accelerator.is_main_process
    model = _describe_model(fitted)
    del fitted
    # Scores must be those of the saved model, so it is loaded from its folder.
    saved = load_artifact(place, trust_remote_code=recipe.encoder.trust_remote_code).model
    raw = predict_all(saved, space.prepared, accelerator, recipe)
    calibrator = calibrate_artifact(recipe, space.splits, raw, place, is_main=is_main)
    probabilities = calibrate_splits(calibrator, raw)
    settled = settle_thresholds(recipe, space.splits, probabilities, place, is_main=is_main)
    log.collapsed = _is_collapsed(probabilities, space)
    model["saved_bytes"] = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    result = SeedResult(seed, folder, log, model, loader, probabilities, raw, calibrator, *settled)
    if is_main:
        _write_seed(result, space)
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    return result


def _describe_model(fitted: Fitted) -> dict[str, Any]:
    """Facts of the model."""
    facts = {"family": fitted.loaded.family, "parameters": fitted.adapted.num_parameters}
    return {**facts, "trainable": fitted.num_trainable}


def _tell_resumed(log: RunLog, console: Console) -> None:
    """Print the step from which a run was resumed, and the checkpoints that were damaged."""
    for damage in log.damaged_checkpoints:
        message = f"  warning: checkpoint {damage}; an older one was used"
        console.print(message, style="yellow", highlight=False, markup=False, soft_wrap=True)
    if log.resumed_at:
        console.print(f"  resumed from step {log.resumed_at[-1]:,}", highlight=False)


def _save(recipe: Recipe, fitted: Fitted, space: Workspace, folder: Path, accelerator: Accelerator) -> Loader:
    """Save the artefact on the main process; return on every process the library that loads it."""
    data = recipe.data
    loader: Loader = "transformers" if fitted.adapted.merge else fitted.adapted.format
    if accelerator.is_main_process:
        save_artifact(
            folder / "model",
            fitted.adapted.model.cpu(),
            space.tokenizer,
            labels=space.prepared.labels,
            source=fitted.loaded.source,
            merge=fitted.adapted.merge,
            metadata={
                "reading": {
                    "is_pair": space.splits.is_pair,
                    "max_length": space.max_length,
                    "long_text": data.long_text,
                    "window_overlap": data.window_overlap,
                    "max_windows": data.max_windows,
                },
                "thresholds": None,
                "temperature": None,
                **({} if fitted.target is None else {"target": asdict(fitted.target)}),
                "recipe": drop_places(recipe.model_dump(mode="json")),
                "versions": list_versions(),
            },
        )
    accelerator.wait_for_everyone()
    return loader


def _is_collapsed(probabilities: dict[str, np.ndarray], space: Workspace) -> bool:
    """Whether every validation example gets the same class, although there are several."""
    labels = space.prepared.labels
    found = probabilities.get("validation")
    if found is None or not labels.is_categorical or len(found) < 2:
        return False
    return len(np.unique(found.argmax(axis=1))) == 1


def _write_seed(result: SeedResult, space: Workspace) -> None:
    """Write predictions, then the file that marks the seed as finished."""
    frame = build_predictions(space.splits, result.probabilities, thresholds=result.thresholds)
    aside = result.folder / f".{PREDICTIONS_FILE}.writing"
    try:
        frame.to_parquet(aside, index=False, compression="zstd")
        aside.replace(result.folder / PREDICTIONS_FILE)
        raw = {split: np.asarray(values) for split, values in result.raw.items()}
        with (result.folder / PROBABILITIES_FILE).open("wb") as file:
            np.savez(file, **raw)  # type: ignore[arg-type]
    except OSError as error:
        what = "predictions could not be written"
        raise explain_writing(result.folder, error, what=what, way_out="Free space and run again.") from error
    finally:
        aside.unlink(missing_ok=True)
    record: dict[str, Any] = {"rows": space.rows, "log": asdict(result.log), "model": result.model}
    record["loader"] = result.loader
    record["calibration"] = None if result.calibrator is None else result.calibrator.to_json()
    record["choices"] = {name: choice.to_json() for name, choice in result.choices.items()}
    beside = {name: result.folder / name for name in (PREDICTIONS_FILE, PROBABILITIES_FILE)}
    write_atomically(result.folder / SEED_FILE, json.dumps(seal_record(record, files=hash_files(beside))))


def clear_progress(results: Sequence[SeedResult]) -> None:
    """Remove the files that a run needs only to be resumed."""
    for result in results:
        for name in (SEED_FILE, PROBABILITIES_FILE):
            (result.folder / name).unlink(missing_ok=True)


def _read_seed(folder: Path, seed: int, space: Workspace) -> SeedResult:
    """Read a finished seed back; refuse a seed that was trained or scored on other rows."""
    place, model = folder / SEED_FILE, folder / "model"
    try:
        content = dict(json.loads(place.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DamageError(f"{place}: cannot be read ({name_cause(error)}).") from error
    record, digests = open_record(content, place)
    if lost := {"rows", "log", "model", "loader"} - record.keys():
        raise DamageError(f"{place}: is not the record of a finished seed: {sorted(lost)[0]} is missing.")
    expected = digests.get("files", {})
    check_files({name: folder / name for name in expected}, expected, record=place)
    check_artifact(model, model / ARTIFACT_FILE)
    if record.get("rows") != space.rows:
        raise OutputError(OTHER_ROWS.format(place=folder))
    log = record["log"]
    log["evaluations"] = [Evaluation(**entry) for entry in log["evaluations"]]
    with np.load(folder / PROBABILITIES_FILE, allow_pickle=False) as stored:
        raw = {split: stored[split] for split in stored.files}
    labels = space.splits.labels
    calibrator = read_calibrator(record, num_classes=labels.num_outputs, where=str(place))
    choices = {name: Choice(**entry) for name, entry in (record.get("choices") or {}).items()}
    numbers = {name: choice.threshold for name, choice in choices.items()} or None
    thresholds = read_thresholds({"thresholds": numbers}, labels, where=str(place))
    probabilities = calibrate_splits(calibrator, raw)
    facts = (seed, folder, RunLog(**log), record["model"], record["loader"])
    return SeedResult(*facts, probabilities, raw, calibrator, choices, thresholds)


def _flatten(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested settings into dotted keys with plain values, as trackers take them."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, int | float | str | bool) else str(value)
    return flat


def build_predictions(
    splits: Splits,
    probabilities: dict[str, np.ndarray],
    *,
    with_text: bool = True,
    thresholds: Sequence[float | None] | None = None,
) -> pd.DataFrame:
    """Build the table of predictions.

    Args:
        splits: Texts, ids and labels.
        probabilities: Split name to float64 (N, C).
        with_text: Whether the table has the texts.
        thresholds: As ``predict_labels`` takes them.

    Returns:
        Columns ``split``, ``id``, ``text``, ``text_b`` (pairs), ``label``, ``predicted`` and, except for regressions,
        ``probability_<label>``; labels as names, lists of names (multi_label) or numbers (regression).
    """
    space = splits.labels
    frames = []
    for split, found in probabilities.items():
        table = splits.tables[split]
        texts = [name for name in ("text", "text_b") if name in table.column_names] if with_text else []
        frame = table.select_columns(["id", *texts]).to_pandas()
        frame.insert(0, "split", split)
        labels = np.asarray(table.with_format("numpy")["label"]) if splits.is_labelled(split) else None
        frame["label"] = None if labels is None else _name_values(labels, splits)
        frame["predicted"] = _name_values(predict_labels(found, space, thresholds), splits)
        if space.kind != "regression":
            for column, name in enumerate(space.names):
                frame[f"probability_{name}"] = found[:, column]
        frames.append(frame)
    joined: pd.DataFrame = pd.concat(frames, ignore_index=True)
    return joined


def _name_values(values: np.ndarray, splits: Splits) -> list[Any]:
    """Turn class ids or multi-hot rows into names; numbers stay numbers."""
    space = splits.labels
    if space.kind == "regression":
        return [float(value) for value in values]
    names = np.asarray(space.names, dtype=object)
    if space.kind == "multi_label":
        return [names[row.astype(bool)].tolist() for row in values]
    return list(names[values])
