"""Every report key against scikit-learn (scipy for correlations) on random cases, edge cases included."""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.evaluation.predictions import predict_labels
from nlp_transfer.evaluation.scoring import compute_metrics
from nlp_transfer.recipe.schema import METRICS

CASES = 200

Reference = Callable[[np.ndarray, np.ndarray, np.ndarray, LabelSpace], float]


def _spread(score: Callable[..., float], average: str, **fixed: object) -> Reference:
    def reference(labels: np.ndarray, predicted: np.ndarray, _: np.ndarray, space: LabelSpace) -> float:
        return score(labels, predicted, average=average, zero_division=0, **fixed)

    return reference


def _zero_if_nan(value: float) -> float:
    return 0.0 if np.isnan(value) else float(value)


def _one_hot(labels: np.ndarray, space: LabelSpace) -> np.ndarray:
    return labels.astype(int) if labels.ndim == 2 else np.eye(space.num_outputs, dtype=int)[labels]


def _average_precision(labels: np.ndarray, _: np.ndarray, probabilities: np.ndarray, space: LabelSpace) -> float:
    if labels.ndim == 1 and space.num_outputs == 2:
        return sk.average_precision_score(labels == 1, probabilities[:, 1])
    return sk.average_precision_score(_one_hot(labels, space), probabilities)


def _roc_auc(labels: np.ndarray, _: np.ndarray, probabilities: np.ndarray, space: LabelSpace) -> float:
    truth = _one_hot(labels, space)
    if labels.ndim == 1 and space.num_outputs == 2:
        columns = [1]
    else:
        columns = [c for c in range(space.num_outputs) if 0 < truth[:, c].sum() < len(truth)]
    areas = [sk.roc_auc_score(truth[:, c], probabilities[:, c]) for c in columns]
    return float(np.mean(areas)) if areas else float("nan")


def _ece(labels: np.ndarray, _: np.ndarray, probabilities: np.ndarray, __: LabelSpace) -> float:
    """A literal loop over the bins of Guo et al. 2017; scikit-learn has no such metric."""
    total = 0.0
    for k in range(15):
        confidence = probabilities.max(axis=1)
        inside = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        if inside.any():
            right = (probabilities.argmax(axis=1) == labels)[inside].mean()
            total += inside.mean() * abs(right - confidence[inside].mean())
    return total


REFERENCES: dict[str, Reference] = {
    "accuracy": lambda y, p, q, s: sk.accuracy_score(y, p),
    "balanced_accuracy": lambda y, p, q, s: sk.balanced_accuracy_score(y, p),
    **{
        f"{name}_{average}": _spread(score, average)
        for name, score in {"f1": sk.f1_score, "precision": sk.precision_score, "recall": sk.recall_score}.items()
        for average in ("macro", "micro", "weighted")
    },
    "mcc": lambda y, p, q, s: sk.matthews_corrcoef(y, p),
    "cohen_kappa": lambda y, p, q, s: _zero_if_nan(sk.cohen_kappa_score(y, p)),
    "quadratic_kappa": lambda y, p, q, s: _zero_if_nan(
        sk.cohen_kappa_score(y, p, weights="quadratic", labels=list(range(s.num_outputs)))
    ),
    "roc_auc": _roc_auc,
    "average_precision": _average_precision,
    "log_loss": lambda y, p, q, s: sk.log_loss(y, q, labels=list(range(s.num_outputs))),
    "ece": _ece,
    "brier": lambda y, p, q, s: sk.brier_score_loss(
        y, q[:, 1] if s.num_outputs == 2 else q, labels=list(range(s.num_outputs))
    ),
    "mse": lambda y, p, q, s: sk.mean_squared_error(y, p),
    "rmse": lambda y, p, q, s: sk.root_mean_squared_error(y, p),
    "r2": lambda y, p, q, s: sk.r2_score(y, p) if len(y) > 1 else float(y[0] == p[0]),
    "mae": lambda y, p, q, s: sk.mean_absolute_error(y, p),
    "pearson": lambda y, p, q, s: _zero_if_nan(stats.pearsonr(y, p).statistic) if len(y) > 1 else 0.0,
    "spearman": lambda y, p, q, s: _zero_if_nan(stats.spearmanr(y, p).statistic) if len(y) > 1 else 0.0,
}
PER_CLASS = {"f1": sk.f1_score, "precision": sk.precision_score, "recall": sk.recall_score}


def _draw_case(kind: str, number: int) -> tuple[np.ndarray, np.ndarray, LabelSpace, str]:
    """One random case; every eighth of each sort is an edge case."""
    rng = np.random.default_rng([number, len(kind)])
    edge = ("single", "absent_label", "absent_both", "ties", "constant")[number // 8 % 5] if number % 8 == 0 else "none"
    n = 1 if edge == "single" else int(rng.integers(2, 60))
    num_outputs = 1 if kind == "regression" else 2 + number % 5
    space = LabelSpace(kind, tuple(f"label{c}" for c in range(num_outputs)))
    if kind == "regression":
        labels, values = rng.normal(size=n), rng.normal(size=(n, 1))
        if edge == "ties":
            labels, values = labels.round(), values.round()
        return labels, np.full_like(values, 0.3) if edge == "constant" else values, space, edge
    values = rng.random((n, num_outputs)) ** 3 + 0.05
    labels = rng.integers(num_outputs, size=n)
    if edge.startswith("absent"):
        labels = rng.integers(num_outputs - 1, size=n)
        if edge == "absent_both":
            values[:, -1] = 1e-6
    if edge == "constant":
        values[:] = values[0]
    if kind == "multi_label":
        labels = (rng.random((n, num_outputs)) < 0.4).astype(np.int64)
        if edge.startswith("absent"):
            labels[:, -1] = 0
        values = values / values.max() * 0.999
    else:
        # Half of the cases are mostly right, so that neither end of a metric goes untested.
        if number % 2 and edge == "none":
            values[np.arange(n), labels] += 0.7
        values = values / values.sum(axis=1, keepdims=True)
    if edge == "ties":
        values = (values * 4).round() / 4 * 0.95 + 0.01
        values = values if kind == "multi_label" else values / values.sum(axis=1, keepdims=True)
    return labels, values, space, edge


KEYS = [(kind, key) for kind, keys in METRICS.items() for key in keys]


SLICE = [number for number in range(CASES) if number % 8 < 3]
"""Cases of the default run: every edge as often, and as many without one mostly right as not; all with -m slow."""


@pytest.mark.parametrize("cases", [SLICE, pytest.param(range(CASES), marks=pytest.mark.slow)], ids=len)
@pytest.mark.parametrize(("kind", "key"), KEYS)
def test_metric_equals_the_reference_on_cases_of_every_edge(kind: str, key: str, cases: Sequence[int]) -> None:
    seen, edges = 0, Counter()
    for number in cases:
        labels, probabilities, space, edge = _draw_case(kind, number)
        predicted = predict_labels(probabilities, space)
        ours = compute_metrics(labels, probabilities, space, [key])
        with warnings.catch_warnings():
            # The reference warns of the very edge cases that are wanted here.
            warnings.simplefilter("ignore")
            theirs = _score_reference(key, labels, predicted, probabilities, space)
        assert ours.keys() == theirs.keys(), (number, edge)
        for name, figure in theirs.items():
            assert ours[name] == pytest.approx(figure, rel=1e-9, abs=1e-9), (number, edge, name)
        seen += 1
        edges[edge] += 1
    assert seen == len(cases) >= 75
    assert set(edges) == {"none", "single", "absent_label", "absent_both", "ties", "constant"}
    assert min(edges.values()) >= 5


def _score_reference(
    key: str, labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, space: LabelSpace
) -> dict[str, float]:
    if key.endswith("_per_class"):
        base = key.removesuffix("_per_class")
        figures = PER_CLASS[base](labels, predicted, average=None, labels=range(space.num_outputs), zero_division=0)
        return {f"{base}_{name}": float(figure) for name, figure in zip(space.names, figures, strict=True)}
    figure = REFERENCES[key](labels, predicted, probabilities, space)
    return {} if np.isnan(figure) else {key: float(figure)}


def test_every_report_key_has_a_reference() -> None:
    keys = {key for _, key in KEYS if not key.endswith("_per_class")}
    assert len(keys) == 25
    assert keys == set(REFERENCES)


def test_a_wrong_metric_is_caught() -> None:
    """The comparison must be able to fail: macro F1 is not weighted F1 on the drawn cases."""
    different = 0
    for number in range(CASES):
        labels, probabilities, space, _ = _draw_case("classification", number)
        ours = compute_metrics(labels, probabilities, space, ["f1_macro"])["f1_macro"]
        different += abs(ours - sk.f1_score(labels, probabilities.argmax(axis=1), average="weighted")) > 1e-6
    assert different > CASES / 2
