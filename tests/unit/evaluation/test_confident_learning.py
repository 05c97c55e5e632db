import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from nlp_transfer.errors import DataError, MissingExtraError, ShapeError
from nlp_transfer.evaluation import confident_learning as suspects
from nlp_transfer.evaluation.confident_learning import estimate_held_out, rank_suspects


def make_clouds(num_rows=300, num_classes=3, num_wrong=30, seed=0):
    """Vectors around one corner a class, some labels moved on; tells which."""
    draw = np.random.default_rng(seed)
    truth = np.arange(num_rows) % num_classes
    vectors = 2.0 * np.eye(8)[truth] + draw.normal(size=(num_rows, 8)) * 0.4
    given = truth.copy()
    wrong = draw.choice(num_rows, num_wrong, replace=False)
    given[wrong] = (truth[wrong] + draw.integers(1, num_classes, num_wrong)) % num_classes
    return vectors, truth, given


def test_planted_wrong_labels_lead_the_list_and_their_true_label_is_suggested():
    vectors, truth, given = make_clouds()
    probabilities = estimate_held_out(vectors, given, 3)
    assert probabilities.shape == (300, 3)
    assert np.allclose(probabilities.sum(axis=1), 1)
    ranking = rank_suspects(given, probabilities)
    wrong = given != truth
    assert wrong.sum() == 30
    assert wrong[ranking.rows[:30]].mean() > 0.95
    assert (ranking.suggested == truth).mean() > 0.98
    assert sorted(ranking.rows) == list(range(300))
    assert 0.8 * 30 <= ranking.flagged.sum() <= 1.2 * 30
    assert (np.diff(ranking.scores[ranking.rows]) >= 0).all()


def test_clean_labels_are_hardly_flagged():
    vectors, truth, _ = make_clouds()
    assert rank_suspects(truth, estimate_held_out(vectors, truth, 3)).flagged.sum() <= 3


def test_scores_are_the_normalized_margin_worked_by_hand():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    given = np.array([0, 1, 0, 2])
    # (p of the label - largest other + 1) / 2
    assert rank_suspects(given, probabilities).scores == pytest.approx([0.75, 0.35, 0.35, 0.85])


def test_regression_never_sees_the_row_it_judges():
    vectors, _, given = make_clouds(120)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ours = suspects._regress(units, given, 3, 4, 7)
    theirs = np.zeros_like(ours)
    for seen, held_out in StratifiedKFold(4, shuffle=True, random_state=7).split(units, given):
        model = LogisticRegression(C=suspects.STRENGTH, max_iter=200, tol=1e-3).fit(units[seen], given[seen])
        theirs[held_out] = model.predict_proba(units[held_out])
    assert np.allclose(ours, theirs)


def test_neighbors_leave_the_row_itself_out_in_blocks_of_any_size(monkeypatch):
    vectors, _, given = make_clouds(60)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    whole = suspects._vote(units, np.eye(3)[given])
    monkeypatch.setattr(suspects, "ROWS_AT_ONCE", 7)
    assert np.allclose(suspects._vote(units, np.eye(3)[given]), whole)
    similar = units @ units.T
    for row in (0, 31, 59):
        near = [other for other in np.argsort(-similar[row]) if other != row][: suspects.NEIGHBORS]
        votes = np.bincount(given[near], minlength=3)
        assert np.allclose(whole[row], (votes + 0.1) / (suspects.NEIGHBORS + 0.3))


def test_same_seed_gives_the_same_list_and_an_absent_class_does_no_harm():
    vectors, _, given = make_clouds(90)
    first, second = (estimate_held_out(vectors, given, 5, seed=3) for _ in range(2))
    assert np.array_equal(first, second)
    ranking = rank_suspects(given, first)
    assert set(ranking.suggested) <= {0, 1, 2}


def test_a_class_with_one_row_is_looked_at_too():
    vectors, _, given = make_clouds(60, num_wrong=0)
    given[0] = 3
    ranking = rank_suspects(given, estimate_held_out(vectors, given, 4))
    assert ranking.rows[0] == 0


def test_sizes_that_differ_and_one_class_alone_are_refused():
    with pytest.raises(ShapeError, match="label for each of 3 vectors, got 2"):
        estimate_held_out(np.ones((3, 2)), np.array([0, 1]), 2)
    with pytest.raises(DataError, match="two classes or more"):
        estimate_held_out(np.ones((3, 2)), np.array([1, 1, 1]), 2)
    with pytest.raises(DataError, match="two rows of a class to compare"):
        estimate_held_out(np.eye(3), np.array([0, 1, 2]), 3)
    with pytest.raises(ShapeError, match="label for each of 2 rows, got 1"):
        rank_suspects(np.array([0]), np.ones((2, 2)) / 2)


def test_missing_cleanlab_names_the_command_that_installs_it(monkeypatch):
    for name in ("cleanlab", "cleanlab.filter", "cleanlab.rank"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"nlp_transfer\[noise\]"):
        rank_suspects(np.array([0, 1]), np.eye(2))
