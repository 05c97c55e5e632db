"""From trials to the table: scores, differences from the best, collapsed seeds, and which rung to take."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from nlp_transfer.contracts import LabelSpace, Score
from nlp_transfer.evaluation.metrics.counts import FloatArray
from nlp_transfer.evaluation.predictions import predict_labels
from nlp_transfer.evaluation.scoring import compute_metrics, is_better, score_gain, score_seeds
from nlp_transfer.evaluation.significance import adjust_holm, compare_permutation
from nlp_transfer.evidence.compare.rungs import RUNGS
from nlp_transfer.evidence.compare.trials import Reference, Trial
from nlp_transfer.publishing.summary import format_duration, format_interval, format_number, name_metric
from nlp_transfer.recipe.schema import DEFAULT_METRICS, LOWER_IS_BETTER, METRICS, EvaluationConfig

__all__ = ["Row", "build_rows", "choose_metrics", "find_collapsed", "find_front", "recommend"]

NEAR_MAJORITY = 0.25
"""Share of the way from the majority class to the best other seed within which next to nothing was learned; chosen."""

CLEAR_GAIN = 0.05
"""Least gain of the other seeds over the majority class for that to mean anything; chosen."""

SWAPS = 9_999
"""Resamples of the paired test: p-values in steps of a ten-thousandth."""

NOISE_CONFIDENCE = 0.95
"""Coverage of the interval that the standard error of the recommendation is read from."""


@dataclass
class Row:
    """One rung of the finished ladder.

    Attributes:
        rung: Its name.
        says: What it is.
        seeds: Training seeds.
        validation: Metric to score on validation.
        test: Metric to score on test, mean over seeds, with interval and spread.
        difference: Metric by which is selected, minus that of the best on test.
        p_value: Of that difference, two-sided; 1 for the best itself.
        p_holm: The same, corrected for all comparisons of the table.
        seconds: Median wall time of one seed.
        training_seconds: Median time of its training.
        peak_memory_bytes: Largest of the seeds.
        parameters: Count of weights.
        trainable_share: Of the weights that it has, in [0, 1].
        saved_bytes: Size of what has to be kept.
        examples: Labelled rows that it learned from.
        epochs: Passes over them.
        collapsed: Seeds that learned next to nothing.
        folders: Run of every seed, as text.
        is_best: Whether its test score is the best of the table.
        is_on_front: Whether nothing cheaper is as good.
        is_recommended: Whether it is the one to take.
    """

    rung: str
    says: str
    seeds: list[int]
    validation: dict[str, Score]
    test: dict[str, Score]
    seconds: float
    training_seconds: float
    peak_memory_bytes: int
    parameters: int
    trainable_share: float
    saved_bytes: int
    examples: int
    epochs: float
    difference: Score = field(default_factory=lambda: Score(0.0, 0.0, 0.0, 0))
    p_value: float = 1.0
    p_holm: float = 1.0
    collapsed: list[int] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    is_best: bool = False
    is_on_front: bool = False
    is_recommended: bool = False

    def to_json(self) -> dict[str, Any]:
        """The row as ``compare.json`` holds it."""
        found = asdict(self)
        found["validation"] = {metric: score.to_json() for metric, score in self.validation.items()}
        found["test"] = {metric: score.to_json() for metric, score in self.test.items()}
        return found | {"difference": self.difference.to_json()}


def choose_metrics(select_by: str, space: LabelSpace) -> list[str]:
    """Choose what the table shows: the metric that selects, accuracy, and one more of the task's own.

    Example:
        >>> choose_metrics("accuracy", LabelSpace("classification", ("no", "yes")))
        ['accuracy', 'f1_macro']
        >>> choose_metrics("quadratic_kappa", LabelSpace("ordinal", ("low", "high")))
        ['quadratic_kappa', 'accuracy']
    """
    usual = [metric for metric in ("accuracy", *DEFAULT_METRICS[space.kind]) if metric in METRICS[space.kind]]
    return list(dict.fromkeys([select_by, *usual]))[:2]


def build_rows(
    trials: Mapping[str, Sequence[Trial]], reference: Reference, select_by: str, settings: EvaluationConfig
) -> list[Row]:
    """Score every rung and hold it against the best.

    Args:
        trials: Rung to its seeds; at least one rung.
        reference: Labels.
        select_by: Metric that chooses.
        settings: Resamples and confidence.

    Returns:
        One row a rung, in the order given.
    """
    space, truth = reference.space, reference.labels
    metrics = choose_metrics(select_by, space)
    how: dict[str, Any] = {"resamples": settings.resamples, "confidence": settings.confidence}
    rows = []
    for name, found in trials.items():
        scored = {
            split: _fill(
                score_seeds([trial.probabilities[split] for trial in found], truth[split], space, metrics, **how),
                metrics,
                len(truth[split]),
            )
            for split in ("validation", "test")
        }
        rows.append(_describe(name, found, scored["validation"], scored["test"]))
    best = rows[0]
    for row in rows[1:]:
        if is_better(select_by, row.test[select_by].value, best.test[select_by].value):
            best = row
    best.is_best = True
    tops = [trial.probabilities["test"] for trial in trials[best.rung]]
    best.difference = Score(0.0, 0.0, 0.0, len(truth["test"]))
    others = [row for row in rows if row is not best]
    for row in others:
        ours = [trial.probabilities["test"] for trial in trials[row.rung]]
        gain = score_gain(ours, tops, truth["test"], space, [select_by], **how)
        row.difference = _fill(gain, [select_by], len(truth["test"]))[select_by]
        row.p_value = _test_difference(row.difference, ours, tops, reference, select_by, settings.confidence)
    for row, p_value in zip(others, adjust_holm([row.p_value for row in others]), strict=True):
        row.p_holm = p_value
    for row in rows:
        row.collapsed = find_collapsed(trials[row.rung], reference)
    for row in find_front(rows, select_by):
        row.is_on_front = True
    return rows


def _test_difference(
    difference: Score,
    ours: Sequence[np.ndarray],
    tops: Sequence[np.ndarray],
    reference: Reference,
    metric: str,
    confidence: float,
) -> float:
    """Test a difference: by swaps where the metric is a mean over examples, else from the width of its interval."""
    if metric in ("accuracy", "mse") and reference.space.kind in ("classification", "regression"):
        quality = [rate_examples(each, reference.labels["test"], reference.space) for each in (ours, tops)]
        return float(compare_permutation(*quality, resamples=SWAPS).p_value)
    error = (difference.high - difference.low) / (2 * float(ndtri((1 + confidence) / 2)))
    if not error > 0:
        # Undefined, or no resample differs from another.
        return 1.0 if difference.value == 0 or math.isnan(difference.value) else 1 / (SWAPS + 1)
    return max(1 / (SWAPS + 1), 2 * float(ndtr(-abs(difference.value) / error)))


def _fill(scores: dict[str, Score], metrics: Sequence[str], n: int) -> dict[str, Score]:
    """Give metrics that these predictions leave undefined a score that is no number."""
    return {metric: scores.get(metric, Score(math.nan, math.nan, math.nan, n)) for metric in metrics}


def _describe(name: str, found: Sequence[Trial], validation: dict[str, Score], test: dict[str, Score]) -> Row:
    """Lay out what needs no other rung."""
    last = found[-1]
    return Row(
        rung=name,
        says=RUNGS[name].says,
        seeds=[trial.seed for trial in found],
        validation=validation,
        test=test,
        seconds=float(np.median([trial.seconds for trial in found])),
        training_seconds=float(np.median([trial.training_seconds for trial in found])),
        peak_memory_bytes=max(trial.peak_memory_bytes for trial in found),
        parameters=last.parameters,
        trainable_share=last.trainable / last.parameters if last.parameters else 0.0,
        saved_bytes=last.saved_bytes,
        examples=last.examples,
        epochs=last.epochs,
        folders=[trial.folder.as_posix() for trial in found if trial.folder is not None],
    )


def rate_examples(probabilities: Sequence[np.ndarray], labels: np.ndarray, space: LabelSpace) -> FloatArray:
    """Rate every example, more is better: right or wrong, or minus its squared error.

    Args:
        probabilities: One array (N, C) a seed.
        labels: Labels of the split, int64 for classes, float for a regression, shape (N,).
        space: The label contract.

    Returns:
        Mean over the seeds, float64, shape (N,).

    Example:
        >>> space = LabelSpace("classification", ("no", "yes"))
        >>> sure = np.array([[0.9, 0.1], [0.2, 0.8]])
        >>> rate_examples([sure, sure[::-1]], np.array([0, 0]), space).tolist()
        [0.5, 0.5]
    """
    predicted = np.stack([predict_labels(each, space) for each in probabilities])
    rated = -np.square(predicted - labels) if space.kind == "regression" else predicted == labels
    return np.asarray(rated.mean(axis=0, dtype=np.float64))


def find_collapsed(trials: Sequence[Trial], reference: Reference) -> list[int]:
    """Name the seeds that stayed near the majority class while others of the same rung did not.

    Looks at accuracy on validation. A seed that gives every row the same class is named whatever the others do.

    Args:
        trials: The seeds of one rung.
        reference: Labels.

    Returns:
        Their seeds, in order; empty for tasks without classes.
    """
    space, truth = reference.space, reference.labels["validation"]
    if not space.is_categorical:
        return []
    majority = np.bincount(reference.labels["train"], minlength=space.num_outputs).argmax()
    floor = float((truth == majority).mean())
    reached = [
        compute_metrics(truth, each.probabilities["validation"], space, ["accuracy"])["accuracy"] for each in trials
    ]
    found = []
    for position, (trial, value) in enumerate(zip(trials, reached, strict=True)):
        others = reached[:position] + reached[position + 1 :]
        top = max(others, default=floor)
        is_behind = top - floor >= CLEAR_GAIN and value <= floor + NEAR_MAJORITY * (top - floor)
        if trial.is_flat or is_behind:
            found.append(trial.seed)
    return found


def find_front(rows: Sequence[Row], select_by: str) -> list[Row]:
    """Find the rungs that no rung beats in both test score and seconds.

    Args:
        rows: The table.
        select_by: Metric of the score.

    Returns:
        Rows, the cheapest first.
    """
    front: list[Row] = []
    for row in sorted(rows, key=lambda each: each.seconds):
        if not front or is_better(select_by, row.test[select_by].value, front[-1].test[select_by].value):
            front.append(row)
    return front


def recommend(
    rows: Sequence[Row],
    trials: Mapping[str, Sequence[Trial]],
    reference: Reference,
    select_by: str,
    settings: EvaluationConfig,
) -> str:
    """Choose the cheapest rung whose validation score is within noise of the best, mark it, and say so.

    Noise is one standard error of the paired difference, seeds included. Test has no say: it is read out afterwards.

    Args:
        rows: The table.
        trials: Rung to its seeds.
        reference: Labels.
        select_by: Metric that chooses.
        settings: Resamples and confidence.

    Returns:
        One sentence.

    Source:
        Breiman et al. 1984, section 3.4.3, the rule of one standard error; here with the error of the paired
        difference, because all rungs answer the same rows.
    """
    best = rows[0]
    for row in rows[1:]:
        if is_better(select_by, row.validation[select_by].value, best.validation[select_by].value):
            best = row
    chosen, noise = best, 0.0
    for row in sorted(rows, key=lambda each: each.seconds):
        if row is best:
            break
        found, error = _measure_noise(row, best, trials, reference, select_by, settings)
        if found <= error:
            chosen, noise = row, error
            break
    chosen.is_recommended = True
    return _write_sentence(chosen, best, rows, noise, select_by)


def _measure_noise(
    row: Row,
    best: Row,
    trials: Mapping[str, Sequence[Trial]],
    reference: Reference,
    select_by: str,
    settings: EvaluationConfig,
) -> tuple[float, float]:
    """By how much a rung is behind on validation, and one standard error of that."""
    sides = [[trial.probabilities["validation"] for trial in trials[each.rung]] for each in (best, row)]
    found = score_gain(
        sides[0],
        sides[1],
        reference.labels["validation"],
        reference.space,
        [select_by],
        resamples=settings.resamples,
        confidence=NOISE_CONFIDENCE,
    )
    if select_by not in found:
        # What is undefined for one of them is no match for the best.
        return math.inf, 0.0
    gain = found[select_by]
    variance = ((gain.high - gain.low) / (2 * float(ndtri((1 + NOISE_CONFIDENCE) / 2)))) ** 2
    for each in (best, row):
        spread = each.validation[select_by].spread
        variance += spread**2 / len(each.seeds) if spread is not None and math.isfinite(spread) else 0.0
    behind = -gain.value if select_by in LOWER_IS_BETTER else gain.value
    return behind, math.sqrt(variance)


def _write_sentence(chosen: Row, best: Row, rows: Sequence[Row], noise: float, metric: str) -> str:
    """Say which rung to take, why, and what it gives on test."""
    name = name_metric(metric)
    name = name if name.isupper() or (len(name) > 1 and name[1].isupper()) else name[0].lower() + name[1:]
    reached = format_number(chosen.validation[metric].value)
    if chosen is best:
        why = f"it has the best validation {name}, {reached}, and nothing cheaper comes within noise of it"
    else:
        why = (
            f"its validation {name} of {reached} is within one standard error ({format_number(noise)}) of the best, "
            f"{format_number(best.validation[metric].value)} of {best.rung}, and one seed takes "
            f"{format_duration(chosen.seconds)} in place of {format_duration(best.seconds)}"
        )
    top = next(row for row in rows if row.is_best)
    test = chosen.test[metric]
    result = f"on test, which had no say, it has {format_number(test.value)} {format_interval(asdict(test))}".rstrip()
    if chosen is top:
        beside = "the best of the ladder"
    else:
        gap = asdict(chosen.difference)
        beside = (
            f"{top.rung} has {format_number(top.test[metric].value)} "
            f"(difference {format_number(gap['value'])} {format_interval(gap)})"
        )
    return f"Take {chosen.rung}: {why}; {result}, {beside}."
