"""Heads on vectors say what scikit-learn's own models say."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import LinearSVC

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.evaluation.predictions import to_probabilities
from nlp_transfer.models.vector_classifier import Neighbors
from nlp_transfer.strategies import fitted_heads as heads
from nlp_transfer.strategies.fitted_heads import fit_head

NAMES = ("a", "b", "c", "d")


def make(num_classes, n=120, width=6, seed=0):
    generator = np.random.default_rng(seed)
    targets = np.arange(n) % num_classes
    centers = generator.normal(size=(num_classes, width))
    vectors = (centers[targets] + generator.normal(size=(n, width))).astype(np.float32)
    return vectors, targets, generator.normal(size=(50, width)).astype(np.float32)


def apply(head, tensors, vectors, space):
    if head["kind"] == "knn":
        module = Neighbors(head["num_rows"], vectors.shape[1], space.num_outputs, head["k"], space.kind)
        module.load_state_dict(tensors)
        return module(torch.from_numpy(vectors)).numpy()
    values = torch.from_numpy(vectors)
    if head["kind"] == "mlp":
        values = torch.relu(values @ tensors["0.weight"].T + tensors["0.bias"])
        return (values @ tensors["2.weight"].T + tensors["2.bias"]).numpy()
    return (values @ tensors["weight"].T + tensors["bias"]).numpy()


@pytest.mark.parametrize("num_classes", [2, 4])
def test_logistic_head_gives_scikit_learns_probabilities(num_classes):
    vectors, targets, fresh = make(num_classes)
    space = LabelSpace("classification", NAMES[:num_classes])
    found = to_probabilities(apply(*fit_head("logistic", vectors, targets, space, seed=0), fresh, space), space)
    expected = LogisticRegression(max_iter=1000).fit(vectors, targets).predict_proba(fresh)
    assert np.abs(found - expected).max() < 2e-3


@pytest.mark.parametrize("num_classes", [2, 4])
def test_svm_head_chooses_what_scikit_learn_chooses(num_classes):
    vectors, targets, fresh = make(num_classes)
    space = LabelSpace("classification", NAMES[:num_classes])
    found = apply(*fit_head("svm", vectors, targets, space, seed=0), fresh, space).argmax(axis=1)
    model = LinearSVC(random_state=0, max_iter=10_000).fit(vectors, targets)
    assert (found == model.predict(fresh)).all()


@pytest.mark.parametrize("num_classes", [2, 4])
def test_neighbors_vote_as_scikit_learns_do(num_classes):
    vectors, targets, fresh = make(num_classes)
    space = LabelSpace("classification", NAMES[:num_classes])
    logits = apply(*fit_head("knn", vectors, targets, space, seed=0, neighbors=7), fresh, space)
    expected = KNeighborsClassifier(7, metric="cosine").fit(vectors, targets).predict_proba(fresh)
    found = np.exp(logits)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
    unsmoothed = (found * (7 + 0.1 * num_classes) - 0.1) / 7
    assert np.abs(unsmoothed - expected).max() < 1e-5


@pytest.mark.parametrize("num_classes", [2, 4])
def test_mlp_head_gives_scikit_learns_probabilities(num_classes):
    vectors, targets, fresh = make(num_classes)
    space = LabelSpace("classification", NAMES[:num_classes])
    found = to_probabilities(apply(*fit_head("mlp", vectors, targets, space, seed=3, hidden=8), fresh, space), space)
    model = MLPClassifier((8,), random_state=3, learning_rate_init=5e-3, max_iter=100)
    with pytest.warns(UserWarning, match="converge"):
        model.fit(vectors, targets)
    assert np.abs(found - model.predict_proba(fresh)).max() < 1e-4


def test_regression_is_ridge():
    vectors, _, fresh = make(2)
    targets = vectors @ np.arange(6, dtype=np.float32)
    space = LabelSpace("regression", ("score",))
    found = apply(*fit_head("logistic", vectors, targets, space, seed=0, penalties=[10.0]), fresh, space)
    assert np.abs(found[:, 0] - Ridge(alpha=0.1).fit(vectors, targets).predict(fresh)).max() < 1e-3
    for kind in ("svm", "knn", "mlp"):
        assert apply(*fit_head(kind, vectors, targets, space, seed=0), fresh, space).shape == (50, 1)


@pytest.mark.parametrize("kind", ["logistic", "svm", "knn", "mlp"])
def test_labels_that_may_hold_together_have_a_model_each(kind):
    vectors, targets, fresh = make(4)
    rows = np.stack([targets % 2, targets // 2, np.zeros(120)], axis=1).astype(np.float32)
    space = LabelSpace("multi_label", ("odd", "high", "never"))
    found = to_probabilities(apply(*fit_head(kind, vectors, rows, space, seed=0), fresh, space), space)
    assert found.shape == (50, 3)
    assert found[:, 2].max() < 0.1, "a label that no example has"
    if kind == "logistic":
        expected = LogisticRegression(max_iter=1000).fit(vectors, rows[:, 0]).predict_proba(fresh)[:, 1]
        assert np.abs(found[:, 0] - expected).max() < 2e-3


@pytest.mark.parametrize("kind", ["logistic", "svm", "mlp"])
def test_a_class_without_examples_never_wins(kind):
    vectors, targets, fresh = make(2)
    space = LabelSpace("classification", NAMES[:3])
    found = to_probabilities(apply(*fit_head(kind, vectors, targets * 2, space, seed=0), fresh, space), space)
    assert found[:, 1].max() < 1e-3
    assert {0, 2} == set(found.argmax(axis=1))


def test_the_penalty_is_the_one_that_does_best_in_the_folds(monkeypatch):
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(90, 60)).astype(np.float32)
    targets = (vectors[:, 0] + 3 * generator.normal(size=90)).astype(np.float32)
    space = LabelSpace("regression", ("score",))
    seen = []
    fit = heads._Linear.__call__

    def watch(self, vectors, targets, strength):
        seen.append((len(vectors), strength))
        return fit(self, vectors, targets, strength)

    monkeypatch.setattr(heads._Linear, "__call__", watch)
    weight = fit_head("logistic", vectors, targets, space, seed=0, penalties=[100.0, 0.001], folds=3)[1]["weight"]
    assert len(seen) == 2 * 3 + 1
    assert seen[-1] == (90, 0.001), "noise asks for the strong penalty"
    assert weight.abs().max() < 0.2


def test_class_weights_are_minded():
    vectors, _, fresh = make(2)
    targets = (np.arange(120) < 12).astype(int)
    space = LabelSpace("classification", NAMES[:2])
    plain, weighted = (
        apply(*fit_head("logistic", vectors, targets, space, seed=0, weights_C=weights), fresh, space).argmax(1).mean()
        for weights in (None, np.array([0.55, 5.0]))
    )
    assert weighted > plain + 0.1
