"""Bundled ``evaluate`` modules.

They have the ids, columns, parameters and result keys of the Hub's modules where the Hub has them, so that
``Accuracy()`` does what ``evaluate.load("accuracy")`` does, without a network and without executing a script.
Columns have the Hub's types, 32-bit floats included; reports are computed from 64-bit floats by the functions below
these modules.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from datasets import Features, Sequence, Value
from sklearn import metrics as sklearn_metrics

from nlp_transfer.errors import LabelError
from nlp_transfer.evaluation.calibration import BINS, CalibrationCounter
from nlp_transfer.evaluation.metrics.base import BundledMetric, ExampleWeights, to_weights
from nlp_transfer.evaluation.metrics.counts import (
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
from nlp_transfer.evaluation.metrics.numbers import compute_mean, compute_pearson, compute_spearman, measure_log_loss

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

_SKLEARN = "https://scikit-learn.org/stable/modules/generated/sklearn.metrics."
_SCIPY = "https://docs.scipy.org/doc/scipy/reference/generated/scipy.stats."

MultiOutput = Literal["uniform_average", "raw_values"]


class _RankingMetric(BundledMetric):
    """A metric of scores; configurations multiclass and multilabel as the Hub's ``roc_auc`` has them."""

    def _features(self) -> Features:
        score, reference = Value("float32"), Value("int32")
        return Features(
            {
                "references": Sequence(reference) if self.config_name == "multilabel" else reference,
                "prediction_scores": score if self.config_name == "default" else Sequence(score),
            }
        )


class RocAuc(_RankingMetric):
    """Chance that a positive example scores above a negative one.

    Example:
        >>> found = RocAuc().compute(references=[1, 0, 1, 1, 0, 0], prediction_scores=[0.5, 0.2, 0.99, 0.3, 0.1, 0.7])
        >>> round(found["roc_auc"], 2)
        0.78
    """

    module_name = "roc_auc"
    reference_url = _SKLEARN + "roc_auc_score.html"

    def _compute(
        self,
        references: Any,
        prediction_scores: Any,
        average: Literal["micro", "macro", "weighted", "samples"] | None = "macro",
        sample_weight: ExampleWeights = None,
        max_fpr: float | None = None,
        multi_class: Literal["raise", "ovr", "ovo"] = "raise",
        labels: list[int] | None = None,
    ) -> dict[str, Any]:
        area = sklearn_metrics.roc_auc_score(
            np.asarray(references),
            np.asarray(prediction_scores),
            average=average,
            sample_weight=sample_weight,
            max_fpr=max_fpr,
            multi_class=multi_class,
            labels=labels,
        )
        return {self.module_name: float(area) if np.ndim(area) == 0 else area}


class AveragePrecision(_RankingMetric):
    """Mean precision over the positive examples, each at its own score as the threshold. Not a module of the Hub.

    Example:
        >>> found = AveragePrecision().compute(references=[1, 0, 1], prediction_scores=[0.9, 0.8, 0.7])
        >>> round(found["average_precision"], 4)
        0.8333
    """

    module_name = "average_precision"
    reference_url = _SKLEARN + "average_precision_score.html"

    def _compute(
        self,
        references: Any,
        prediction_scores: Any,
        average: Literal["micro", "macro", "weighted", "samples"] | None = "macro",
        pos_label: int = 1,
        sample_weight: ExampleWeights = None,
    ) -> dict[str, Any]:
        found = sklearn_metrics.average_precision_score(
            np.asarray(references),
            np.asarray(prediction_scores),
            average=average,
            pos_label=pos_label,
            sample_weight=sample_weight,
        )
        return {self.module_name: float(found) if np.ndim(found) == 0 else found}


class _ProbabilityMetric(BundledMetric):
    """A metric of class probabilities, 64-bit, one row an example."""

    def _features(self) -> Features:
        return Features({"predictions": Sequence(Value("float64")), "references": Value("int32")})


class LogLoss(_ProbabilityMetric):
    """Mean cost of the true class in nats. Not a module of the Hub.

    Example:
        >>> found = LogLoss().compute(predictions=[[0.9, 0.1], [0.5, 0.5]], references=[0, 1])
        >>> round(found["log_loss"], 4)
        0.3993
    """

    module_name = "log_loss"
    reference_url = _SKLEARN + "log_loss.html"

    def _compute(
        self, predictions: list[list[float]], references: list[int], sample_weight: ExampleWeights = None
    ) -> dict[str, float]:
        losses = measure_log_loss(np.asarray(references), np.asarray(predictions))
        return {self.module_name: float(compute_mean(losses, to_weights(sample_weight, len(losses)))[0])}


class ExpectedCalibrationError(_ProbabilityMetric):
    """How far stated confidence sits from observed accuracy (Guo et al. 2017). Not a module of the Hub.

    Example:
        >>> found = ExpectedCalibrationError().compute(predictions=[[0.9, 0.1], [0.6, 0.4]], references=[0, 1], bins=2)
        >>> round(found["expected_calibration_error"], 3)
        0.25
    """

    module_name = "expected_calibration_error"
    reference_url = "https://arxiv.org/abs/1706.04599"

    def _compute(
        self,
        predictions: list[list[float]],
        references: list[int],
        bins: int = BINS,
        sample_weight: ExampleWeights = None,
    ) -> dict[str, float]:
        counter = CalibrationCounter(np.asarray(predictions), np.asarray(references), bins=bins)
        return {self.module_name: float(counter.compute(to_weights(sample_weight, len(references)))[0])}


class BrierScore(BundledMetric):
    """Mean squared error of the positive class's probability.

    Example:
        >>> found = BrierScore().compute(references=[0, 0, 1, 1], predictions=[0.1, 0.9, 0.8, 0.3])
        >>> round(found["brier_score"], 4)
        0.3375
    """

    module_name = "brier_score"
    reference_url = _SKLEARN + "brier_score_loss.html"

    def _features(self) -> list[Features]:
        prediction = Value("float32")
        return [
            Features({"references": Value("float32"), "predictions": prediction}),
            Features({"references": Value("string"), "predictions": prediction}),
        ]

    def _compute(
        self,
        references: list[float] | list[str],
        predictions: list[float],
        sample_weight: ExampleWeights = None,
        pos_label: int | str = 1,
    ) -> dict[str, float]:
        truth = (np.asarray(references) == pos_label).astype(np.float64)
        squares = (np.asarray(predictions, dtype=np.float64) - truth) ** 2
        return {self.module_name: float(compute_mean(squares, to_weights(sample_weight, len(squares)))[0])}


class _NumberMetric(BundledMetric):
    """A metric of predicted numbers."""

    column_type = "float32"

    def _average_errors(
        self,
        measure: Callable[[FloatArray], FloatArray],
        predictions: Any,
        references: Any,
        sample_weight: ExampleWeights,
    ) -> FloatArray:
        """Average the errors of each output, shape (outputs,)."""
        errors = measure(np.asarray(predictions, dtype=np.float64) - np.asarray(references, dtype=np.float64))
        columns = errors[:, None] if errors.ndim == 1 else errors
        averages: FloatArray = np.average(columns, axis=0, weights=to_weights(sample_weight, len(columns))[:, 0])
        return averages


class Mse(_NumberMetric):
    """Mean squared error; its root with ``squared=False``.

    Example:
        >>> Mse().compute(predictions=[2.5, 0.0, 2, 8], references=[3, -0.5, 2, 7])
        {'mse': 0.375}
    """

    module_name = "mse"
    reference_url = _SKLEARN + "mean_squared_error.html"

    def _compute(
        self,
        predictions: Any,
        references: Any,
        sample_weight: ExampleWeights = None,
        multioutput: MultiOutput = "uniform_average",
        squared: bool = True,
    ) -> dict[str, float | FloatArray]:
        errors = self._average_errors(np.square, predictions, references, sample_weight)
        errors = errors if squared else np.sqrt(errors)
        return {self.module_name: errors if multioutput == "raw_values" else float(errors.mean())}


class Mae(_NumberMetric):
    """Mean absolute error.

    Example:
        >>> Mae().compute(predictions=[2.5, 0.0, 2, 8], references=[3, -0.5, 2, 7])
        {'mae': 0.5}
    """

    module_name = "mae"
    reference_url = _SKLEARN + "mean_absolute_error.html"

    def _compute(
        self,
        predictions: Any,
        references: Any,
        sample_weight: ExampleWeights = None,
        multioutput: MultiOutput = "uniform_average",
    ) -> dict[str, float | FloatArray]:
        errors = self._average_errors(np.abs, predictions, references, sample_weight)
        return {self.module_name: errors if multioutput == "raw_values" else float(errors.mean())}


class Pearsonr(_NumberMetric):
    """Linear correlation; 0 where references or predictions are constant.

    Example:
        >>> found = Pearsonr().compute(predictions=[10, 9, 2.5, 6, 4], references=[1, 2, 3, 4, 5])
        >>> round(found["pearsonr"], 2)
        -0.74
    """

    module_name = "pearsonr"
    reference_url = _SCIPY + "pearsonr.html"

    def _compute(
        self, predictions: list[float], references: list[float], return_pvalue: bool = False
    ) -> dict[str, float]:
        first, second = np.asarray(references, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
        found = {self.module_name: float(compute_pearson(first, second, np.ones((len(first), 1)))[0])}
        if return_pvalue:
            from scipy import stats

            found["p-value"] = float(stats.pearsonr(first, second).pvalue)
        return found


class Spearmanr(_NumberMetric):
    """Correlation of ranks; 0 where references or predictions are constant.

    Example:
        >>> found = Spearmanr().compute(predictions=[10, 9, 2.5, 6, 4], references=[1, 2, 3, 4, 5])
        >>> round(found["spearmanr"], 2)
        -0.7
    """

    module_name = "spearmanr"
    reference_url = _SCIPY + "spearmanr.html"

    def _compute(
        self, predictions: list[float], references: list[float], return_pvalue: bool = False
    ) -> dict[str, float]:
        first, second = np.asarray(references, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
        found = {self.module_name: float(compute_spearman(first, second, np.ones((len(first), 1)))[0])}
        if return_pvalue:
            from scipy import stats

            found["spearmanr_pvalue"] = float(stats.spearmanr(first, second).pvalue)
        return found


HubAverage = Literal["binary", "macro", "micro", "weighted"] | None
ClassIds = list[int] | list[list[int]]


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
