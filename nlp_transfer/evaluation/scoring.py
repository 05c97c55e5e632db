"""From probabilities and labels to the scores of a report: figures and their intervals."""

from collections.abc import Sequence

import numpy as np

from nlp_transfer.contracts import LabelSpace, Score
from nlp_transfer.errors import ShapeError
from nlp_transfer.evaluation.intervals import bootstrap_values, percentile_interval
from nlp_transfer.evaluation.metrics.counts import FloatArray
from nlp_transfer.evaluation.metrics.registry import STATISTICS, Sample, Tally, check_metrics, name_scores
from nlp_transfer.evaluation.predictions import gather_sample, predict_labels, to_probabilities
from nlp_transfer.recipe.metrics import LOWER_IS_BETTER
from nlp_transfer.recipe.metrics import TABLE as METRICS

__all__ = [
    "compute_metrics",
    "find_undefined_metrics",
    "is_better",
    "predict_labels",
    "score_gain",
    "score_seeds",
    "score_split",
    "to_probabilities",
]


def _compute(sample: Sample, metrics: Sequence[str], weights: FloatArray) -> FloatArray:
    """Compute every figure on every weighted sample, shape (M, R), in the order of ``name_scores``."""
    tally = Tally(sample, weights)
    return np.concatenate([np.atleast_2d(STATISTICS[metric](tally)) for metric in dict.fromkeys(metrics)])


def compute_metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    space: LabelSpace,
    metrics: Sequence[str],
    *,
    thresholds: Sequence[float | None] | None = None,
) -> dict[str, float]:
    """Compute metrics without intervals, fast enough for every evaluation.

    Args:
        labels: int64 (N,), 0 / 1 (N, C) or float (N,), by kind of task.
        probabilities: Float, shape (N, C), from ``to_probabilities``.
        space: The label contract.
        metrics: Report keys of ``recipe.schema.METRICS``.
        thresholds: As ``predict_labels`` takes them.

    Returns:
        Report key to figure, ``*_per_class`` spread over the label names; a metric that these labels leave
        undefined is left out (``find_undefined_metrics`` says why).

    Raises:
        ShapeError: The inputs disagree on a size, or hold nothing, or are logits.
        LabelError: A label is outside the label contract.
        RecipeError: A metric does not suit the task.
        TransferError: Predictions are not finite.

    Example:
        >>> space = LabelSpace("classification", ("no", "yes"))
        >>> compute_metrics(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]), space, ["accuracy", "f1_per_class"])
        {'accuracy': 0.5, 'f1_no': 0.6666666666666666, 'f1_yes': 0.0}
    """
    check_metrics(metrics, space)
    sample = gather_sample(labels, probabilities, space, thresholds)
    figures = _compute(sample, metrics, np.ones((len(sample.labels), 1)))[:, 0]
    named = zip(name_scores(metrics, space), figures.tolist(), strict=True)
    return {key: figure for key, figure in named if not np.isnan(figure)}


def find_undefined_metrics(labels: np.ndarray, space: LabelSpace, metrics: Sequence[str]) -> dict[str, str]:
    """Say which metrics these labels leave undefined, and why.

    Args:
        labels: Labels of a split, as for ``compute_metrics``.
        space: The label contract.
        metrics: Report keys.

    Returns:
        Report key to one sentence; empty where all can be computed.

    Example:
        >>> space = LabelSpace("classification", ("no", "yes"))
        >>> find_undefined_metrics(np.array([1, 1]), space, ["accuracy", "roc_auc"])
        {'roc_auc': 'roc_auc is left out: no class has examples both in it and outside it.'}
    """
    if "roc_auc" not in metrics or space.kind == "regression":
        return {}
    truth = np.asarray(labels)
    varied = (truth != truth[:1]).any()
    return {} if varied else {"roc_auc": "roc_auc is left out: no class has examples both in it and outside it."}


def score_split(
    labels: np.ndarray,
    probabilities: np.ndarray,
    space: LabelSpace,
    metrics: Sequence[str],
    *,
    resamples: int,
    confidence: float,
    seed: int = 0,
    thresholds: Sequence[float | None] | None = None,
) -> dict[str, Score]:
    """Score a split once, with a percentile bootstrap interval for every figure.

    Args:
        labels: int64 (N,), 0 / 1 (N, C) or float (N,), by kind of task.
        probabilities: Float, shape (N, C), from ``to_probabilities``.
        space: The label contract.
        metrics: Report keys of ``recipe.schema.METRICS``.
        resamples: Count of bootstrap resamples.
        confidence: Coverage of the intervals, in (0, 1).
        seed: Seed of the resamples; all metrics share them.
        thresholds: As ``predict_labels`` takes them.

    Returns:
        Report key to score, as ``compute_metrics`` names them. An interval always holds its value: where the
        bootstrap is biased away from it, as it is for a small calibration error, the interval is widened up to it.

    Raises:
        ShapeError: The inputs disagree on a size, or hold nothing, or are logits.
        LabelError: A label is outside the label contract.
        RecipeError: A metric does not suit the task.
        TransferError: Predictions are not finite.

    Example:
        >>> space = LabelSpace("classification", ("no", "yes"))
        >>> probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
        >>> labels = np.array([0, 0, 1, 1])
        >>> score_split(labels, probabilities, space, ["accuracy"], resamples=1000, confidence=0.95)["accuracy"]
        Score(value=0.75, low=0.25, high=1.0, n=4, spread=None, per_seed=())
    """
    return score_seeds(
        [probabilities],
        labels,
        space,
        metrics,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
        thresholds=None if thresholds is None else [thresholds],
    )


def score_seeds(
    probabilities: Sequence[np.ndarray],
    labels: np.ndarray,
    space: LabelSpace,
    metrics: Sequence[str],
    *,
    resamples: int,
    confidence: float,
    seed: int = 0,
    thresholds: Sequence[Sequence[float | None]] | None = None,
) -> dict[str, Score]:
    """Score one split as several training seeds predicted it.

    The value is the mean over the seeds. The interval resamples the examples, the same ones for all seeds, and
    averages over the seeds: it says how sure the mean is of these seeds, the spread how much a seed matters.

    Args:
        probabilities: Float, shape (N, C), one array a seed.
        labels: Labels of the split, the same for all seeds.
        space: The label contract.
        metrics: Report keys of ``recipe.schema.METRICS``.
        resamples: Count of bootstrap resamples.
        confidence: Coverage of the intervals, in (0, 1).
        seed: Seed of the resamples.
        thresholds: One list a seed, as ``predict_labels`` takes them.

    Returns:
        Report key to score; spread (sample standard deviation) and per_seed are filled from two seeds on.

    Raises:
        ShapeError: The inputs disagree on a size, or hold nothing, or are logits.
        LabelError: A label is outside the label contract.
        RecipeError: A metric does not suit the task.
        TransferError: Predictions are not finite.
    """
    samples = _gather_seeds(probabilities, labels, space, metrics, thresholds)
    n = len(samples[0].labels)
    per_seed = np.stack([_score_whole(sample, metrics) for sample in samples])
    drawn = bootstrap_values(
        lambda weights: np.mean([_compute(sample, metrics, weights) for sample in samples], axis=0),
        n,
        resamples=resamples,
        seed=seed,
    )
    scores: dict[str, Score] = {}
    for row, key in enumerate(name_scores(metrics, space)):
        figures = per_seed[:, row]
        if np.isnan(figures).any():
            continue
        scores[key] = _to_score(figures, drawn[row], n, confidence)
    return scores


def score_gain(
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    labels: np.ndarray,
    space: LabelSpace,
    metrics: Sequence[str],
    *,
    resamples: int,
    confidence: float,
    seed: int = 0,
    thresholds: Sequence[Sequence[float | None]] | None = None,
) -> dict[str, Score]:
    """Score the difference between two systems on the same resamples of the same examples.

    Args:
        ours: Float, shape (N, C), one array a seed of the first system.
        theirs: The same of the second system; it may have another number of seeds.
        labels: Labels of the split.
        space: The label contract.
        metrics: Report keys of ``recipe.schema.METRICS``.
        resamples: Count of bootstrap resamples.
        confidence: Coverage of the intervals, in (0, 1).
        seed: Seed of the resamples.
        thresholds: One list a seed of the first system; the second decides without.

    Returns:
        Report key to mean of the first minus mean of the second, in the metric's unit and direction; a difference
        is real at this confidence where the interval leaves out 0.

    Raises:
        ShapeError: The inputs disagree on a size, or hold nothing, or are logits.
        LabelError: A label is outside the label contract.
        RecipeError: A metric does not suit the task.
        TransferError: Predictions are not finite.
    """
    first = _gather_seeds(ours, labels, space, metrics, thresholds)
    second = _gather_seeds(theirs, labels, space, metrics, None)
    n = len(first[0].labels)

    def difference(weights: FloatArray) -> FloatArray:
        means = [np.mean([_compute(sample, metrics, weights) for sample in side], axis=0) for side in (first, second)]
        return np.asarray(means[0] - means[1])

    values = difference(np.ones((n, 1)))
    drawn = bootstrap_values(difference, n, resamples=resamples, seed=seed)
    keys = name_scores(metrics, space)
    return {
        key: _to_score(values[row], drawn[row], n, confidence)
        for row, key in enumerate(keys)
        if not np.isnan(values[row, 0])
    }


def _gather_seeds(
    probabilities: Sequence[np.ndarray],
    labels: np.ndarray,
    space: LabelSpace,
    metrics: Sequence[str],
    thresholds: Sequence[Sequence[float | None]] | None,
) -> list[Sample]:
    """Check what every seed predicted."""
    check_metrics(metrics, space)
    if not probabilities or (thresholds is not None and len(thresholds) != len(probabilities)):
        raise ShapeError("scores: expected predictions of at least one seed, and thresholds of as many or none.")
    of_seed: Sequence[Sequence[float | None] | None] = [None] * len(probabilities) if thresholds is None else thresholds
    return [gather_sample(labels, values, space, limits) for values, limits in zip(probabilities, of_seed, strict=True)]


def _to_score(figures: FloatArray, drawn: FloatArray, n: int, confidence: float) -> Score:
    """Put a figure, its interval and its seeds together."""
    value = float(figures.mean())
    interval = percentile_interval(drawn, confidence)
    # fmin and fmax pass over a NaN interval.
    low, high = float(np.fmin(interval.low, value)), float(np.fmax(interval.high, value))
    if len(figures) == 1:
        return Score(value, low, high, n)
    return Score(value, low, high, n, float(figures.std(ddof=1)), tuple(figures.tolist()))


def _score_whole(sample: Sample, metrics: Sequence[str]) -> FloatArray:
    """Score the whole split, shape (M,): class metrics through their bundled ``evaluate`` modules.

    Modules that read 32-bit floats would round probabilities, and with them the order of a ranking; those figures
    come from the functions below the modules.
    """
    figures = _compute(sample, metrics, np.ones((len(sample.labels), 1)))[:, 0]
    config = "multilabel" if sample.space.kind == "multi_label" else None
    for row, key in enumerate(name_scores(metrics, sample.space)):
        if key in metrics and (module := METRICS[key].hub):
            # Only here, because evaluate brings transformers' pipelines with it.
            from nlp_transfer.evaluation.metrics.modules import BUNDLED

            figures[row] = BUNDLED[module](config).compute(
                predictions=sample.predicted, references=sample.class_labels, **METRICS[key].arguments
            )[module]
    return figures


def is_better(metric: str, a: float, b: float) -> bool:
    """Whether figure ``a`` of a metric is better than ``b``; NaN is never better, and any number beats it.

    Example:
        >>> is_better("accuracy", 0.9, 0.8), is_better("log_loss", 0.9, 0.8)
        (True, False)
    """
    if np.isnan(a) or np.isnan(b):
        return bool(np.isnan(b) and not np.isnan(a))
    return a < b if metric in LOWER_IS_BETTER else a > b
