"""Calibrate a trained seed on validation, and keep the map in its artefact."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nlp_transfer.contracts import Splits
from nlp_transfer.evaluation.calibrators import Calibrator, fit_calibrator
from nlp_transfer.models.sources import ARTIFACT_FILE
from nlp_transfer.publishing.artifact import write_atomically
from nlp_transfer.recipe.schema import Recipe

__all__ = ["calibrate_artifact", "calibrate_splits"]


def calibrate_splits(calibrator: Calibrator | None, raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Map the probabilities of every split.

    Args:
        calibrator: The map; None leaves everything as it is.
        raw: Split name to float64 (N, C).

    Returns:
        The same splits.
    """
    return {split: values if calibrator is None else calibrator.apply(values) for split, values in raw.items()}


def calibrate_artifact(
    recipe: Recipe, splits: Splits, raw: Mapping[str, np.ndarray], folder: Path, *, is_main: bool
) -> Calibrator | None:
    """Fit the map that the recipe asks for on validation, and write it into ``nlp_transfer.json``.

    The weights do not change: plain transformers and peft give the logits of the training, `Classifier` maps them.

    Args:
        recipe: Says which map.
        splits: Labels of validation.
        raw: Split name to float64 (N, C), from the saved weights.
        folder: The ``model/`` folder.
        is_main: Whether this process writes.

    Returns:
        The map; None where the recipe asks for none.

    Raises:
        DataError: Validation has too few rows for it.
        StorageError: The disk is full or failing.
    """
    kind = recipe.evaluation.calibration
    if kind == "none":
        return None
    labels = np.asarray(splits.tables["validation"].select_columns(["label"]).with_format("numpy")["label"][:])
    calibrator = fit_calibrator(kind, raw["validation"], labels, splits.labels)
    if is_main:
        place = folder / ARTIFACT_FILE
        record = json.loads(place.read_text(encoding="utf-8"))
        record["calibration"] = calibrator.to_json()
        record["temperature"] = calibrator.temperature if kind == "temperature" else None
        write_atomically(place, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return calibrator
