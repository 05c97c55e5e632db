import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import ArtifactError, DataError, ShapeError
from nlp_transfer.evaluation.predictions import predict_labels
from nlp_transfer.evaluation.thresholds import choose_threshold, choose_thresholds, read_thresholds

MANY = LabelSpace("multi_label", ("a", "b", "c"))
ONE = LabelSpace("classification", ("ham", "eggs", "spam"))


def make_label(num_rows=200, seed=0):
    draw = np.random.default_rng(seed)
    own = draw.random(num_rows) < 0.3
    return np.clip(np.round(0.3 * own + draw.random(num_rows) * 0.6, 2), 0, 1), own


def search(stated, own):
    """Every threshold by brute force, with scikit-learn's figures."""
    for limit in np.unique(np.concatenate([[0.001], np.round(np.unique(stated) + 0.005, 3)])):
        given = stated >= limit
        if given.any():
            yield precision_score(own, given), recall_score(own, given), f1_score(own, given)


@pytest.mark.parametrize("seed", range(5))
def test_choices_are_the_best_of_all_thresholds(seed):
    stated, own = make_label(seed=seed)
    tried = list(search(stated, own))
    assert len(tried) > 30
    for goal in ("f1", "precision_at_recall", "recall_at_precision"):
        found = choose_threshold(stated, own, goal, at=0.8)
        given = stated >= found.threshold
        assert found.precision == pytest.approx(precision_score(own, given))
        assert found.recall == pytest.approx(recall_score(own, given))
        assert found.is_met
        if goal == "f1":
            assert f1_score(own, given) == pytest.approx(max(f for _, _, f in tried))
        elif goal == "precision_at_recall":
            assert found.recall >= 0.8
            assert found.precision == pytest.approx(max(p for p, r, _ in tried if r >= 0.8))
        else:
            assert found.precision >= 0.8
            assert found.recall == pytest.approx(max(r for p, r, _ in tried if p >= 0.8))


def test_a_precision_out_of_reach_is_said_so_and_the_nearest_is_taken():
    stated, own = np.array([0.9, 0.8, 0.7, 0.1]), np.array([False, True, True, False])
    found = choose_threshold(stated, own, "recall_at_precision", at=0.9)
    assert not found.is_met
    assert (found.precision, found.recall) == (pytest.approx(2 / 3), 1.0)
    assert 0.1 < found.threshold < 0.7


def test_ties_are_settled_towards_a_half_and_between_probabilities():
    found = choose_threshold(np.array([0.95, 0.45, 0.35, 0.05]), np.array([1, 1, 0, 0]), "f1")
    assert found.threshold == pytest.approx(0.4)


def test_multi_label_gets_a_threshold_a_label_and_labels_without_rows_stay():
    stated, own = make_label()
    probabilities = np.stack([stated, 1 - stated, stated], axis=1)
    labels = np.stack([own, ~own, np.zeros_like(own)], axis=1).astype(np.float32)
    found = choose_thresholds(probabilities, labels, MANY, "f1", at=0.9, label=None)
    assert list(found) == ["a", "b"]
    numbers = {name: choice.threshold for name, choice in found.items()}
    limits = read_thresholds({"thresholds": numbers}, MANY, where="model")
    assert limits == [numbers["a"], numbers["b"], 0.5]
    assert predict_labels(probabilities, MANY, limits)[:, 0].tolist() == (stated >= numbers["a"]).astype(int).tolist()


def test_an_exclusive_class_is_given_from_its_threshold_on_and_the_likeliest_other_below():
    shares = np.array([[0.5, 0.1, 0.4], [0.3, 0.4, 0.3], [0.05, 0.05, 0.9], [0.35, 0.36, 0.29]])
    assert predict_labels(shares, ONE, [None, None, 0.3]).tolist() == [2, 2, 2, 1]
    assert predict_labels(shares, ONE, [None, None, 0.95]).tolist() == [0, 1, 0, 1]
    stated, own = make_label()
    rest = (1 - stated) / 2
    probabilities = np.stack([rest, rest, stated], axis=1)
    labels = np.where(own, 2, 0)
    found = choose_thresholds(probabilities, labels, ONE, "precision_at_recall", at=0.9, label="spam")["spam"]
    given = predict_labels(probabilities, ONE, [None, None, found.threshold]) == 2
    assert recall_score(own, given) == pytest.approx(found.recall)
    assert found.recall >= 0.9


def test_what_does_not_fit_is_refused():
    stated, own = make_label()
    with pytest.raises(DataError, match="rows that have the label, came none"):
        choose_threshold(stated, np.zeros_like(own), "f1")
    with pytest.raises(ShapeError, match="expected a truth"):
        choose_threshold(stated, own[:3], "f1")
    probabilities, labels = np.stack([1 - stated, stated], axis=1), own.astype(np.int64)
    space = LabelSpace("classification", ("ham", "spam"))
    with pytest.raises(DataError, match="came 'eggs'"):
        choose_thresholds(probabilities, labels, space, "f1", at=0.9, label="eggs")
    with pytest.raises(DataError, match="expected the class that gets"):
        choose_thresholds(probabilities, labels, space, "f1", at=0.9, label=None)
    assert read_thresholds({"thresholds": None}, space, where="model") is None
    damaged = [{"eggs": 0.5}, {}, {"spam": 2}, {"spam": "high"}, [0.5], {"ham": 0.5, "spam": 0.5}]
    for record in damaged:
        with pytest.raises(ArtifactError, match="model: thresholds: expected numbers"):
            read_thresholds({"thresholds": record}, space, where="model")
    with pytest.raises(ShapeError, match="one of exclusive classes, got 2"):
        predict_labels(probabilities, space, [0.5, 0.5])
