"""Calibrate a trained seed on validation, choose its thresholds, and store both in its artefact."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nlp_transfer.contracts import Splits
from nlp_transfer.evaluation.calibration import Calibrator, fit_calibrator
from nlp_transfer.evaluation.thresholds import Choice, choose_thresholds, read_thresholds
from nlp_transfer.publishing.artifact import amend_artifact
from nlp_transfer.recipe.schema import Recipe

__all__ = ["calibrate_artifact", "calibrate_splits", "settle_thresholds"]


def calibrate_splits(calibrator: Calibrator | None, raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Calibrate the probabilities of every split.

    Args:
        calibrator: The calibrator; None leaves the probabilities unchanged.
        raw: Split name to float64 (N, C).

    Returns:
        Split name to calibrated float64 (N, C).
    """
    return {split: values if calibrator is None else calibrator.apply(values) for split, values in raw.items()}


def calibrate_artifact(
    recipe: Recipe, splits: Splits, raw: Mapping[str, np.ndarray], folder: Path, *, is_main: bool
) -> Calibrator | None:
    """Fit the calibrator that the recipe names on validation, and write it into ``nlp_transfer.json``.

    The weights do not change: plain transformers and peft give uncalibrated logits, and `Classifier` calibrates the
    probabilities.

    Args:
        recipe: Names the kind of calibration.
        splits: Labels of validation.
        raw: Split name to float64 (N, C), from the saved weights.
        folder: The ``model/`` folder.
        is_main: Whether this process writes.

    Returns:
        The calibrator; None if the recipe asks for none.

    Raises:
        DataError: Validation has too few rows to calibrate on.
        StorageError: The disk is full or failing.
    """
    kind = recipe.evaluation.calibration
    if kind == "none":
        return None
    calibrator = fit_calibrator(kind, raw["validation"], splits.read_labels("validation"), splits.labels)
    if is_main:
        temperature = calibrator.temperature if kind == "temperature" else None
        amend_artifact(folder, {"calibration": calibrator.to_json(), "temperature": temperature})
    return calibrator


def settle_thresholds(
    recipe: Recipe, splits: Splits, probabilities: Mapping[str, np.ndarray], folder: Path, *, is_main: bool
) -> tuple[dict[str, Choice], list[float | None] | None]:
    """Choose the thresholds that the recipe asks for on validation, and write them into ``nlp_transfer.json``.

    Args:
        recipe: Names the goal of the thresholds.
        splits: Labels of validation.
        probabilities: Split name to float64 (N, C), calibrated.
        folder: The ``model/`` folder.
        is_main: Whether this process writes.

    Returns:
        Label name to choice, and the thresholds as ``predict_labels`` takes them, or None if there are none.

    Raises:
        DataError: The label does not exist, or validation has no rows of it.
        StorageError: The disk is full or failing.
    """
    config = recipe.evaluation
    if config.threshold_goal == "none":
        return {}, None
    choices = choose_thresholds(
        probabilities["validation"],
        splits.read_labels("validation"),
        splits.labels,
        config.threshold_goal,
        at=config.threshold_at,
        label=config.threshold_label,
    )
    numbers = {name: choice.threshold for name, choice in choices.items()} or None
    if is_main and numbers:
        amend_artifact(folder, {"thresholds": numbers})
    return choices, read_thresholds({"thresholds": numbers}, splits.labels, where=str(folder))
