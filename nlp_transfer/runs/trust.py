"""How far the kept model can be trusted: scores before and after calibration, abstention, and scores of slices."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nlp_transfer.contracts import Splits
from nlp_transfer.errors import DataError
from nlp_transfer.evaluation.abstention import measure_abstention
from nlp_transfer.evaluation.calibration import FEWEST, reliability_bins
from nlp_transfer.evaluation.predictions import predict_labels
from nlp_transfer.evaluation.scoring import score_split
from nlp_transfer.evaluation.slices import BUILT_IN, bucket_lengths, gather_groups, score_slices
from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.runs.seed import SeedResult

__all__ = ["check_trust", "describe_trust", "read_groups"]

CALIBRATION_METRICS = ("accuracy", "ece", "brier", "log_loss")
"""Metrics shown before and after calibration; accuracy is among them to show that it does not change."""


def check_trust(recipe: Recipe, splits: Splits) -> None:
    """Refuse settings that could not be measured, before anything is trained.

    Args:
        recipe: Calibration and slices.
        splits: Loaded tables.

    Raises:
        DataError: A column does not exist or does not group rows, validation has too few rows for isotonic regression,
            or ``evaluation.threshold_label`` is not a label.
    """
    for name in recipe.evaluation.slices:
        for split in (split for split in ("validation", "test") if splits.is_labelled(split)):
            gather_groups(name, read_groups(splits, split, name))
    wanted = recipe.evaluation.threshold_label
    if wanted is not None and wanted not in splits.labels.names:
        raise DataError(
            f"evaluation.threshold_label: expected one of {', '.join(splits.labels.names[:8])}, came {wanted!r}. "
            "Name one."
        )
    num_rows = splits.tables["validation"].num_rows
    if recipe.evaluation.calibration == "isotonic" and num_rows < FEWEST:
        raise DataError(
            f"evaluation.calibration: isotonic expected {FEWEST} validation rows or more, came {num_rows}. "
            "Use temperature, or give more rows."
        )


def describe_trust(recipe: Recipe, best: SeedResult, splits: Splits) -> dict[str, Any]:
    """Measure the report's figures on trust, on labelled splits that training did not see.

    Args:
        recipe: Names the figures to measure.
        best: The seed whose model is kept.
        splits: Its tables.

    Returns:
        Sections of ``report.json`` by name, without those that the recipe does not ask for or that do not apply.

    Raises:
        DataError: A column of slices does not group rows.
    """
    config, space = recipe.evaluation, splits.labels
    labels = {split: splits.read_labels(split) for split in best.probabilities if splits.is_labelled(split)}
    shown = "test" if "test" in labels else "validation"
    if shown not in labels:
        return {}
    record: dict[str, Any] = {}
    if best.calibrator is not None:
        record["calibration"] = _compare_calibration(recipe, best, labels, splits)
    if config.coverages and space.is_categorical:
        found = measure_abstention(
            best.probabilities[shown],
            labels[shown],
            sorted(config.coverages),
            confidence=config.confidence,
            predicted=predict_labels(best.probabilities[shown], space, best.thresholds),
        )
        record["abstention"] = {"split": shown, **found}
    if best.choices:
        record["thresholds"] = {
            "goal": config.threshold_goal,
            "at": config.threshold_at,
            "labels": {name: choice.to_json() for name, choice in best.choices.items()},
        }
    if config.slices:
        groups = {name: read_groups(splits, shown, name) for name in config.slices}
        # Averages over classes mean little in a group that lacks some classes.
        metric = "accuracy" if space.is_categorical else str(recipe.training.select_by)
        scores = score_slices(
            groups,
            labels[shown],
            best.probabilities[shown],
            space,
            metric,
            resamples=config.resamples,
            confidence=config.confidence,
            thresholds=best.thresholds,
        )
        record["slices"] = {"split": shown, "metric": metric, "columns": scores}
    return record


def read_groups(splits: Splits, split: str, name: str) -> list[Any]:
    """Find the group of each row of a split.

    Args:
        splits: The tables.
        split: Which split.
        name: A column of the data, ``length`` (words of the texts, in quarters) or ``label`` (the true class).

    Returns:
        One value per row; lists for the labels of a multi-label task.

    Raises:
        DataError: There is no such column.
    """
    table = splits.tables[split]
    names = splits.labels.names
    if name == "label" and splits.labels.kind != "regression":
        truth = splits.read_labels(split)
        if truth.ndim == 2:
            return [[names[column] for column in np.flatnonzero(row)] for row in truth]
        return [names[label] for label in truth]
    if name == "length" and "length" not in table.column_names:
        texts = table["text"][:]
        if splits.is_pair:
            texts = [f"{a} {b}" for a, b in zip(texts, table["text_b"][:], strict=True)]
        return list(bucket_lengths(texts))
    column = _find_column(splits, split, name)
    feature, values = table.features[column], table[column][:]
    if hasattr(feature, "int2str"):
        return [None if value is None else feature.int2str(value) for value in values]
    return list(values)


def _find_column(splits: Splits, split: str, name: str) -> str:
    """The name of a column after loading."""
    names = splits.tables[split].column_names
    # Loading renames a column that has a reserved name.
    for kept in (f"source_{name}", name) if name in ("id", "text", "text_b", "label") else (name,):
        if kept in names:
            return kept
    raise DataError(
        f"evaluation.slices: expected a column of {split}, or {' or '.join(BUILT_IN)}, came {name!r}; the columns are: "
        f"{', '.join(names)}. Name one of them."
    )


def _compare_calibration(
    recipe: Recipe, best: SeedResult, labels: dict[str, np.ndarray], splits: Splits
) -> dict[str, Any]:
    """Scores and reliability before and after calibration, on every split that has labels."""
    assert best.calibrator is not None
    config = recipe.evaluation
    found = {key: value for key, value in best.calibrator.to_json().items() if key != "knots"}
    found["splits"] = {}
    for split, truth in labels.items():
        sides: Sequence[tuple[str, np.ndarray]] = (
            ("before", best.raw[split]),
            ("after", best.probabilities[split]),
        )
        record: dict[str, Any] = {}
        for side, values in sides:
            scores = score_split(
                truth,
                values,
                splits.labels,
                CALIBRATION_METRICS,
                resamples=config.resamples,
                confidence=config.confidence,
            )
            bins = reliability_bins(values, truth)
            record[side] = {
                "scores": {metric: score.to_json() for metric, score in scores.items()},
                "bins": {
                    "edges": bins.edges.tolist(),
                    "counts": bins.counts.tolist(),
                    "confidence": bins.confidence.tolist(),
                    "accuracy": bins.accuracy.tolist(),
                },
            }
        found["splits"][split] = record
    return found
