from dataclasses import replace

import numpy as np
import pytest

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.evidence.compare.trials import Reference, Trial
from nlp_transfer.evidence.compare.verdict import build_rows, find_collapsed, rate_examples, recommend
from nlp_transfer.recipe.schema import EvaluationConfig
from tests.tiny import make_splits

SPACE = LabelSpace("classification", ("no", "yes"))
SETTINGS = EvaluationConfig(resamples=400)
N = 400


def make_reference() -> Reference:
    labels = {split: np.arange(N) % 2 for split in ("train", "validation", "test")}
    return Reference(replace(make_splits(4), labels=SPACE), labels, {})


def predict(share: float, seed: int) -> np.ndarray:
    """Probabilities of which exactly this share is right, the wrong ones at random places."""
    truth = np.arange(N) % 2
    wrong = np.random.default_rng(seed).permutation(N)[: round((1 - share) * N)]
    predicted = truth.copy()
    predicted[wrong] = 1 - predicted[wrong]
    return np.where(predicted[:, None] == np.arange(2), 0.9, 0.1)


def make_trial(
    rung: str, seconds: float, validation: float, test: float, *, seed: int = 0, flat: bool = False
) -> Trial:
    # The same seeds of numpy for all rungs: the wrong rows of the better one are among those of the worse one.
    found = {"validation": predict(validation, 7), "test": predict(test, 8)}
    return Trial(rung, seed, found, seconds, seconds, 1000, 100, 25, 10, N, 1.0, flat)


def judge(trials: dict[str, list[Trial]]) -> tuple[list, str]:
    reference = make_reference()
    rows = build_rows(trials, reference, "accuracy", SETTINGS)
    return rows, recommend(rows, trials, reference, "accuracy", SETTINGS)


def test_cheapest_rung_within_noise_is_recommended_by_validation_and_its_test_score_told():
    rows, sentence = judge(
        {
            "features": [make_trial("features", 5.0, 0.80, 0.99)],
            "layerwise": [make_trial("layerwise", 30.0, 0.8975, 0.88)],
            "full": [make_trial("full", 80.0, 0.90, 0.90)],
        }
    )
    assert [row.rung for row in rows if row.is_recommended] == ["layerwise"]
    # features is best on test, which has no say.
    assert [row.rung for row in rows if row.is_best] == ["features"]
    assert "Take layerwise" in sentence
    assert "0.880" in sentence
    assert "features has 0.990" in sentence
    assert rows[0].trainable_share == 0.25


def test_nothing_cheaper_is_recommended_where_it_is_clearly_worse():
    rows, sentence = judge(
        {
            "features": [make_trial("features", 5.0, 0.85, 0.85)],
            "full": [make_trial("full", 80.0, 0.90, 0.90)],
        }
    )
    assert [row.rung for row in rows if row.is_recommended] == ["full"]
    assert "nothing cheaper comes within noise" in sentence


def test_test_scores_do_not_move_the_recommendation():
    sentences = []
    for test in (0.5, 0.95):
        rows, _ = judge(
            {
                "features": [make_trial("features", 5.0, 0.85, test)],
                "full": [make_trial("full", 80.0, 0.90, 0.8)],
            }
        )
        sentences.append([row.rung for row in rows if row.is_recommended])
    assert sentences == [["full"], ["full"]]


def test_differences_are_paired_with_the_best_and_p_values_corrected():
    rows, _ = judge(
        {
            "majority": [make_trial("majority", 0.1, 0.5, 0.5)],
            "features": [make_trial("features", 5.0, 0.85, 0.895)],
            "full": [make_trial("full", 80.0, 0.90, 0.90)],
        }
    )
    by_name = {row.rung: row for row in rows}
    assert by_name["full"].difference.value == 0
    assert by_name["features"].difference.value == pytest.approx(-0.005)
    assert by_name["majority"].difference.high < -0.3
    assert by_name["majority"].p_holm == pytest.approx(min(1.0, 2 * by_name["majority"].p_value))
    # Two examples differ: by hand, both swaps on one side happen in 2 of 4 ways.
    assert by_name["features"].p_value == pytest.approx(0.5)
    assert by_name["features"].p_holm == pytest.approx(0.5)
    assert [row.rung for row in rows if row.is_on_front] == ["majority", "features", "full"]


def test_collapsed_seeds_are_named_only_where_others_learned():
    reference = make_reference()
    good = [make_trial("lora", 1.0, 0.9, 0.9, seed=seed) for seed in (0, 1)]
    low = make_trial("lora", 1.0, 0.55, 0.55, seed=2)
    assert find_collapsed([*good, low], reference) == [2]
    assert find_collapsed(good, reference) == []
    # All of them near the majority class: the rung is weak, no seed is odd.
    assert find_collapsed([low, make_trial("lora", 1.0, 0.52, 0.5, seed=3)], reference) == []
    assert find_collapsed([make_trial("lora", 1.0, 0.5, 0.5, flat=True)], reference) == [0]


def test_examples_are_rated_by_the_kind_of_task():
    numbers = LabelSpace("regression", ("score",))
    assert rate_examples([np.array([[1.0], [3.0]])], np.array([1.0, 1.0]), numbers).tolist() == [0.0, -4.0]


def test_p_value_of_other_metrics_goes_with_the_interval():
    space = LabelSpace("ordinal", ("low", "middle", "high"))
    truth = np.arange(N) % 3
    close = np.where(np.random.default_rng(0).random(N) < 0.1, (truth + 1) % 3, truth)
    far = np.where(np.random.default_rng(1).random(N) < 0.4, (truth + 1) % 3, truth)
    made = [make_trial(name, seconds, 0.5, 0.5) for name, seconds in (("features", 1.0), ("lora", 2.0), ("full", 3.0))]
    trials = {}
    for trial, predicted in zip(made, (far, close, truth[::-1] * 0), strict=True):
        probabilities = np.where(predicted[:, None] == np.arange(3), 0.9, 0.05)
        trials[trial.rung] = [replace(trial, probabilities={"validation": probabilities, "test": probabilities})]
    reference = Reference(
        replace(make_splits(4), labels=space), dict.fromkeys(("train", "validation", "test"), truth), {}
    )
    rows = build_rows(trials, reference, "quadratic_kappa", SETTINGS)
    by_name = {row.rung: row for row in rows}
    assert by_name["lora"].is_best
    for name in ("features", "full"):
        assert by_name[name].difference.high < 0
        assert by_name[name].p_value < 0.05
    assert "Take lora" in recommend(rows, trials, reference, "quadratic_kappa", SETTINGS)
