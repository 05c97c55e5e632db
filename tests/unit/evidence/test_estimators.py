"""Estimators against other ways to compute the same, written from the papers' definitions."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import PredefinedSplit, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nlp_transfer.errors import ShapeError
from nlp_transfer.evidence import estimators
from nlp_transfer.evidence import estimators as classifying


def draw(num_rows=60, width=7, num_classes=3, gap=1.5, seed=0):
    """Features with one mean a class, of unlike scales."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(num_rows) % num_classes)
    means = generator.normal(size=(num_classes, width)) * gap
    features = (means[labels] + generator.normal(size=(num_rows, width))) * np.linspace(0.5, 3.0, width)
    return features, labels


CASES = [draw(), draw(num_rows=24, width=40, seed=1), draw(num_rows=80, width=5, num_classes=2, gap=0.2, seed=2)]
"""More rows than dimensions, fewer, and classes that hardly differ."""


def shrink_by_hand(features):
    """Ledoit and Wolf 2004, with one loop over rows."""
    centered = features - features.mean(axis=0)
    num_rows, width = centered.shape
    sample = sum(np.outer(row, row) for row in centered) / num_rows
    scale = np.trace(sample) / width
    apart = ((sample - scale * np.eye(width)) ** 2).sum() / width
    noise = sum(((np.outer(row, row) - sample) ** 2).sum() / width for row in centered) / num_rows**2
    alpha = min(noise, apart) / apart
    return (1 - alpha) * sample + alpha * scale * np.eye(width), alpha


@pytest.mark.parametrize(("features", "labels"), CASES)
def test_h_score_is_the_trace_of_the_definition(features, labels):
    covariance, alpha = shrink_by_hand(features)
    means = np.stack([features[labels == label].mean(axis=0) for label in labels])
    between = np.cov(means.T, bias=True)
    expected = np.trace(np.linalg.inv(covariance) @ ((1 - alpha) * between))
    assert estimators.score_h(features, labels) == pytest.approx(expected, rel=1e-9)


def test_h_score_of_two_far_clusters_nears_one_less_than_the_classes():
    labels = np.arange(3000) % 3
    features = 50.0 * np.eye(3)[labels] + np.random.default_rng(0).normal(size=(3000, 3))
    assert 1.98 < estimators.score_h(features, labels) < 2.0
    assert estimators.score_h(np.ones((6, 2)), [0, 0, 0, 1, 1, 1]) == 0.0


@pytest.mark.parametrize(("features", "labels"), CASES)
@pytest.mark.parametrize("rows_a_dimension", [0.5, 6, 10])
def test_even_h_score_is_the_trace_with_the_ridge_that_leaves_so_many_dimensions(features, labels, rows_a_dimension):
    scaled = StandardScaler().fit_transform(features)
    covariance = scaled.T @ scaled / len(scaled)
    identity = np.eye(len(covariance))
    wanted = max(len(labels) / rows_a_dimension, labels.max())
    ridge = 0.0
    if wanted < np.linalg.matrix_rank(covariance):
        low, high = 1e-9, 1e9
        for _ in range(200):
            ridge = math.sqrt(low * high)
            left = np.trace(np.linalg.solve(covariance + ridge * identity, covariance))
            low, high = (ridge, high) if left > wanted else (low, ridge)
    means = np.stack([scaled[labels == label].mean(axis=0) for label in labels])
    expected = np.trace(np.linalg.pinv(covariance + ridge * identity) @ np.cov(means.T, bias=True))
    found = estimators.score_h_even(features, labels, rows_a_dimension=rows_a_dimension)
    assert found == pytest.approx(expected, rel=1e-6)
    scales = np.geomspace(1e-3, 1e3, features.shape[1])
    again = estimators.score_h_even(features * scales + 5.0, labels, rows_a_dimension=rows_a_dimension)
    assert again == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("features", "labels"), CASES)
def test_deep_h_score_prefers_the_deeper_of_two_that_look_alike(features, labels):
    even = estimators.score_h_even(features, labels)
    assert estimators.score_h_deep(features, labels, num_layers=1) == even
    assert estimators.score_h_deep(features, labels, num_layers=81) == pytest.approx(3 * even)


def test_even_h_score_gives_every_spectrum_the_same_chance_and_the_shrunk_one_does_not():
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 4
    turn = np.linalg.qr(generator.normal(size=(100, 100)))[0]
    chances = {}
    for name, spectrum in (("flat", np.ones(100)), ("steep", np.arange(1, 101) ** -1.5)):
        features = generator.normal(size=(200, 100)) * np.sqrt(spectrum) @ turn
        shuffles = [generator.permutation(labels) for _ in range(60)]
        chances[name] = [
            np.mean([score(features, shuffled) for shuffled in shuffles])
            for score in (estimators.score_h_even, estimators.score_h)
        ]
    even, shrunk = zip(*chances.values(), strict=True)
    assert even == pytest.approx((3 * 20 / 199,) * 2, rel=0.1)
    assert max(shrunk) > 5 * min(shrunk)


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 0, 1]])
def test_h_score_of_rows_in_one_direction_is_a_figure(labels):
    direction = np.random.default_rng(0).normal(size=384)
    features = np.array([-1.0, 1.0] * (len(labels) // 2))[:, None] * direction
    # All of the spread lies between the classes: as much as one direction can.
    assert estimators.score_h(features, labels) == pytest.approx(1.0, abs=1e-3)


def test_features_that_say_nothing_score_nothing():
    assert estimators.score_h_even(np.ones((6, 2)), [0, 0, 0, 1, 1, 1]) == 0.0
    varied = estimators.standardize(np.array([[1.0, 7.0], [3.0, 7.0], [5.0, 7.0]]))
    assert varied[:, 0].std() == pytest.approx(1.0)
    assert (varied[:, 1] == 0).all()


@pytest.mark.parametrize(("features", "labels"), CASES)
def test_logme_is_the_largest_evidence_there_is(features, labels):
    num_rows = len(labels)
    best = []
    for label in np.unique(labels):
        target = (labels == label).astype(float)

        def lose(logs, target=target):
            alpha, beta = np.exp(logs)
            covariance = np.eye(num_rows) / beta + features @ features.T / alpha
            return -multivariate_normal.logpdf(target, np.zeros(num_rows), covariance) / num_rows

        starts = [(0.0, 0.0), (3.0, 3.0), (6.0, 2.0)]
        best.append(min(minimize(lose, start, method="Nelder-Mead", options={"maxiter": 400}).fun for start in starts))
    assert estimators.score_logme(features, labels) == pytest.approx(-np.mean(best), abs=2e-4)


@pytest.mark.parametrize(("features", "labels"), CASES)
def test_transrate_is_the_same_by_the_large_matrix(features, labels):
    def measure(part, spread=1e-4):
        inner = np.eye(features.shape[1]) + part.T @ part / (len(part) * spread)
        return 0.5 * np.log(np.linalg.eigvalsh(inner)).sum()

    centered = features - features.mean(axis=0)
    within = sum((labels == label).mean() * measure(centered[labels == label]) for label in np.unique(labels))
    assert estimators.score_transrate(features, labels) == pytest.approx(measure(centered) - within, rel=1e-8)


@pytest.mark.parametrize(("features", "labels"), CASES)
@pytest.mark.parametrize("dimensions", [3, 64])
def test_gbc_adds_up_the_coefficients_of_every_pair(features, labels, dimensions):
    values, axes = np.linalg.eigh(np.cov(features.T))
    kept = min(dimensions, *features.shape)
    reduced = (features - features.mean(axis=0)) @ axes[:, np.argsort(-values)[:kept]]
    total = 0.0
    floor = 1e-6 * reduced.var(axis=0).mean()
    for one in np.unique(labels):
        for other in np.unique(labels):
            if one == other:
                continue
            left, right = reduced[labels == one], reduced[labels == other]
            first, second = (np.maximum(side.var(axis=0), floor) for side in (left, right))
            middle = (first + second) / 2
            gap = left.mean(axis=0) - right.mean(axis=0)
            distance = gap @ np.diag(1 / middle) @ gap / 8
            distance += 0.5 * math.log(np.prod(middle) / math.sqrt(np.prod(first) * np.prod(second)))
            total += math.exp(-distance)
    assert estimators.score_gbc(features, labels, dimensions=dimensions) == pytest.approx(-total, rel=1e-6, abs=1e-12)


def test_gbc_of_one_dimension_by_hand():
    # Means 0 and 4, variances 1 and 1: the distance is 16 / 8 = 2, and the pair counts twice.
    assert estimators.score_gbc([[-1.0], [1.0], [3.0], [5.0]], [0, 0, 1, 1]) == pytest.approx(-2 * math.exp(-2))
    assert math.isfinite(estimators.score_gbc([[-1.0], [1.0], [3.0]], [0, 0, 1]))


@pytest.mark.parametrize(("features", "labels"), CASES)
@pytest.mark.parametrize("neighbors", [1, 5])
def test_neighbors_vote_as_scikit_learn_lets_them_one_row_left_out_at_a_time(features, labels, neighbors):
    right = 0
    for row in range(len(labels)):
        rest = np.arange(len(labels)) != row
        voters = KNeighborsClassifier(neighbors, metric="cosine", weights=lambda distance: (2 - distance) / 2)
        right += voters.fit(features[rest], labels[rest]).predict(features[row : row + 1])[0] == labels[row]
    assert estimators_agree(classifying.score_neighbors(features, labels, neighbors=neighbors), right / len(labels))


def estimators_agree(one, other):
    return one == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize(("features", "labels"), CASES)
def test_probe_is_scikit_learns_cross_validation_on_the_same_folds(features, labels):
    folds = classifying.deal_folds(labels, 5, seed=3)
    assert np.ptp(np.bincount(folds)) <= 1
    scaled = StandardScaler().fit_transform(features)
    model = make_pipeline(LogisticRegression(C=classifying.PROBE_STRENGTH, max_iter=200))
    found = cross_val_score(model, scaled, labels, cv=PredefinedSplit(folds))
    expected = np.average(found, weights=np.bincount(folds))
    assert classifying.score_probe(features, labels, seed=3) == pytest.approx(expected)


def test_probe_stands_a_class_of_one_row():
    assert classifying.score_probe([[0.0], [0.1], [9.0]], [0, 0, 1], folds=3) == pytest.approx(2 / 3)


def test_leep_and_nce_by_hand():
    posteriors = [[0.8, 0.2], [0.4, 0.6], [0.3, 0.7]]
    labels = [0, 1, 1]
    # Joint of label 0: (0.8, 0.2) / 3, of label 1: (0.7, 1.3) / 3; sources weigh 1.5 and 1.5.
    first = 0.8 * 0.8 / 1.5 + 0.2 * 0.2 / 1.5
    second = 0.4 * 0.7 / 1.5 + 0.6 * 1.3 / 1.5
    third = 0.3 * 0.7 / 1.5 + 0.7 * 1.3 / 1.5
    expected = (math.log(first) + math.log(second) + math.log(third)) / 3
    assert classifying.score_leep(posteriors, labels) == pytest.approx(expected)
    # Of three rows that the source calls 0, two are of class 1: their entropy counts three times of four.
    mixed = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9]]
    entropy = -(1 / 3 * math.log(1 / 3) + 2 / 3 * math.log(2 / 3))
    assert classifying.score_nce(mixed, [0, 1, 1, 0]) == pytest.approx(-0.75 * entropy)


def test_leep_by_loops_on_many_classes():
    generator = np.random.default_rng(0)
    posteriors, labels = generator.dirichlet(np.ones(5), size=40), generator.integers(0, 4, 40)
    total = 0.0
    for row in range(40):
        likelihood = 0.0
        for source in range(5):
            whole = posteriors[:, source].sum()
            likelihood += posteriors[row, source] * posteriors[labels == labels[row], source].sum() / whole
        total += math.log(likelihood)
    assert classifying.score_leep(posteriors, labels) == pytest.approx(total / 40)


def test_nleep_is_leep_on_a_mixture_of_rotated_and_cut_features():
    features, labels = draw(num_rows=200, width=6, num_classes=2)
    centered = features - features.mean(axis=0)
    values, axes = np.linalg.eigh(centered.T @ centered)
    order = np.argsort(-values)
    kept = int(np.searchsorted(np.cumsum(values[order]) / values.sum(), 0.8)) + 1
    assert 1 < kept < 6
    reduced = centered @ axes[:, order[:kept]]
    mixture = GaussianMixture(10, covariance_type="diag", reg_covar=1e-4, random_state=0)
    signs = np.sign(np.abs(reduced).max(axis=0))
    assert (signs == 1).all()
    expected = []
    for flips in np.array(np.meshgrid(*[[-1, 1]] * kept)).reshape(kept, -1).T:
        # Which way an axis points is anybody's choice, and the mixture's start may depend on it.
        turned = reduced * flips / reduced.std(axis=0).max()
        expected.append(classifying.score_leep(mixture.fit(turned).predict_proba(turned), labels))
    assert min(abs(value - classifying.score_nleep(features, labels)) for value in expected) < 1e-6
    assert classifying.score_nleep(np.ones((4, 2)), [0, 0, 1, 1]) == pytest.approx(math.log(0.5))


EVERY = {
    **{name: getattr(estimators, f"score_{name}") for name in ("h", "h_even", "logme", "transrate", "gbc")},
    **{name: getattr(classifying, f"score_{name}") for name in ("neighbors", "probe", "nleep")},
}


@pytest.mark.parametrize("name", EVERY)
def test_every_estimator_prefers_features_that_tell_classes_apart(name):
    clear = [EVERY[name](*draw(num_rows=120, gap=gap, seed=4)) for gap in (0.1, 1.0, 4.0)]
    assert clear == sorted(clear)
    assert len(set(clear)) == 3


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    ("features", "labels", "problem"),
    [
        ([[1.0], [2.0]], [0], r"\(2, 1\) and \(1,\)"),
        ([1.0, 2.0], [0, 1], r"\(2,\)"),
        ([[1.0], [math.nan]], [0, 1], "finite"),
        ([[1.0], [2.0]], [1, 1], "two classes or more, got 1"),
        (np.empty((0, 3)), [], r"\(0, 3\)"),
    ],
)
def test_every_estimator_refuses_what_does_not_go_together(name, features, labels, problem):
    with pytest.raises(ShapeError, match=problem):
        EVERY[name](features, labels)


def test_leep_refuses_what_are_no_probabilities():
    with pytest.raises(ShapeError, match="softmax"):
        classifying.score_leep([[2.0, -1.0], [0.5, 0.5]], [0, 1])
