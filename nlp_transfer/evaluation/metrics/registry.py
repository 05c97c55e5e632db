"""The report keys: how each is computed on R weighted samples of the same examples."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import cached_property, partial

import numpy as np

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import RecipeError
from nlp_transfer.evaluation.calibration import CalibrationCounter, measure_brier
from nlp_transfer.evaluation.metrics.counts import (
    Average,
    ClassCounter,
    Counts,
    FloatArray,
    IntArray,
    compute_accuracy,
    compute_balanced_accuracy,
    compute_cohen_kappa,
    compute_f1,
    compute_mcc,
    compute_precision,
    compute_quadratic_kappa,
    compute_recall,
)
from nlp_transfer.evaluation.metrics.numbers import (
    compute_mean,
    compute_pearson,
    compute_r2,
    compute_spearman,
    measure_log_loss,
)
from nlp_transfer.evaluation.metrics.ranking import average_over_classes, compute_average_precision, compute_roc_auc
from nlp_transfer.recipe.schema import METRICS

__all__ = ["STATISTICS", "Sample", "Tally", "check_metrics", "name_per_class", "name_scores"]


class Sample:
    """What is scored, with everything that does not depend on a resample computed once.

    Args:
        labels: int64 (N,), 0 / 1 (N, C) or float64 (N,), by kind of task.
        probabilities: Float64, shape (N, C).
        predicted: In the form of the labels.
        space: The label contract.
    """

    def __init__(
        self,
        labels: IntArray | FloatArray,
        probabilities: FloatArray,
        predicted: IntArray | FloatArray,
        space: LabelSpace,
    ) -> None:
        self.probabilities = probabilities
        self.predicted = predicted
        self.labels = labels
        self.space = space

    @cached_property
    def class_labels(self) -> IntArray:
        """Labels of a task with classes."""
        return self.labels.astype(np.int64)

    @cached_property
    def counter(self) -> ClassCounter:
        """Counts classes."""
        return ClassCounter(self.class_labels, self.predicted.astype(np.int64), self.space.num_outputs)

    @cached_property
    def calibration(self) -> CalibrationCounter:
        """Computes the calibration error."""
        return CalibrationCounter(self.probabilities, self.class_labels)

    @cached_property
    def log_losses(self) -> FloatArray:
        """Cost of each example in nats, shape (N,)."""
        return measure_log_loss(self.class_labels, self.probabilities)

    @cached_property
    def brier(self) -> FloatArray:
        """Squared distance of each example's probabilities from the truth, shape (N,)."""
        return measure_brier(self.class_labels, self.probabilities)

    @cached_property
    def errors(self) -> FloatArray:
        """Prediction minus label of each example, shape (N,); for ordered classes in ranks."""
        return self.numbers[1] - self.numbers[0]

    @cached_property
    def numbers(self) -> tuple[FloatArray, FloatArray]:
        """Labels and predictions as numbers, shape (N,); ordered classes are their ranks."""
        return self.labels.astype(np.float64), self.predicted.astype(np.float64)

    @cached_property
    def columns(self) -> list[int]:
        """Columns that are ranked: the second class where there are two, else each class against the rest."""
        exclusive = self.space.kind != "multi_label"
        return [1] if exclusive and self.space.num_outputs == 2 else list(range(self.space.num_outputs))

    def select_positives(self, column: int) -> np.ndarray:
        """Which examples belong to a class, bool, shape (N,)."""
        if self.space.kind == "multi_label":
            return np.asarray(self.class_labels[:, column] == 1)
        return np.asarray(self.class_labels == column)


class Tally:
    """One chunk of weighted samples; what several metrics read is counted once.

    Args:
        sample: What is scored.
        weights: Float64, shape (N, R).
    """

    def __init__(self, sample: Sample, weights: FloatArray) -> None:
        self.sample = sample
        self.weights = weights

    @cached_property
    def counts(self) -> Counts:
        """Counts of the classes."""
        return self.sample.counter.count(self.weights)


Measure = Callable[[Tally], FloatArray]


def _accuracy(tally: Tally) -> FloatArray:
    """For label columns an example counts where its whole row is right, as in scikit-learn."""
    if tally.sample.space.kind != "multi_label":
        return compute_accuracy(tally.counts)
    right = (tally.sample.labels == tally.sample.predicted).all(axis=1)
    return compute_mean(right.astype(np.float64), tally.weights)


def _average(compute: Callable[[Counts, Average | None], FloatArray], average: Average | None) -> Measure:
    return lambda tally: compute(tally.counts, average)


def _quadratic_kappa(tally: Tally) -> FloatArray:
    return compute_quadratic_kappa(tally.counts, tally.sample.errors**2, tally.weights)


def _rank(compute: Callable[[FloatArray, np.ndarray, FloatArray], FloatArray], tally: Tally) -> FloatArray:
    sample = tally.sample
    per_class = [
        compute(sample.probabilities[:, column], sample.select_positives(column), tally.weights)
        for column in sample.columns
    ]
    return average_over_classes(np.stack(per_class))


STATISTICS: dict[str, Measure] = {
    "accuracy": _accuracy,
    "balanced_accuracy": lambda tally: compute_balanced_accuracy(tally.counts),
    "f1_macro": _average(compute_f1, "macro"),
    "f1_micro": _average(compute_f1, "micro"),
    "f1_weighted": _average(compute_f1, "weighted"),
    "f1_per_class": _average(compute_f1, None),
    "precision_macro": _average(compute_precision, "macro"),
    "precision_micro": _average(compute_precision, "micro"),
    "precision_weighted": _average(compute_precision, "weighted"),
    "precision_per_class": _average(compute_precision, None),
    "recall_macro": _average(compute_recall, "macro"),
    "recall_micro": _average(compute_recall, "micro"),
    "recall_weighted": _average(compute_recall, "weighted"),
    "recall_per_class": _average(compute_recall, None),
    "mcc": lambda tally: compute_mcc(tally.counts),
    "cohen_kappa": lambda tally: compute_cohen_kappa(tally.counts),
    "quadratic_kappa": _quadratic_kappa,
    "roc_auc": partial(_rank, compute_roc_auc),
    "average_precision": partial(_rank, compute_average_precision),
    "log_loss": lambda tally: compute_mean(tally.sample.log_losses, tally.weights),
    "ece": lambda tally: tally.sample.calibration.compute(tally.weights),
    "brier": lambda tally: compute_mean(tally.sample.brier, tally.weights),
    "mse": lambda tally: compute_mean(tally.sample.errors**2, tally.weights),
    "mae": lambda tally: compute_mean(np.abs(tally.sample.errors), tally.weights),
    "rmse": lambda tally: np.sqrt(compute_mean(tally.sample.errors**2, tally.weights)),
    "r2": lambda tally: compute_r2(*tally.sample.numbers, tally.weights),
    "pearson": lambda tally: compute_pearson(*tally.sample.numbers, tally.weights),
    "spearman": lambda tally: compute_spearman(*tally.sample.numbers, tally.weights),
}
"""Report key to what computes it: shape (R,), or (C, R) for the keys ``*_per_class``."""


def check_metrics(metrics: Sequence[str], space: LabelSpace) -> None:
    """Refuse a report key that does not suit the task.

    Raises:
        RecipeError: A key is unknown, or of another task; the message names the nearest right one.

    Example:
        >>> check_metrics(["acuracy"], LabelSpace("classification", ("no", "yes")))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        nlp_transfer.errors.RecipeError: evaluation.metrics: no metric 'acuracy' for classification. Did you ...
    """
    known = METRICS[space.kind]
    problems = []
    for metric in metrics:
        if metric not in known:
            near = get_close_matches(metric, known, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(known)}."
            problems.append(f"evaluation.metrics: no metric '{metric}' for {space.kind}. {hint}")
    if problems:
        raise RecipeError(problems)


def name_per_class(metric: str, label: str) -> str:
    """Report key of one class, such as ``f1_negative``.

    A class called ``macro`` must not pass for the average, so its key says that it is a class.

    Example:
        >>> name_per_class("f1_per_class", "negative"), name_per_class("f1_per_class", "macro")
        ('f1_negative', 'f1_class_macro')
    """
    base = metric.removesuffix("_per_class")
    return f"{base}_class_{label}" if f"{base}_{label}" in STATISTICS else f"{base}_{label}"


def name_scores(metrics: Sequence[str], space: LabelSpace) -> list[str]:
    """Report keys in their order, with ``*_per_class`` spread over the label names.

    Example:
        >>> name_scores(["accuracy", "f1_per_class"], LabelSpace("classification", ("no", "yes")))
        ['accuracy', 'f1_no', 'f1_yes']
    """
    keys: list[str] = []
    for metric in dict.fromkeys(metrics):
        is_spread = metric.endswith("_per_class")
        keys.extend([name_per_class(metric, label) for label in space.names] if is_spread else [metric])
    return keys
