import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import ShapeError
from nlp_transfer.evidence.advise.probes import (
    choose_strength,
    extrapolate_curve,
    make_folds,
    measure_curve,
    predict_logistic,
    predict_neighbors,
    predict_tfidf,
    summarize_folds,
)

SPACE = LabelSpace("classification", ("a", "b", "c"))


@pytest.fixture
def cloud():
    """Vectors of length 1 whose classes overlap a little."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 120)
    vectors = generator.normal(size=(120, 8)) + 1.5 * np.eye(3, 8)[labels]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


def test_logistic_probe_agrees_with_cross_validation_of_scikit_learn(cloud):
    vectors, labels = cloud
    folds = make_folds(labels, 5, seed=3)
    found = predict_logistic(vectors, labels, SPACE, folds, strength=4.0, seed=0)
    splitter = StratifiedKFold(5, shuffle=True, random_state=3)
    model = LogisticRegression(C=4.0, tol=1e-6, max_iter=1000)
    expected = cross_val_predict(model, vectors, labels, cv=splitter, method="predict_proba")
    assert found == pytest.approx(expected, abs=2e-3)
    probe = summarize_folds("features", found.argmax(1), labels, folds)
    shares = [np.mean(expected[held].argmax(1) == labels[held]) for _, held in folds]
    assert probe.score == pytest.approx(np.mean(expected.argmax(1) == labels))
    assert probe.spread == pytest.approx(np.std(shares, ddof=1))
    assert (probe.folds, probe.rows) == (5, 120)


def test_neighbors_agree_with_scikit_learn_where_votes_are_not_level(cloud):
    vectors, labels = cloud
    folds = make_folds(labels, 5, seed=0)
    found = predict_neighbors(vectors, labels, 3, folds)
    compared = 0
    for train, held in folds:
        model = KNeighborsClassifier(10, metric="cosine").fit(vectors[train], labels[train])
        shares = model.predict_proba(vectors[held])
        ordered = np.sort(shares, axis=1)
        clear = ordered[:, -1] > ordered[:, -2]
        assert found[held][clear].argmax(1).tolist() == shares[clear].argmax(1).tolist()
        compared += int(clear.sum())
    assert compared > 90
    assert found == pytest.approx(found.round(1), abs=1e-4)


def test_tfidf_probe_tells_topics_apart_and_never_sees_the_row_it_answers():
    texts = [f"{'goal match team' if row % 2 else 'shares oil profit'} {row}" for row in range(40)]
    labels = np.arange(40) % 2
    folds = make_folds(labels, 5, seed=0)
    assert (predict_tfidf(texts, labels, folds, seed=0) == labels).all()
    # Every text is a word of its own: what was learned says nothing about the others.
    alone = predict_tfidf([f"word{row}" for row in range(40)], labels, folds, seed=0)
    assert (alone == labels).mean() <= 0.5
    assert set(predict_tfidf(["!"] * 40, np.array([0] * 10 + [1] * 30), folds, seed=0)) == {1}
    many = np.arange(40) % 4
    words = [f"{('north', 'east', 'south', 'west')[label]} {row}" for row, label in enumerate(many)]
    assert (predict_tfidf(words, many, make_folds(many, 5, seed=0), seed=0) == many).all()


def test_a_class_rarer_than_the_folds_is_no_obstacle():
    labels = np.array([0] * 20 + [1] * 19 + [2])
    folds = make_folds(labels, 5, seed=0)
    assert sorted(np.concatenate([held for _, held in folds]).tolist()) == list(range(40))
    found = predict_logistic(np.eye(40, dtype=np.float32), labels, SPACE, folds, strength=1.0, seed=0)
    assert found.shape == (40, 3)
    assert found.sum(axis=1) == pytest.approx(np.ones(40), abs=1e-5)


def test_folds_do_not_outnumber_the_rows_of_a_class():
    labels = np.repeat(np.arange(32), 2)
    folds = make_folds(labels, 5, seed=0)
    # Of every class one row each way: a row's own class is not rarer in train than the others.
    assert [sorted(labels[train].tolist()) for train, _ in folds] == [list(range(32))] * 2
    assert len(make_folds(np.repeat(np.arange(8), 3), 5, seed=0)) == 3
    assert len(make_folds(np.arange(10), 5, seed=0)) == 2


@pytest.mark.parametrize("labels", [[0, 1, 0, 1], [1] * 30])
def test_too_little_to_divide_is_refused(labels):
    with pytest.raises(ShapeError, match="at least 10 rows of two classes"):
        make_folds(np.array(labels), 5, seed=0)


def test_folds_that_leave_rows_out_are_refused():
    with pytest.raises(ShapeError, match="hold each of 4 rows out once"):
        summarize_folds("tfidf", np.zeros(4), np.zeros(4), [(np.array([0, 1]), np.array([2, 3]))] * 2)


def test_the_strength_is_the_one_that_predicts_best(cloud):
    vectors, labels = cloud
    # As alike as rows of one class are, the loosest fit is no better than the tightest: the tightest is taken.
    assert choose_strength(np.eye(3, dtype=np.float32)[labels], labels, SPACE, seed=0) == 1.0
    assert choose_strength(vectors, labels, SPACE, seed=0) in (1.0, 4.0, 16.0, 64.0)


def test_the_curve_is_scored_on_all_rows_and_ends_below_the_whole(cloud):
    vectors, labels = cloud
    folds = make_folds(labels, 3, seed=0)
    curve = measure_curve(vectors, labels, SPACE, folds, strength=4.0, seed=0)
    assert [rows for rows, _ in curve] == [20, 40]
    assert all(0.34 < score <= 1 for _, score in curve)
    assert measure_curve(
        vectors[:12], labels[:12], SPACE, make_folds(labels[:12], 3, seed=0), strength=1.0, seed=0
    ) == [(4, pytest.approx(0.5, abs=0.5))]


def test_a_curve_is_carried_on_at_half_its_pace():
    curve = [(100, 0.7), (200, 0.8)]
    assert extrapolate_curve(curve, 200) == 0.8
    assert extrapolate_curve(curve, 400) == pytest.approx(0.85)
    assert extrapolate_curve(curve, 800) == pytest.approx(0.875)
    assert extrapolate_curve(curve, 10**9) < 0.9
    assert extrapolate_curve([(100, 0.8), (200, 0.7)], 800) == 0.7
    assert extrapolate_curve([(100, 0.5)], 800) == 0.5
    assert extrapolate_curve([(100, 0.5), (200, 0.99)], 10**6) == 1.0
