import sys

import numpy as np
import pytest
from fairlearn import metrics
from sklearn.metrics import roc_auc_score

from nlp_transfer.errors import DataError, MissingExtraError, ShapeError
from nlp_transfer.evaluation.fairness import Decisions, find_worst_groups, measure_auc, measure_gaps, score_groups
from nlp_transfer.evaluation.intervals import bootstrap_interval
from nlp_transfer.evaluation.metrics.ranking import compute_roc_auc
from nlp_transfer.evaluation.swaps import Swap, draw_swaps, measure_swaps


def make_case(sizes, false_positive, *, seed=0):
    """Groups one behind the other, half of each positive; found rightly but for a share of the negative."""
    random = np.random.default_rng(seed)
    names = np.repeat(list(sizes), list(sizes.values()))
    truth = np.arange(len(names)) % 2 == 0
    wrong = random.random(len(names)) < np.array([false_positive[name] for name in names])
    decided = np.where(truth, random.random(len(names)) < 0.9, wrong)
    scores = np.where(decided, 0.6, 0.2) + random.random(len(names)) * 0.3
    members = {name: np.flatnonzero(names == name) for name in sizes}
    return members, names, Decisions(truth, decided, truth == decided, scores)


@pytest.fixture(scope="module")
def case():
    return make_case({"a": 300, "b": 200, "c": 240}, {"a": 0.1, "b": 0.5, "c": 0.12})


def test_rates_and_gaps_are_those_of_fairlearn(case):
    members, names, decisions = case
    overall, groups = score_groups(members, decisions)
    rates = ("selection_rate", "false_positive_rate", "false_negative_rate")
    frame = metrics.MetricFrame(
        metrics={name: getattr(metrics, name) for name in rates},
        y_true=decisions.truth,
        y_pred=decisions.decided,
        sensitive_features=names,
    )
    assert sorted(groups) == ["a", "b", "c"]
    for rate in rates:
        assert overall[rate]["value"] == pytest.approx(frame.overall[rate])
        for name, figures in groups.items():
            assert figures[rate]["value"] == pytest.approx(frame.by_group[rate][name])
            assert figures[rate]["low"] <= figures[rate]["value"] <= figures[rate]["high"]
    for name, rows in members.items():
        assert groups[name]["accuracy"]["value"] == pytest.approx((decisions.truth == decisions.decided)[rows].mean())
        assert groups[name]["auc"]["value"] == pytest.approx(
            roc_auc_score(decisions.truth[rows], decisions.scores[rows])
        )
    gaps = measure_gaps(members, decisions)
    asked = {"y_true": decisions.truth, "y_pred": decisions.decided, "sensitive_features": names}
    assert gaps["demographic_parity"]["value"] == pytest.approx(metrics.demographic_parity_difference(**asked))
    assert gaps["equalized_odds"]["value"] == pytest.approx(metrics.equalized_odds_difference(**asked))
    assert gaps["false_positive_rate"]["value"] == pytest.approx(frame.difference()["false_positive_rate"])
    own = frame.by_group["false_positive_rate"] - frame.overall["false_positive_rate"]
    assert gaps["false_positive_equality_difference"]["value"] == pytest.approx(own.abs().sum())


def test_intervals_of_gaps_are_those_of_a_bootstrap_over_rows(case):
    members, _, decisions = case
    random, drawn = np.random.default_rng(1), []
    false = decisions.decided & ~decisions.truth
    for _ in range(1000):
        times = np.bincount(random.integers(740, size=740), minlength=740)
        rates = [times[rows] @ false[rows] / (times[rows] @ ~decisions.truth[rows]) for rows in members.values()]
        drawn.append(max(rates) - min(rates))
    gap = measure_gaps(members, decisions)["false_positive_rate"]
    assert gap["low"] == pytest.approx(np.quantile(drawn, 0.025), abs=0.02)
    assert gap["high"] == pytest.approx(np.quantile(drawn, 0.975), abs=0.02)
    assert gap["low"] > gap["chance"] > 0


def test_groups_that_do_not_differ_stay_within_chance():
    members, _, decisions = make_case(dict.fromkeys("abcdefgh", 200), dict.fromkeys("abcdefgh", 0.3))
    gap = measure_gaps(members, decisions)["false_positive_rate"]
    assert gap["groups"] == 8
    assert 0.05 < gap["value"] < gap["chance"]
    assert find_worst_groups(members, decisions) == dict.fromkeys(
        ("accuracy", "false_positive_rate", "false_negative_rate")
    )


def test_the_worst_group_is_not_a_small_one_by_noise():
    members, _, decisions = make_case(
        {"a": 400, "b": 400, "few": 30, "tiny": 6}, {"a": 0.1, "b": 0.4, "few": 0.1, "tiny": 1}
    )
    assert find_worst_groups(members, decisions)["false_positive_rate"] == "b"
    assert measure_gaps(members, decisions, min_group=20)["false_positive_rate"]["groups"] == 2
    with pytest.raises(DataError, match="expected 1 row or more"):
        find_worst_groups(members, decisions, min_group=0)


def test_a_rate_that_no_row_counts_in_has_no_value():
    truth = np.array([True] * 30 + [False] * 30)
    decided = ~truth
    members = {"positive": np.arange(30), "negative": np.arange(30, 60)}
    decisions = Decisions(truth, decided, truth == decided, decided * 1.0)
    _, groups = score_groups(members, decisions)
    assert groups["positive"]["false_positive_rate"] == {"value": None, "low": None, "high": None, "n": 0}
    assert groups["positive"]["auc"]["value"] is None
    gaps = measure_gaps(members, decisions)
    assert gaps["equalized_odds"]["value"] is None
    assert gaps["demographic_parity"]["value"] == 1.0


def test_rows_of_several_groups_count_in_each():
    truth, decided = np.zeros(80, dtype=bool), np.arange(80) < 40
    members = {"a": np.arange(60), "b": np.arange(20, 80)}
    decisions = Decisions(truth, decided, truth == decided, decided * 1.0)
    _, groups = score_groups(members, decisions)
    assert [groups[name]["false_positive_rate"]["value"] for name in "ab"] == pytest.approx([40 / 60, 20 / 60])
    assert measure_gaps(members, decisions)["false_positive_rate"]["value"] == pytest.approx(1 / 3)


def test_the_interval_of_the_auc_is_near_that_of_a_bootstrap(case):
    _, _, decisions = case
    found = measure_auc(decisions.truth, decisions.scores)
    low, high = bootstrap_interval(
        lambda weights: compute_roc_auc(decisions.scores, decisions.truth, weights),
        740,
        resamples=1000,
        confidence=0.95,
    )
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.01)


def test_swaps_are_listed_once_each_and_sampled_alike():
    found, sets = [["a"], ["a", "x"], []], {"a": "abc", "x": "xy"}
    swaps, possible = draw_swaps(found, sets, most=10)
    assert [(swap.row, swap.term, swap.other) for swap in swaps] == [
        (0, "a", "b"), (0, "a", "c"), (1, "a", "b"), (1, "a", "c"), (1, "x", "y"),
    ]  # fmt: skip
    assert possible == 5
    sample, possible = draw_swaps(found * 50, sets, most=40, seed=3)
    assert (len(sample), len(set(sample)), possible) == (40, 40, 250)
    assert draw_swaps(found * 50, sets, most=40, seed=3)[0] == sample
    assert draw_swaps(found, sets, most=0) == ([], 5)


def test_shifts_of_terms_are_those_worked_by_hand():
    swaps = [Swap(0, "a", "b"), Swap(0, "a", "c"), Swap(1, "b", "a")]
    found = measure_swaps(
        swaps,
        np.array([0.8, 0.8, 0.3]),
        np.array([0.2, 0.7, 0.7]),
        np.array([True, False, True]),
        kinds=dict.fromkeys("abc", "kind"),
    )
    assert found["mean_change"]["value"] == pytest.approx((0.6 + 0.1 + 0.4) / 3)
    assert found["flipped"]["value"] == pytest.approx(2 / 3)
    shifts = {each["term"]: (each["shift"]["value"], each["shift"]["n"]) for each in found["terms"]}
    assert shifts["a"] == (pytest.approx((0.6 + 0.1 + 0.4) / 3), 3)
    assert shifts["b"] == (pytest.approx(-0.5), 2)
    assert shifts["c"] == (pytest.approx(-0.1), 1)
    assert [each["term"] for each in found["terms"]] == ["a", "c", "b"]


def test_nothing_to_measure_is_refused():
    none = np.zeros(0, dtype=bool)
    with pytest.raises(ShapeError, match="one truth, decision and score a row"):
        Decisions(none, none, none, none)
    with pytest.raises(ShapeError, match="score before and after"):
        measure_swaps([], none, none, none, kinds={})


def test_without_fairlearn_the_command_that_installs_it_is_named(case, monkeypatch):
    members, _, decisions = case
    monkeypatch.setitem(sys.modules, "fairlearn", None)
    with pytest.raises(MissingExtraError, match=r"nlp_transfer\[audit\]"):
        score_groups(members, decisions)
