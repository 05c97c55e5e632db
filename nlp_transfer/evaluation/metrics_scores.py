"""Bundled ``evaluate`` modules that score probabilities and numbers.

Columns have the Hub's types, 32-bit floats included; reports are computed from 64-bit floats by the functions below
these modules.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from datasets import Features, Sequence, Value
from sklearn import metrics as sklearn_metrics

from nlp_transfer.evaluation.calibration import BINS, CalibrationCounter
from nlp_transfer.evaluation.metrics_base import BundledMetric, ExampleWeights, to_weights
from nlp_transfer.evaluation.metrics_counts import FloatArray
from nlp_transfer.evaluation.metrics_errors import compute_mean, compute_pearson, compute_spearman, measure_log_loss

__all__ = [
    "AveragePrecision",
    "BrierScore",
    "ExpectedCalibrationError",
    "LogLoss",
    "Mae",
    "Mse",
    "Pearsonr",
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
