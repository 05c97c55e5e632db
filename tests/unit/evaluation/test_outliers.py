import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import roc_auc_score

from nlp_transfer.errors import ArtifactError, DataError, ShapeError
from nlp_transfer.evaluation.outliers import (
    SHRINKAGE,
    fit_gaussians,
    measure_auroc,
    read_gaussians,
    score_energy,
)


def make_vectors(seed=0, num_rows=300):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, num_rows)
    return 4.0 * np.eye(3, 5)[labels] + draw.normal(size=(num_rows, 5)) @ np.diag([1, 0.5, 2, 1, 0.1]), labels


def test_energy_is_the_negative_log_of_the_summed_powers():
    logits = np.random.default_rng(0).normal(size=(20, 4)) * 5
    assert score_energy(logits) == pytest.approx(-np.log(np.exp(logits).sum(axis=1)))
    assert score_energy(np.array([[1000.0, 1000.0]])) == pytest.approx(-logsumexp([1000.0, 1000.0]))
    # Softmax cannot tell these two apart; energy does.
    assert np.diff(score_energy(np.array([[5.0, 4.0], [1.0, 0.0]])))[0] == pytest.approx(4.0)


def test_distances_are_those_of_scikit_learn_with_the_same_covariance():
    vectors, labels = make_vectors()
    found = fit_gaussians(vectors, labels)
    means = np.stack([vectors[labels == c].mean(axis=0) for c in range(3)])
    assert np.allclose(found.means, means)
    model = EmpiricalCovariance(assume_centered=True).fit(vectors - means[labels])
    width = vectors.shape[1]
    level = np.trace(model.covariance_) / width
    model._set_covariance((1 - SHRINKAGE) * model.covariance_ + SHRINKAGE * level * np.eye(width))
    theirs = np.min([model.mahalanobis(vectors - mean) for mean in means], axis=0)
    assert np.allclose(found.score(vectors), theirs)


def test_rows_far_from_every_class_score_high():
    vectors, labels = make_vectors()
    inside, _ = make_vectors(seed=1)
    outside = np.random.default_rng(2).normal(size=(100, 5)) - 8
    found = fit_gaussians(vectors, labels)
    assert measure_auroc(found.score(inside), found.score(outside)) > 0.99


def test_a_class_without_rows_and_a_flat_direction_do_no_harm():
    vectors, labels = make_vectors()
    vectors[:, 4] = 0.0
    found = fit_gaussians(vectors, np.where(labels == 1, 7, labels))
    assert found.means.shape == (3, 5)
    assert np.isfinite(found.score(vectors)).all()


def test_distributions_survive_their_file_and_another_file_is_refused():
    vectors, labels = make_vectors()
    found = fit_gaussians(vectors, labels)
    again = read_gaussians(found.to_bytes(), where="model")
    assert np.array_equal(again.score(vectors), found.score(vectors))
    for content in (b"", b"no tensors", found.to_bytes()[:-9]):
        with pytest.raises(ArtifactError, match="model: expected class means"):
            read_gaussians(content, where="model")


def test_auroc_is_that_of_scikit_learn_with_ties():
    draw = np.random.default_rng(0)
    inside, outside = draw.integers(0, 8, 60).astype(float), draw.integers(3, 12, 40).astype(float)
    truth = np.repeat([0, 1], [60, 40])
    assert measure_auroc(inside, outside) == pytest.approx(roc_auc_score(truth, np.concatenate([inside, outside])))


def test_what_does_not_fit_is_refused():
    vectors, labels = make_vectors()
    with pytest.raises(ShapeError, match="label for each of 300 vectors"):
        fit_gaussians(vectors, labels[:5])
    with pytest.raises(DataError, match="more rows than classes"):
        fit_gaussians(vectors[:3], np.array([0, 1, 2]))
    with pytest.raises(ShapeError, match="vectors of width 5"):
        fit_gaussians(vectors, labels).score(np.ones((2, 4)))
    with pytest.raises(ShapeError, match="got 0 and 3"):
        measure_auroc(np.array([]), np.ones(3))
    with pytest.raises(ShapeError, match="expected logits"):
        score_energy(np.ones(3))
