"""Bundled ``evaluate`` modules that score predicted classes.

They have the ids, columns, parameters and result keys of the Hub's modules where the Hub has them, so that
``Accuracy()`` does what ``evaluate.load("accuracy")`` does, without a network and without executing a script.
The modules for probabilities and numbers are in ``metrics_scores``; this module names them all.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from nlp_transfer.errors import LabelError
from nlp_transfer.evaluation.metrics_base import BundledMetric, ExampleWeights, to_weights
from nlp_transfer.evaluation.metrics_counts import (
    Average,
    ClassCounter,
    Counts,
    FloatArray,
    IntArray,
    compute_cohen_kappa,
    compute_f1,
    compute_mcc,
    compute_precision,
    compute_quadratic_kappa,
    compute_recall,
)
from nlp_transfer.evaluation.metrics_errors import compute_mean
from nlp_transfer.evaluation.metrics_scores import (
    AveragePrecision,
    BrierScore,
    ExpectedCalibrationError,
    LogLoss,
    Mae,
    Mse,
    Pearsonr,
    RocAuc,
    Spearmanr,
)

__all__ = [
    "BUNDLED",
    "F1",
    "Accuracy",
    "AveragePrecision",
    "BrierScore",
    "CohenKappa",
    "ExpectedCalibrationError",
    "LogLoss",
    "Mae",
    "MatthewsCorrelation",
    "Mse",
    "Pearsonr",
    "Precision",
    "Recall",
    "RocAuc",
    "Spearmanr",
]

HubAverage = Literal["binary", "macro", "micro", "weighted"] | None
ClassIds = list[int] | list[list[int]]

_SKLEARN = "https://scikit-learn.org/stable/modules/generated/sklearn.metrics."


class Accuracy(BundledMetric):
    """Share of the examples whose prediction equals the reference; whole rows in the configuration multilabel.

    Example:
        >>> Accuracy().compute(predictions=[0, 1, 1, 0], references=[0, 1, 0, 0])
        {'accuracy': 0.75}
    """

    module_name = "accuracy"
    reference_url = _SKLEARN + "accuracy_score.html"

    def _compute(
        self,
        predictions: ClassIds,
        references: ClassIds,
        normalize: bool = True,
        sample_weight: ExampleWeights = None,
    ) -> dict[str, float]:
        same = np.asarray(predictions) == np.asarray(references)
        right = (same.all(axis=1) if same.ndim == 2 else same).astype(np.float64)
        weights = to_weights(sample_weight, len(right))
        figure = compute_mean(right, weights) if normalize else right @ weights
        return {"accuracy": float(figure[0])}


class _ClassMetric(BundledMetric):
    """A metric of one class that is averaged over classes."""

    def _score(
        self,
        score: Callable[..., FloatArray],
        predictions: ClassIds,
        references: ClassIds,
        labels: list[int] | None,
        pos_label: int,
        average: HubAverage,
        sample_weight: ExampleWeights,
        zero_division: float,
    ) -> float | FloatArray:
        """Count the classes, then score them as the Hub's parameters ask."""
        true, predicted = np.asarray(references), np.asarray(predictions)
        names = np.arange(true.shape[1]) if true.ndim == 2 else np.union1d(true, predicted)
        if average == "binary":
            if true.ndim == 2 or len(np.union1d(names, [pos_label])) > 2:
                raise LabelError(
                    f"{self.module_name}: expected two classes for average='binary', got {len(names)}; "
                    f"pass average='macro', 'micro', 'weighted' or None."
                )
            labels = [pos_label]
        # Classes that were asked for come first, then those that are only in the data.
        wanted = np.asarray(names if labels is None else labels)
        known = np.concatenate([wanted, np.setdiff1d(names, wanted)])
        if true.ndim == 2:
            true, predicted = true[:, known], predicted[:, known]
        else:
            true, predicted = _number(true, known), _number(predicted, known)
        counter = ClassCounter(true, predicted, len(known))
        counts = counter.count(to_weights(sample_weight, len(true)))
        chosen = Counts(
            counts.correct[: len(wanted)],
            counts.true[: len(wanted)],
            counts.predicted[: len(wanted)],
            counts.total,
            every_class=labels is not None or counter.every_class,
        )
        how: Average | None = "macro" if average == "binary" else average
        figures = score(chosen, how, zero_division=zero_division)
        return figures[:, 0] if average is None else float(figures[0])


def _number(ids: IntArray, known: IntArray) -> IntArray:
    """Position of each class id among the known ones."""
    order = np.argsort(known)
    return np.asarray(order[np.searchsorted(known, ids, sorter=order)], dtype=np.int64)


class Precision(_ClassMetric):
    """Share of what was given a class that belongs to it; 0 for a class that was never predicted.

    Example:
        >>> Precision().compute(predictions=[0, 0, 1, 1, 0], references=[0, 1, 0, 1, 0])
        {'precision': 0.5}
    """

    module_name = "precision"
    reference_url = _SKLEARN + "precision_score.html"

    def _compute(
        self,
        predictions: ClassIds,
        references: ClassIds,
        labels: list[int] | None = None,
        pos_label: int = 1,
        average: HubAverage = "binary",
        sample_weight: ExampleWeights = None,
        zero_division: float = 0.0,
    ) -> dict[str, float | FloatArray]:
        score = self._score(
            compute_precision, predictions, references, labels, pos_label, average, sample_weight, zero_division
        )
        return {"precision": score}


class Recall(_ClassMetric):
    """Share of a class that was found; 0 for a class without examples.

    Example:
        >>> Recall().compute(predictions=[0, 1, 0, 1], references=[0, 0, 1, 1])
        {'recall': 0.5}
    """

    module_name = "recall"
    reference_url = _SKLEARN + "recall_score.html"

    def _compute(
        self,
        predictions: ClassIds,
        references: ClassIds,
        labels: list[int] | None = None,
        pos_label: int = 1,
        average: HubAverage = "binary",
        sample_weight: ExampleWeights = None,
        zero_division: float = 0.0,
    ) -> dict[str, float | FloatArray]:
        score = self._score(
            compute_recall, predictions, references, labels, pos_label, average, sample_weight, zero_division
        )
        return {"recall": score}


class F1(_ClassMetric):
    """Harmonic mean of precision and recall; 0 for a class with neither examples nor predictions.

    Example:
        >>> F1().compute(predictions=[0, 0, 1, 1, 0], references=[0, 1, 0, 1, 0])
        {'f1': 0.5}
    """

    module_name = "f1"
    reference_url = _SKLEARN + "f1_score.html"

    def _compute(
        self,
        predictions: ClassIds,
        references: ClassIds,
        labels: list[int] | None = None,
        pos_label: int = 1,
        average: HubAverage = "binary",
        sample_weight: ExampleWeights = None,
    ) -> dict[str, float | FloatArray]:
        score = self._score(compute_f1, predictions, references, labels, pos_label, average, sample_weight, 0.0)
        return {"f1": score}


class MatthewsCorrelation(BundledMetric):
    """Correlation of references and predictions, for any number of classes; 0 where either is constant.

    Example:
        >>> found = MatthewsCorrelation().compute(references=[1, 3, 2, 0, 3, 2], predictions=[1, 2, 2, 0, 3, 3])
        >>> round(found["matthews_correlation"], 2)
        0.54
    """

    module_name = "matthews_correlation"
    reference_url = _SKLEARN + "matthews_corrcoef.html"

    def _compute(
        self, predictions: list[int], references: list[int], sample_weight: ExampleWeights = None
    ) -> dict[str, float]:
        true, predicted = np.asarray(references), np.asarray(predictions)
        names = np.union1d(true, predicted)
        counter = ClassCounter(_number(true, names), _number(predicted, names), len(names))
        return {self.module_name: float(compute_mcc(counter.count(to_weights(sample_weight, len(true))))[0])}


class CohenKappa(BundledMetric):
    """Agreement of references and predictions beyond chance; 0 where both are the same constant.

    Not a module of the Hub. ``weights="quadratic"`` lets a miss cost the square of its distance in ``labels``.

    Example:
        >>> CohenKappa().compute(predictions=[0, 1, 1, 0], references=[0, 1, 0, 0])
        {'cohen_kappa': 0.5}
    """

    module_name = "cohen_kappa"
    reference_url = _SKLEARN + "cohen_kappa_score.html"

    def _compute(
        self,
        predictions: list[int],
        references: list[int],
        labels: list[int] | None = None,
        weights: Literal["quadratic"] | None = None,
        sample_weight: ExampleWeights = None,
    ) -> dict[str, float]:
        true, predicted = np.asarray(references), np.asarray(predictions)
        names = np.union1d(true, predicted) if labels is None else np.asarray(labels)
        if strangers := np.setdiff1d(np.union1d(true, predicted), names).tolist():
            raise LabelError(
                f"cohen_kappa: expected classes among {names.tolist()}, got {strangers}; add them to labels."
            )
        true, predicted = _number(true, names), _number(predicted, names)
        of_examples = to_weights(sample_weight, len(true))
        counts = ClassCounter(true, predicted, len(names)).count(of_examples)
        if weights is None:
            return {self.module_name: float(compute_cohen_kappa(counts)[0])}
        squares = ((true - predicted) ** 2).astype(np.float64)
        return {self.module_name: float(compute_quadratic_kappa(counts, squares, of_examples)[0])}


BUNDLED: dict[str, type[BundledMetric]] = {
    module.module_name: module
    for module in (
        Accuracy,
        Precision,
        Recall,
        F1,
        MatthewsCorrelation,
        CohenKappa,
        RocAuc,
        AveragePrecision,
        LogLoss,
        ExpectedCalibrationError,
        BrierScore,
        Mse,
        Mae,
        Pearsonr,
        Spearmanr,
    )
}
"""Every bundled module by its id."""
