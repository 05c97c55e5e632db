"""Build the content of ``report.json`` from trained seeds: scores, baselines, gains, facts."""

import math
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nlp_transfer.contracts import Score, Scores, Splits
from nlp_transfer.errors import DataError
from nlp_transfer.evaluation.scoring import compute_metrics, find_undefined_metrics, is_better, score_gain, score_seeds
from nlp_transfer.files import copy_folder
from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.runs.control import Control
from nlp_transfer.runs.seed import PREDICTIONS_FILE, SeedResult, list_versions

__all__ = ["Outcome", "build_record", "check_selection", "keep_best_seed", "score_run"]

LOSS_POINTS = 500
"""Most points of the loss curve that a report keeps; chosen."""


@dataclass
class Outcome:
    """All measurements of a run.

    Attributes:
        scores: Scores of the model, per split.
        baselines: Name to scores per split.
        gain: Metric to the gain over the best baseline on test.
        over: Name of that baseline.
        notes: Metrics that could not be computed, and why.
        control: The control's learning rate, and the validation figure of every rate tried.
    """

    scores: Scores
    baselines: dict[str, Scores] = field(default_factory=dict)
    gain: dict[str, Score] = field(default_factory=dict)
    over: str = ""
    notes: list[str] = field(default_factory=list)
    control: dict[str, Any] = field(default_factory=dict)


def score_run(
    recipe: Recipe,
    results: Sequence[SeedResult],
    tables: Sequence[Splits],
    control: Control | None,
    others: Mapping[str, dict[str, list[np.ndarray]]] | None = None,
) -> Outcome:
    """Score the model and its baselines on every labelled split but train.

    Args:
        recipe: Metrics, resamples and names of the baselines.
        results: One result per seed.
        tables: Labels and texts, one entry per seed; seeds that draw their own rows have their own baselines.
        control: The no-transfer control, if it was trained.
        others: Further models to score, by key.

    Returns:
        Scores with intervals, and the gain over the baseline that does best on validation.
    """
    config, splits = recipe.evaluation, tables[0]
    space = splits.labels
    metrics = list(config.metrics or [])
    rivals: dict[str, dict[str, list[np.ndarray]]] = {}
    labelled = [split for split in results[0].probabilities if splits.is_labelled(split)]
    truth = {split: splits.read_labels(split) for split in labelled}
    trained = list({id(each): each for each in tables}.values())
    train_labels = [each.read_labels("train") for each in trained]
    # Imported here so that training does not wait for scikit-learn.
    from nlp_transfer.evaluation.baselines import predict_majority

    rivals["majority"] = {s: [predict_majority(each, len(truth[s]), space) for each in train_labels] for s in labelled}
    if config.tfidf and "validation" in truth:
        labels = zip(trained, train_labels, strict=True)
        found = [_run_tfidf(recipe, each, {"train": own, **truth}) for each, own in labels]
        rivals["tfidf"] = {split: [each[split] for each in found] for split in labelled}
    if control is not None:
        rivals["no_transfer"] = {split: control.probabilities[split] for split in labelled}
    rivals |= others or {}
    settings: dict[str, Any] = {"resamples": config.resamples, "confidence": config.confidence}
    limits = _list_thresholds(results)
    outcome = Outcome(scores={})
    for split in labelled:
        ours = [result.probabilities[split] for result in results]
        outcome.scores[split] = score_seeds(ours, truth[split], space, metrics, thresholds=limits, **settings)
        outcome.notes += [f"{split}: {note}" for note in find_undefined_metrics(truth[split], space, metrics).values()]
        for name, found_by in rivals.items():
            scored = score_seeds(found_by[split], truth[split], space, metrics, **settings)
            outcome.baselines.setdefault(name, {})[split] = scored
    if control is not None:
        outcome.control = {
            "learning_rate": control.learning_rate,
            "tried": {f"{r:g}": value if math.isfinite(value) else None for r, value in control.tried.items()},
        }
    contenders = [name for name in ("tfidf", "no_transfer") if name in rivals]
    if contenders and "test" in truth:
        metric = str(recipe.training.select_by)
        outcome.over = _find_best(contenders, rivals, truth["validation"], metric, splits)
        ours = [result.probabilities["test"] for result in results]
        theirs = rivals[outcome.over]["test"]
        outcome.gain = score_gain(ours, theirs, truth["test"], space, metrics, thresholds=limits, **settings)
    return outcome


def _list_thresholds(results: Sequence[SeedResult]) -> list[list[float | None]] | None:
    """The thresholds of every seed; None if there are none."""
    found = [result.thresholds for result in results if result.thresholds is not None]
    return found or None


def check_selection(recipe: Recipe, splits: Splits) -> None:
    """Refuse a metric that cannot choose weights on this validation split, before anything is trained.

    Args:
        recipe: Names the selecting metric.
        splits: Labels of validation.

    Raises:
        DataError: The metric is undefined there.
    """
    metric = str(recipe.training.select_by)
    if "validation" in splits.tables and splits.is_labelled("validation"):
        undefined = find_undefined_metrics(splits.read_labels("validation"), splits.labels, [metric])
        if undefined:
            raise DataError(
                f"training.select_by: {metric} cannot choose weights on this validation split: "
                f"{undefined[metric]} Choose another metric, or give validation rows of every class."
            )


def _run_tfidf(recipe: Recipe, splits: Splits, labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Fit the TF-IDF baseline on the same splits."""
    from nlp_transfer.evaluation.baselines import score_tfidf

    texts = {split: splits.tables[split]["text"][:] for split in labels}
    texts_b = {split: splits.tables[split]["text_b"][:] for split in labels} if splits.is_pair else None
    return score_tfidf(
        texts, labels, splits.labels, texts_b=texts_b, select_by=recipe.training.select_by, seed=recipe.training.seed
    )


def _find_best(
    contenders: Sequence[str],
    rivals: dict[str, dict[str, list[np.ndarray]]],
    truth: np.ndarray,
    metric: str,
    splits: Splits,
) -> str:
    """Choose the baseline to beat: the best one on validation."""

    def value(name: str) -> float:
        found = [compute_metrics(truth, p, splits.labels, [metric])[metric] for p in rivals[name]["validation"]]
        return float(np.mean(found))

    best = contenders[0]
    for name in contenders[1:]:
        if is_better(metric, value(name), value(best)):
            best = name
    return best


def keep_best_seed(recipe: Recipe, results: Sequence[SeedResult], splits: Splits, folder: Path) -> SeedResult:
    """Choose the seed with the best model on validation, and copy its files to the run's own folder.

    Args:
        recipe: Names the selecting metric.
        results: One result per seed.
        splits: Labels of validation.
        folder: The run's folder; a single seed lies there already.

    Returns:
        The chosen seed.
    """
    if len(results) == 1:
        return results[0]
    metric = str(recipe.training.select_by)
    truth = splits.read_labels("validation")
    best, best_value = results[0], float("nan")
    for number, result in enumerate(results):
        ours, limits = result.probabilities["validation"], result.thresholds
        found = compute_metrics(truth, ours, splits.labels, [metric], thresholds=limits)[metric]
        if number == 0 or is_better(metric, found, best_value):
            best, best_value = result, found
    stage = folder / ".model.writing"
    for stale in (stage, folder / "model"):
        shutil.rmtree(stale, ignore_errors=True)
    copy_folder(best.folder / "model", stage)
    stage.rename(folder / "model")
    shutil.copyfile(best.folder / PREDICTIONS_FILE, folder / PREDICTIONS_FILE)
    return best


def build_record(
    recipe: Recipe,
    seeds: Sequence[int],
    results: Sequence[SeedResult],
    best: SeedResult,
    splits: Splits,
    outcome: Outcome,
    *,
    encoder: dict[str, Any],
    max_length: int,
) -> dict[str, Any]:
    """Build the report.

    Args:
        recipe: The resolved recipe.
        seeds: Training seeds.
        results: One result per seed.
        best: The seed whose model is kept; the report's training facts are those of this seed.
        splits: Tables and data facts.
        outcome: The run's measurements.
        encoder: Name, Hub id and revision of the encoder.
        max_length: Tokens that the encoder reads.

    Returns:
        The content of ``report.json``.
    """
    facts = asdict(splits.facts)
    facts["notes"] = facts["notes"] + outcome.notes
    record: dict[str, Any] = {
        "version": version("nlp_transfer"),
        "recipe": recipe.model_dump(mode="json"),
        "environment": _describe_environment(best),
        "data": {
            **facts,
            "labels": list(splits.labels.names),
            "kind": splits.labels.kind,
            "is_pair": splits.is_pair,
            "max_length": max_length,
            "long_text": recipe.data.long_text,
        },
        "model": {"encoder": encoder["name"], **encoder, **best.model, "loader": best.loader},
        "training": _describe_training(best),
        "scores": _scores_to_json(outcome.scores),
        "baselines": {name: _scores_to_json(scores) for name, scores in outcome.baselines.items()},
        "gain": {metric: {**score.to_json(), "over": outcome.over} for metric, score in outcome.gain.items()},
        "artifact": "model",
    }
    if outcome.control:
        record["baselines"]["no_transfer"] |= outcome.control
    if len(seeds) > 1:
        record["seeds"] = list(seeds)
        record["collapsed_seeds"] = [result.seed for result in results if result.log.collapsed]
        record["training"]["seconds_per_seed"] = [result.log.seconds for result in results]
    return record


def _describe_training(best: SeedResult) -> dict[str, Any]:
    """How the kept seed was trained."""
    log = best.log
    return {
        "seed": best.seed,
        "steps": log.steps,
        "epochs": log.epochs,
        "seconds": log.seconds,
        "examples_per_second": log.examples / log.seconds if log.seconds else None,
        "tokens_per_second": log.tokens / log.seconds if log.seconds else None,
        "padding_share": log.padding_share,
        "peak_memory_bytes": log.peak_memory_bytes,
        "losses": _thin(log.losses),
        "evaluations": [asdict(evaluation) for evaluation in log.evaluations],
        "best_step": log.best_step,
        "stopped_early": log.stopped_early,
        "resumed_at": log.resumed_at,
        "damaged_checkpoints": log.damaged_checkpoints,
        "collapsed": log.collapsed,
        **({"methods": log.methods} if log.methods else {}),
    }


def _scores_to_json(scores: Scores) -> dict[str, Any]:
    """Write scores as plain dictionaries."""
    return {split: {metric: score.to_json() for metric, score in found.items()} for split, found in scores.items()}


def _thin(losses: Sequence[float]) -> list[dict[str, float]]:
    """Average the loss curve over equal blocks of steps, so that a long run has a short report."""
    if not losses:
        return []
    blocks = np.array_split(np.asarray(losses), min(len(losses), LOSS_POINTS))
    ends = np.cumsum([len(block) for block in blocks])
    return [{"step": int(end), "loss": float(block.mean())} for end, block in zip(ends, blocks, strict=True)]


def _describe_environment(best: SeedResult) -> dict[str, Any]:
    """Versions and machine, without the names of hosts, users or folders."""
    device = best.log.device
    return {
        "versions": list_versions(),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "threads": torch.get_num_threads(),
        "precision": best.log.precision,
        "precision_reason": best.log.precision_reason,
        "packing": best.log.packing,
        "compiled": best.log.compiled,
        "processes": best.log.num_processes,
        "system": f"{platform.system()} {platform.machine()}",
    }
