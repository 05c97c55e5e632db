"""How far stated confidence can be trusted, and the maps that make it honest: temperature and isotonic regression."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import minimize_scalar

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import ArtifactError, DataError, ShapeError, name_cause
from nlp_transfer.evaluation.metrics.counts import FloatArray, IntArray, divide

__all__ = [
    "BINS",
    "CalibrationCounter",
    "Calibrator",
    "CalibratorKind",
    "Knots",
    "ReliabilityBins",
    "brier_score",
    "expected_calibration_error",
    "fit_calibrator",
    "fit_temperature",
    "keep_order",
    "measure_brier",
    "read_calibrator",
    "reliability_bins",
]

BINS = 15
"""Count of equal-width bins; the choice of Guo et al. 2017."""


@dataclass(frozen=True)
class ReliabilityBins:
    """What a reliability diagram draws; K bins over (0, 1].

    Attributes:
        edges: Borders of the bins, float64, shape (K + 1,).
        counts: Examples per bin, int64, shape (K,).
        confidence: Mean top-class probability per bin, float64, shape (K,); NaN where a bin is empty.
        accuracy: Share of correct top classes per bin, float64, shape (K,); NaN where a bin is empty.
    """

    edges: FloatArray
    counts: IntArray
    confidence: FloatArray
    accuracy: FloatArray


class CalibrationCounter:
    """Computes the calibration error for many weightings of the same examples.

    Args:
        probabilities: Class probabilities, float64, shape (N, C).
        labels: True class ids, int64, shape (N,).
        bins: Number of equal-width bins over (0, 1].
    """

    def __init__(self, probabilities: FloatArray, labels: IntArray, *, bins: int = BINS) -> None:
        confidence, correct, of_bin = _file(probabilities, labels, bins)
        positions = np.arange(len(labels))
        self._gaps = sparse.csr_array((correct - confidence, (of_bin, positions)), shape=(bins, len(labels)))

    def compute(self, weights: FloatArray) -> FloatArray:
        """Calibration error of each sample, shape (R,); weights are float64, shape (N, R)."""
        # A bin's |accuracy - confidence| times its share is the size of its summed gaps over N.
        return divide(np.abs(self._gaps @ weights).sum(axis=0), weights.sum(axis=0))


def _file(probabilities: FloatArray, labels: IntArray, bins: int) -> tuple[FloatArray, npt.NDArray[np.bool_], IntArray]:
    """Each example's confidence, whether it is right, and its bin."""
    if probabilities.ndim != 2 or len(probabilities) != len(labels) or not len(labels):
        raise ShapeError(
            f"calibration: expected probabilities (N, C) and labels (N,) with N of at least 1, "
            f"got {probabilities.shape} and {labels.shape}; pass both for the same examples."
        )
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    of_bin = np.ceil(confidence * bins).astype(np.int64) - 1
    return confidence, correct, np.clip(of_bin, 0, bins - 1)


def expected_calibration_error(probabilities: FloatArray, labels: IntArray, *, bins: int = BINS) -> float:
    """Measure how far stated confidence sits from observed accuracy.

    Each example is filed by its top-class confidence into equal-width bins over (0, 1];
    every bin adds |accuracy - confidence|, weighted by its share of the examples.

    Args:
        probabilities: Class probabilities, float, shape (N, C); every row sums to 1.
        labels: True class ids, int64, shape (N,), each in [0, C).
        bins: Number of equal-width bins; 15 is the source's choice.

    Returns:
        A fraction in [0, 1], not a percentage; 0 means perfectly calibrated.

    Raises:
        ShapeError: The two inputs disagree on N, or N is 0.

    Source:
        Guo et al. 2017, section 2, https://arxiv.org/abs/1706.04599. No departures.

    Example:
        >>> probabilities = np.array([[0.9, 0.1], [0.6, 0.4]])
        >>> round(expected_calibration_error(probabilities, np.array([0, 1]), bins=2), 3)
        0.25
    """
    counter = CalibrationCounter(probabilities, labels, bins=bins)
    return float(counter.compute(np.ones((len(labels), 1)))[0])


def reliability_bins(probabilities: FloatArray, labels: IntArray, bins: int = BINS) -> ReliabilityBins:
    """Compare confidence with accuracy bin by bin, for a reliability diagram.

    Args:
        probabilities: Class probabilities, float, shape (N, C); every row sums to 1.
        labels: True class ids, int64, shape (N,), each in [0, C).
        bins: Number of equal-width bins over (0, 1].

    Returns:
        Counts, mean confidence and accuracy of every bin; empty bins hold NaN.

    Raises:
        ShapeError: The two inputs disagree on N, or N is 0.

    Example:
        >>> found = reliability_bins(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1]), bins=2)
        >>> found.counts.tolist(), found.accuracy.tolist()
        ([0, 2], [nan, 0.5])
    """
    confidence, correct, of_bin = _file(probabilities, labels, bins)
    counts = np.bincount(of_bin, minlength=bins)
    sizes = counts.astype(np.float64)
    confidences: FloatArray = np.bincount(of_bin, weights=confidence, minlength=bins).astype(np.float64)
    hits: FloatArray = np.bincount(of_bin, weights=correct, minlength=bins).astype(np.float64)
    empty = float("nan")
    return ReliabilityBins(
        edges=np.linspace(0.0, 1.0, bins + 1),
        counts=counts,
        confidence=divide(confidences, sizes, default=empty),
        accuracy=divide(hits, sizes, default=empty),
    )


def measure_brier(labels: IntArray, probabilities: FloatArray) -> FloatArray:
    """Squared distance of each example's probabilities from the truth.

    Args:
        labels: True class ids, int64, shape (N,).
        probabilities: Class probabilities, float64, shape (N, C).

    Returns:
        Shape (N,), lower is better. Two classes: the squared error of one of them, in [0, 1]. More: the sum over
        the classes, in [0, 2]. Both as scikit-learn has it.
    """
    truth = np.zeros_like(probabilities)
    truth[np.arange(len(labels)), labels] = 1.0
    squares: FloatArray = ((probabilities - truth) ** 2).sum(axis=1)
    return squares / 2 if probabilities.shape[1] == 2 else squares


def brier_score(probabilities: FloatArray, labels: IntArray) -> float:
    """Mean squared distance of stated probabilities from the truth.

    Args:
        probabilities: Class probabilities, float, shape (N, C); every row sums to 1.
        labels: True class ids, int64, shape (N,), each in [0, C).

    Returns:
        In [0, 1] for two classes and in [0, 2] for more; lower is better.

    Raises:
        ShapeError: The two inputs disagree on N, or N is 0.

    Source:
        Brier 1950, "Verification of forecasts expressed in terms of probability". Departure: halved for two classes,
        as is usual today.

    Example:
        >>> round(brier_score(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1])), 3)
        0.185
    """
    _file(probabilities, labels, BINS)
    return float(measure_brier(labels, probabilities).mean())


LOWEST, HIGHEST = 0.01, 100.0
"""Bounds of a temperature; chosen."""


def fit_temperature(logits: np.ndarray, labels: np.ndarray, space: LabelSpace) -> float:
    """Find the temperature whose probabilities have the least log-loss.

    Dividing logits by one number changes no prediction of exclusive classes, only how sure it claims to be. One row's
    weight speaks for the other classes: rows without a mistake would otherwise ask for a temperature of 0, which
    claims that there never will be one.

    Args:
        logits: Float, shape (N, C).
        labels: Class ids, int64, shape (N,), or 0 / 1 of each label, shape (N, C).
        space: The label contract; a regression has no temperature.

    Returns:
        A number in [0.01, 100]; above 1 the logits were too sure.

    Raises:
        ShapeError: The two inputs disagree on N, or N is 0.

    Source:
        Guo et al. 2017, section 4.2, https://arxiv.org/abs/1706.04599. Departures: targets are smoothed as in Platt
        1999, "Probabilistic outputs for support vector machines", section 2.2, by 1 / (N + 2); each label of a
        multi-label task counts on its own.

    Example:
        >>> space = LabelSpace("classification", ("no", "yes"))
        >>> logits = np.array([[0.0, 8.0]] * 4)
        >>> round(fit_temperature(logits, np.array([1, 1, 1, 0]), space), 2)  # 3 of 4, and one each way: odds of 2
        11.54
    """
    values = np.asarray(logits, dtype=np.float64)
    if len(values) != len(labels) or not len(values):
        raise ShapeError(f"temperature: expected a label for each of {len(values)} examples, got {len(labels)}.")
    truth = np.eye(space.num_outputs)[labels] if space.is_categorical else np.asarray(labels, dtype=np.float64)
    doubt = 1 / (len(values) + 2)
    truth = (1 - doubt) * truth + doubt * (1 - truth) / (space.num_outputs - 1 if space.is_categorical else 1)

    def measure_loss(log_temperature: float) -> float:
        """Mean log-loss at a temperature."""
        scaled = values / math.exp(log_temperature)
        if space.is_categorical:
            top = scaled.max(axis=1, keepdims=True)
            total = top + np.log(np.exp(scaled - top).sum(axis=1, keepdims=True))
            return float((truth * (total - scaled)).sum(axis=1).mean())
        return float((np.logaddexp(0.0, scaled) - truth * scaled).mean())

    bounds = (math.log(LOWEST), math.log(HIGHEST))
    found = minimize_scalar(measure_loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return math.exp(float(found.x))


CalibratorKind = Literal["temperature", "isotonic"]

TINY = 1e-300
"""Least probability whose logarithm is taken."""

RAW_SHARE = 1e-6
"""Share of the raw probabilities that is mixed in where isotonic steps make ties, so that ties fall as they did before;
chosen: a thousandth of what a report shows."""

FEWEST = 50
"""Validation rows below which isotonic regression follows noise and is refused; chosen."""


@dataclass(frozen=True)
class Knots:
    """One class's map: piecewise linear between these points, constant outside them.

    Attributes:
        stated: Raw probabilities, ascending.
        observed: What they are mapped to, ascending.
    """

    stated: tuple[float, ...]
    observed: tuple[float, ...]


@dataclass(frozen=True)
class Calibrator:
    """A fitted map from probabilities to probabilities.

    Attributes:
        kind: ``temperature`` or ``isotonic``.
        temperature: Divides the logits; 1 for ``isotonic``.
        knots: One map a class for ``isotonic``, empty otherwise.
        num_rows: Validation rows it was fitted on.

    Example:
        >>> cooler = Calibrator("temperature", temperature=2.0)
        >>> cooler.apply(np.array([[0.9, 0.1]])).round(3).tolist()
        [[0.75, 0.25]]
    """

    kind: CalibratorKind
    temperature: float = 1.0
    knots: tuple[Knots, ...] = ()
    num_rows: int = 0

    def apply(self, probabilities: FloatArray) -> FloatArray:
        """Map probabilities of exclusive classes.

        Args:
            probabilities: Float, shape (N, C); rows sum to 1.

        Returns:
            Float64, shape (N, C); rows sum to 1 and keep the order of their classes, so every decision stays.

        Raises:
            ShapeError: An isotonic map has another number of classes.
        """
        raw = np.asarray(probabilities, dtype=np.float64)
        if self.kind == "temperature":
            logits = np.log(np.maximum(raw, TINY)) / self.temperature
            powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True))
        if raw.ndim != 2 or raw.shape[1] != len(self.knots):
            raise ShapeError(f"calibration: expected {len(self.knots)} classes, as it was fitted, got {raw.shape}.")
        columns = zip(raw.T, self.knots, strict=True)
        mapped = np.stack([np.interp(column, own.stated, own.observed) for column, own in columns], axis=1)
        return keep_order(mapped / mapped.sum(axis=1, keepdims=True), raw)

    def to_json(self) -> dict[str, Any]:
        """The map as ``nlp_transfer.json`` holds it."""
        record: dict[str, Any] = {"kind": self.kind, "fitted_on": "validation", "num_rows": self.num_rows}
        if self.kind == "temperature":
            return {**record, "temperature": self.temperature}
        return {**record, "knots": [{"stated": list(k.stated), "observed": list(k.observed)} for k in self.knots]}


def keep_order(values: FloatArray, raw: FloatArray) -> FloatArray:
    """Find the nearest probabilities that put the classes of each row in the order they had.

    Isotonic maps of single classes may swap two classes of a row. Where they do, the row is projected onto the raw
    order (its swapped neighbors share their mean), and a trace of the raw values settles ties.

    Args:
        values: Float64, shape (N, C); rows sum to 1.
        raw: What the order is read from, shape (N, C); rows sum to 1.

    Returns:
        Float64, shape (N, C); rows sum to 1.

    Source:
        Zhang, Kailkhura and Han 2020, section 3, https://arxiv.org/abs/2003.07329, for calibration that keeps
        accuracy. Departure: a projection in place of a map shared by all classes.

    Example:
        >>> keep_order(np.array([[0.2, 0.6, 0.2]]), np.array([[0.5, 0.4, 0.1]])).round(3).tolist()
        [[0.4, 0.4, 0.2]]
    """
    order = np.argsort(-raw, axis=1, kind="stable")
    sorted_NC = np.take_along_axis(values, order, axis=1)
    for row in np.flatnonzero((np.diff(sorted_NC, axis=1) > 0).any(axis=1)):
        sorted_NC[row] = _pool_descending(sorted_NC[row])
    found = np.empty_like(sorted_NC)
    np.put_along_axis(found, order, sorted_NC, axis=1)
    return (1 - RAW_SHARE) * found + RAW_SHARE * raw


def _pool_descending(values: FloatArray) -> FloatArray:
    """The nearest sequence that does not ascend: pool adjacent violators."""
    means: list[float] = []
    sizes: list[int] = []
    for value in values.tolist():
        means.append(value)
        sizes.append(1)
        while len(means) > 1 and means[-2] < means[-1]:
            size = sizes[-2] + sizes[-1]
            means[-2:] = [(means[-2] * sizes[-2] + means[-1] * sizes[-1]) / size]
            sizes[-2:] = [size]
    return np.repeat(means, sizes)


def fit_calibrator(
    kind: CalibratorKind, probabilities: np.ndarray, labels: np.ndarray, space: LabelSpace
) -> Calibrator:
    """Fit a map on rows that the weights were not trained on.

    Args:
        kind: ``temperature`` (one number, hard to overfit) or ``isotonic`` (one map a class against the rest, for
            validation splits of a thousand rows or more).
        probabilities: Raw, float, shape (N, C), of validation.
        labels: Class ids, int64, shape (N,).
        space: The label contract; its classes are exclusive.

    Returns:
        The map.

    Raises:
        ShapeError: The inputs disagree on N, or classes are not exclusive.
        DataError: There are too few rows for ``isotonic``.

    Source:
        Guo et al. 2017, section 4, https://arxiv.org/abs/1706.04599 (temperature); Zadrozny and Elkan 2002,
        "Transforming classifier scores into accurate multiclass probability estimates" (isotonic). Departures: an
        isotonic map stays one row's weight away from 0 and 1, and keeps each row's order of classes.

    Example:
        >>> space = LabelSpace("classification", ("no", "yes"))
        >>> stated = np.array([[0.02, 0.98]] * 100)
        >>> truth = np.array([1] * 75 + [0] * 25)
        >>> fit_calibrator("isotonic", stated, truth, space).apply(stated)[0].round(2).tolist()
        [0.25, 0.75]
    """
    values, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if not space.is_categorical:
        raise ShapeError(f"calibration: expected exclusive classes, got task.kind={space.kind}. Leave it at none.")
    if values.ndim != 2 or len(values) != len(truth) or not len(truth):
        raise ShapeError(f"calibration: expected a label for each of {len(values)} examples, got {len(truth)}.")
    if kind == "temperature":
        from nlp_transfer.evaluation.calibration import fit_temperature

        temperature = fit_temperature(np.log(np.maximum(values, TINY)), truth, space)
        return Calibrator("temperature", temperature=temperature, num_rows=len(truth))
    if len(truth) < FEWEST:
        raise DataError(
            f"evaluation.calibration: isotonic expected {FEWEST} validation rows or more, came {len(truth)}. "
            "Use temperature, or give more rows."
        )
    knots = tuple(_fit_knots(values[:, column], truth == column) for column in range(values.shape[1]))
    return Calibrator("isotonic", knots=knots, num_rows=len(truth))


def _fit_knots(stated: FloatArray, is_own: np.ndarray) -> Knots:
    """One class against the rest."""
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(stated, is_own.astype(np.float64))
    edge = 1 / (len(stated) + 2)
    observed = np.clip(model.y_thresholds_, edge, 1 - edge)
    return Knots(tuple(model.X_thresholds_.tolist()), tuple(observed.tolist()))


def read_calibrator(metadata: Mapping[str, Any], *, num_classes: int, where: str) -> Calibrator | None:
    """Read the map that an artefact holds.

    Args:
        metadata: What ``nlp_transfer.json`` holds.
        num_classes: C.
        where: The artefact, for messages.

    Returns:
        The map; None where the artefact has none.

    Raises:
        ArtifactError: What stands there is no map of that many classes.
    """
    record = metadata.get("calibration")
    if record is None:
        return None
    try:
        kind = record["kind"]
        if kind == "temperature":
            temperature = float(record["temperature"])
            if not (math.isfinite(temperature) and temperature > 0):
                raise ValueError(f"temperature {temperature}")
            return Calibrator("temperature", temperature=temperature, num_rows=int(record.get("num_rows", 0)))
        knots = tuple(Knots(tuple(map(float, k["stated"])), tuple(map(float, k["observed"]))) for k in record["knots"])
        if kind != "isotonic" or len(knots) != num_classes or not all(map(_is_sound, knots)):
            raise ValueError(f"{len(knots)} maps of kind {kind!r}")
        return Calibrator("isotonic", knots=knots, num_rows=int(record.get("num_rows", 0)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{where}: calibration: expected a temperature above 0 or knots of {num_classes} classes, came another "
            f"record ({name_cause(error)}). Copy the artefact again, or train it again."
        ) from error


def _is_sound(knots: Knots) -> bool:
    """Whether both sides ascend within [0, 1] and have the same length."""
    sides = (np.asarray(knots.stated), np.asarray(knots.observed))
    is_matched = len(knots.stated) == len(knots.observed) > 0
    return is_matched and all(((s >= 0) & (s <= 1)).all() and (np.diff(s) >= 0).all() for s in sides)
