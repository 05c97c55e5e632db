import json
import math

import numpy as np
import pytest

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import RecipeError, ShapeError
from nlp_transfer.evaluation.intervals import draw_weights
from nlp_transfer.evaluation.metrics.registry import STATISTICS, name_scores
from nlp_transfer.evaluation.scoring import (
    compute_metrics,
    find_undefined_metrics,
    is_better,
    score_gain,
    score_seeds,
    score_split,
    to_probabilities,
)
from nlp_transfer.recipe.schema import LOWER_IS_BETTER, METRICS


def draw_task(kind: str, n: int, num_outputs: int = 4, seed: int = 0, skill: float = 1.0):
    """Labels and probabilities of a model that is better than chance."""
    rng = np.random.default_rng(seed)
    space = LabelSpace(kind, tuple(f"label{c}" for c in range(1 if kind == "regression" else num_outputs)))
    if kind == "regression":
        labels = rng.normal(size=n).round(1)
        return labels, to_probabilities(skill * labels + rng.normal(size=n).round(1), space), space
    logits = rng.normal(size=(n, num_outputs)).round(1)
    if kind == "multi_label":
        labels = (rng.random((n, num_outputs)) < 0.4).astype(np.float32)
        return labels, to_probabilities(logits + skill * (2 * labels - 1), space), space
    labels = rng.integers(num_outputs, size=n)
    logits[np.arange(n), labels] += skill
    return labels, to_probabilities(logits, space), space


@pytest.mark.parametrize("num_outputs", [2, 4])
@pytest.mark.parametrize("kind", sorted(METRICS))
def test_every_metric_of_every_task_is_scored_with_its_n_and_an_interval(kind: str, num_outputs: int) -> None:
    labels, probabilities, space = draw_task(kind, 60, num_outputs)
    scores = score_split(labels, probabilities, space, METRICS[kind], resamples=100, confidence=0.95)
    assert list(scores) == name_scores(METRICS[kind], space)
    spread = sum(key.endswith("_per_class") for key in METRICS[kind])
    assert len(scores) == len(METRICS[kind]) - spread + spread * space.num_outputs
    plain = compute_metrics(labels, probabilities, space, METRICS[kind])
    for key, score in scores.items():
        assert score.n == 60
        assert score.low <= score.value <= score.high
        assert score.value == pytest.approx(plain[key], abs=1e-12)
        assert score.low < score.high
    json.dumps({key: score.to_json() for key, score in scores.items()}, allow_nan=False)


def test_every_report_key_has_a_statistic() -> None:
    assert set(STATISTICS) == {key for keys in METRICS.values() for key in keys}
    assert len(STATISTICS) == 28


@pytest.mark.parametrize("num_outputs", [2, 3])
@pytest.mark.parametrize("kind", sorted(METRICS))
def test_the_fast_bootstrap_equals_a_loop_over_the_same_resamples(kind: str, num_outputs: int) -> None:
    n, resamples = 12, 60
    labels, probabilities, space = draw_task(kind, n, num_outputs)
    weights = np.concatenate(list(draw_weights(n, resamples=resamples, seed=5)), axis=1).astype(int)
    naive: dict[str, list[float]] = {key: [] for key in name_scores(METRICS[kind], space)}
    for column in weights.T:
        drawn = np.repeat(np.arange(n), column)
        figures = compute_metrics(labels[drawn], probabilities[drawn], space, METRICS[kind])
        for key, values in naive.items():
            values.append(figures.get(key, math.nan))
    fast = score_split(labels, probabilities, space, METRICS[kind], resamples=resamples, confidence=0.8, seed=5)
    compared = 0
    for key, values in naive.items():
        assert len(values) == resamples
        low, high = np.nanquantile(values, [0.1, 0.9])
        assert fast[key].low == pytest.approx(min(low, fast[key].value), abs=1e-10), key
        assert fast[key].high == pytest.approx(max(high, fast[key].value), abs=1e-10), key
        compared += 1
    assert compared == len(name_scores(METRICS[kind], space))


@pytest.mark.parametrize("kind", sorted(METRICS))
def test_scores_are_deterministic_and_seeded(kind: str) -> None:
    labels, probabilities, space = draw_task(kind, 50)
    asked = {"resamples": 100, "confidence": 0.95}
    first = score_split(labels, probabilities, space, METRICS[kind], **asked)
    assert first == score_split(labels, probabilities, space, METRICS[kind], **asked)
    assert first != score_split(labels, probabilities, space, METRICS[kind], **asked, seed=1)


@pytest.mark.parametrize("kind", sorted(METRICS))
def test_a_single_example_is_scored_without_nan(kind: str) -> None:
    labels, probabilities, space = draw_task(kind, 1)
    scores = score_split(labels, probabilities, space, METRICS[kind], resamples=100, confidence=0.95)
    undefined = find_undefined_metrics(labels, space, METRICS[kind])
    assert len(scores) == len(name_scores(METRICS[kind], space)) - len(undefined)
    assert set(undefined) == ({"roc_auc"} & set(METRICS[kind]))
    for score in scores.values():
        assert all(math.isfinite(figure) for figure in (score.value, score.low, score.high))


def test_roc_auc_of_one_class_is_left_out_with_a_reason() -> None:
    space = LabelSpace("classification", ("no", "yes"))
    labels, probabilities = np.array([1, 1, 1]), np.array([[0.2, 0.8]] * 3)
    scores = score_split(labels, probabilities, space, ["accuracy", "roc_auc"], resamples=100, confidence=0.95)
    assert list(scores) == ["accuracy"]
    assert "left out" in find_undefined_metrics(labels, space, ["accuracy", "roc_auc"])["roc_auc"]
    assert find_undefined_metrics(np.array([0, 1]), space, ["roc_auc"]) == {}


def test_ordinal_errors_are_in_ranks() -> None:
    space = LabelSpace("ordinal", ("1 star", "2 stars", "3 stars"))
    probabilities = np.eye(3)[[0, 2, 2]]
    assert compute_metrics(np.array([0, 0, 1]), probabilities, space, ["mae", "mse"]) == pytest.approx(
        {"mae": 1.0, "mse": 5 / 3}
    )


def test_multi_label_thresholds_change_what_is_scored() -> None:
    space = LabelSpace("multi_label", ("a", "b"))
    labels, probabilities = np.array([[1, 0], [1, 1]]), np.array([[0.3, 0.1], [0.4, 0.9]])
    asked = {"resamples": 100, "confidence": 0.95}
    assert compute_metrics(labels, probabilities, space, ["accuracy"])["accuracy"] == 0.0
    found = score_split(labels, probabilities, space, ["accuracy"], **asked, thresholds=[0.2, 0.5])
    assert found["accuracy"].value == 1.0


def test_a_class_called_macro_does_not_pass_for_the_average() -> None:
    space = LabelSpace("classification", ("macro", "yes"))
    found = compute_metrics(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]), space, ["f1_macro", "f1_per_class"])
    assert found == pytest.approx({"f1_macro": 1 / 3, "f1_class_macro": 2 / 3, "f1_yes": 0.0})


def test_seeds_are_averaged_with_spread_and_joint_resamples() -> None:
    labels, first, space = draw_task("classification", 80)
    others = [draw_task("classification", 80, seed=seed)[1] for seed in (1, 2)]
    metrics = ("accuracy", "f1_macro", "log_loss", "ece")
    found = score_seeds([first, *others], labels, space, metrics, resamples=100, confidence=0.9)
    compared = 0
    for key in metrics:
        per_seed = [compute_metrics(labels, values, space, [key])[key] for values in (first, *others)]
        assert found[key].per_seed == pytest.approx(per_seed)
        assert found[key].value == pytest.approx(np.mean(per_seed))
        assert found[key].spread == pytest.approx(np.std(per_seed, ddof=1))
        drawn = []
        for weights in np.concatenate(list(draw_weights(80, resamples=100, seed=0)), axis=1).astype(int).T:
            rows = np.repeat(np.arange(80), weights)
            drawn.append(np.mean([compute_metrics(labels[rows], v[rows], space, [key])[key] for v in (first, *others)]))
        low, high = np.quantile(drawn, [0.05, 0.95])
        assert found[key].low == pytest.approx(min(low, found[key].value))
        assert found[key].high == pytest.approx(max(high, found[key].value))
        compared += 1
    assert compared == 4


def test_one_seed_has_no_spread() -> None:
    labels, probabilities, space = draw_task("regression", 20)
    found = score_seeds([probabilities], labels, space, ["mse"], resamples=100, confidence=0.95)["mse"]
    assert found.spread is None
    assert found.per_seed == ()


def test_a_gain_is_zero_against_itself_and_shows_where_it_is_real() -> None:
    labels, weak, space = draw_task("classification", 300, skill=0.5)
    _, strong, _ = draw_task("classification", 300, skill=2.5)
    asked = {"resamples": 200, "confidence": 0.95}
    same = score_gain([weak], [weak, weak], labels, space, ["accuracy", "f1_per_class"], **asked)
    assert len(same) == 5
    assert all(score.value == score.low == score.high == 0.0 for score in same.values())
    gain = score_gain([strong, strong], [weak], labels, space, ["accuracy", "log_loss"], **asked)
    assert gain["accuracy"].low > 0
    assert gain["log_loss"].high < 0
    assert gain["accuracy"].n == 300


def test_metrics_of_another_task_and_unknown_ones_are_refused_together() -> None:
    labels, probabilities, space = draw_task("regression", 5)
    with pytest.raises(RecipeError) as caught:
        compute_metrics(labels, probabilities, space, ["accuracy", "spearmann", "mse"])
    assert len(caught.value.problems) == 2
    assert "Did you mean 'spearman'?" in caught.value.problems[1]


def test_sizes_that_disagree_are_refused() -> None:
    labels, probabilities, space = draw_task("classification", 10)
    with pytest.raises(ShapeError, match="9 labels and 10"):
        score_split(labels[:9], probabilities, space, ["accuracy"], resamples=100, confidence=0.95)
    with pytest.raises(ShapeError, match="at least one seed"):
        score_seeds([], labels, space, ["accuracy"], resamples=100, confidence=0.95)


def test_better_follows_the_direction_of_the_metric() -> None:
    checked = 0
    for metric in STATISTICS:
        assert is_better(metric, 0.1, 0.2) == (metric in LOWER_IS_BETTER)
        assert not is_better(metric, 0.1, 0.1)
        assert not is_better(metric, math.nan, 0.1)
        assert is_better(metric, 0.1, math.nan)
        checked += 1
    assert checked == 28
