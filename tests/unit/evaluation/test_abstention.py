import numpy as np
import pytest

from nlp_transfer.errors import ShapeError
from nlp_transfer.evaluation.abstention import measure_abstention, trace_risk


def test_curve_worked_by_hand():
    curve = trace_risk(np.array([0.6, 0.9, 0.7, 0.8]), np.array([True, True, False, True]))
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.risk == pytest.approx([0, 0, 1 / 3, 1 / 4])
    assert curve.confidence.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert curve.area == pytest.approx((1 / 3 + 1 / 4) / 4)
    # The best order has its mistake last: risks 0, 0, 0, 1/4.
    assert curve.excess_area == pytest.approx((1 / 3 + 1 / 4) / 4 - (1 / 4) / 4)


def test_curve_is_that_of_a_loop_where_no_confidence_repeats():
    draw = np.random.default_rng(0)
    sure, right = draw.permutation(200) / 200, draw.random(200) < 0.7
    order = np.argsort(-sure)
    risks = [1 - right[order[: k + 1]].mean() for k in range(200)]
    curve = trace_risk(sure, right)
    assert curve.risk == pytest.approx(risks)
    assert curve.area == pytest.approx(np.mean(risks))


def test_ties_do_not_depend_on_the_order_of_rows():
    sure = np.array([0.9, 0.9, 0.5, 0.5])
    first = trace_risk(sure, np.array([True, False, True, False]))
    second = trace_risk(sure, np.array([False, True, False, True]))
    assert first.risk.tolist() == second.risk.tolist() == [0.5] * 4


def test_a_perfect_order_has_no_excess_and_a_reversed_one_has():
    right = np.arange(100) >= 20
    assert trace_risk(np.arange(100) / 100, right).excess_area == pytest.approx(0)
    assert trace_risk(1 - np.arange(100) / 100, right).excess_area > 0.2


def test_selective_accuracy_is_what_its_limit_gives():
    draw = np.random.default_rng(1)
    probabilities = draw.dirichlet([1, 1, 1], size=300)
    probabilities[:30] = probabilities[0]
    labels = np.where(draw.random(300) < 0.6, probabilities.argmax(axis=1), 0)
    found = measure_abstention(probabilities, labels, [0.1, 0.5, 1.0], confidence=0.95)
    assert found["n"] == 300
    assert len(found["selective"]) == 3
    for wanted, row in zip([0.1, 0.5, 1.0], found["selective"], strict=True):
        answered = probabilities.max(axis=1) >= row["abstain_below"]
        assert answered.sum() == row["n"]
        assert row["coverage"] == pytest.approx(answered.mean())
        assert row["coverage"] >= wanted
        assert row["accuracy"] == pytest.approx((probabilities.argmax(axis=1) == labels)[answered].mean())
        assert row["low"] <= row["accuracy"] <= row["high"]
    assert found["curve"][-1]["coverage"] == 1.0
    assert len(found["curve"]) == 101


def test_sizes_that_differ_are_refused():
    with pytest.raises(ShapeError, match="N confidences and N answers"):
        trace_risk(np.array([0.5]), np.array([True, False]))
    with pytest.raises(ShapeError):
        trace_risk(np.array([]), np.array([], dtype=bool))
