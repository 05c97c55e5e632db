"""Estimators that classify: on the features themselves, or by what another classifier says of the texts."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture

from nlp_transfer.errors import ShapeError
from nlp_transfer.evaluation.solvers import fit_quietly
from nlp_transfer.evidence.estimators import check_features, standardize

__all__ = ["deal_folds", "score_leep", "score_nce", "score_neighbors", "score_nleep", "score_probe"]

NUM_NEIGHBORS = 5
"""Rows that vote; chosen, as scikit-learn's default."""

NUM_FOLDS = 5
"""Of the cross-validated probe; chosen."""

PROBE_STRENGTH = 0.01
"""Inverse regularization of the probe on standardized features: with hundreds of dimensions and about as many rows,
scikit-learn's 1 fits the noise; chosen."""

MAX_ITERATIONS = 200
"""Of the probe's solver; chosen. A fit that is still moving then is scored like any other."""

COMPONENTS_A_CLASS = 5
"""Gaussians of N-LEEP for each target class: the source's choice."""

ROWS_A_COMPONENT = 10
"""Fewest rows a Gaussian of N-LEEP has on average, so that many classes with few rows do not end in one Gaussian a
row, which would explain everything; chosen."""

KEPT_VARIANCE = 0.8
"""Share of variance that N-LEEP's principal components keep; chosen."""


def score_neighbors(features_ND: ArrayLike, labels_N: ArrayLike, *, neighbors: int = NUM_NEIGHBORS) -> float:
    """Measure how often a row's nearest others, by cosine, name its class.

    Votes weigh by similarity, which decides between classes with the same number of them.

    Args:
        features_ND: Numbers, shape (N, D).
        labels_N: Class ids, shape (N,).
        neighbors: How many vote; all others where there are fewer.

    Returns:
        Leave-one-out accuracy, a fraction in [0, 1].

    Raises:
        ShapeError: Features and labels do not go together.

    Source:
        Cover and Hart 1967; as a measure of transfer Puigcerver et al. 2021, https://arxiv.org/abs/2009.13239.

    Example:
        >>> score_neighbors([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]], [0, 0, 1, 1], neighbors=1)
        1.0
    """
    features, labels = check_features(features_ND, labels_N)
    unit_ND = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    num_rows, num_classes = len(labels), int(labels.max()) + 1
    k = min(neighbors, num_rows - 1)
    votes_NC = np.zeros((num_rows, num_classes))
    for start in range(0, num_rows, 1024):
        rows = np.arange(start, min(start + 1024, num_rows))
        similar_RN = unit_ND[rows] @ unit_ND.T
        similar_RN[np.arange(len(rows)), rows] = -np.inf
        near_RK = np.argpartition(-similar_RN, k - 1, axis=1)[:, :k]
        weights_RK = (1 + np.take_along_axis(similar_RN, near_RK, axis=1)) / 2
        np.add.at(votes_NC, (rows[:, None], labels[near_RK]), weights_RK)
    return float((votes_NC.argmax(axis=1) == labels).mean())


def deal_folds(labels_N: NDArray[np.int64], num_folds: int, seed: int) -> NDArray[np.int64]:
    """Deal rows to folds, so that each gets its share of every class.

    Args:
        labels_N: Class ids, shape (N,).
        num_folds: How many.
        seed: Of the order in which the rows of a class are dealt.

    Returns:
        Fold of every row, int64, shape (N,), each in [0, num_folds).

    Example:
        >>> sorted(deal_folds(np.array([0, 0, 0, 0, 1, 1]), 2, seed=0)[:4].tolist())
        [0, 0, 1, 1]
    """
    order = np.random.default_rng(seed).permutation(len(labels_N))
    order = order[np.argsort(labels_N[order], kind="stable")]
    folds = np.empty(len(labels_N), dtype=np.int64)
    folds[order] = np.arange(len(labels_N)) % num_folds
    return folds


def score_probe(features_ND: ArrayLike, labels_N: ArrayLike, *, folds: int = NUM_FOLDS, seed: int = 0) -> float:
    """Measure the cross-validated accuracy of a linear classifier on standardized features.

    Args:
        features_ND: Numbers, shape (N, D).
        labels_N: Class ids, shape (N,).
        folds: How many; at most N.
        seed: Of the folds.

    Returns:
        Accuracy, a fraction in [0, 1]; every row is predicted once, by a classifier that has not seen it.

    Raises:
        ShapeError: Features and labels do not go together.

    Source:
        Alain and Bengio 2016, https://arxiv.org/abs/1610.01644.

    Example:
        >>> score_probe([[0.0], [0.1], [4.0], [4.1]], [0, 0, 1, 1], folds=2)
        1.0
    """
    features, labels = check_features(features_ND, labels_N)
    scaled_ND = standardize(features)
    fold_N = deal_folds(labels, min(folds, len(labels)), seed)
    num_right = 0
    for fold in np.unique(fold_N):
        held, kept = fold_N == fold, fold_N != fold
        if len(np.unique(labels[kept])) < 2:
            num_right += int((labels[held] == np.bincount(labels[kept]).argmax()).sum())
            continue
        probe = LogisticRegression(C=PROBE_STRENGTH, max_iter=MAX_ITERATIONS)
        fit_quietly(probe, scaled_ND[kept], labels[kept])
        num_right += int((probe.predict(scaled_ND[held]) == labels[held]).sum())
    return num_right / len(labels)


def score_leep(posteriors_NZ: ArrayLike, labels_N: ArrayLike) -> float:
    """Compute LEEP: the log-likelihood of labels that are guessed from another classifier's answers.

    Args:
        posteriors_NZ: Probabilities of the source's classes, shape (N, Z); every row sums to 1.
        labels_N: Class ids of the target, shape (N,).

    Returns:
        Nats an example, at most 0; 0 where the source's answers give every label away.

    Raises:
        ShapeError: Posteriors and labels do not go together, or rows are no probabilities.

    Source:
        Nguyen et al. 2020, https://arxiv.org/abs/2002.12462. No departures.

    Example:
        >>> score_leep([[1.0, 0.0], [0.0, 1.0]], [1, 0])
        0.0
    """
    posteriors, labels = check_features(posteriors_NZ, labels_N)
    if (posteriors < 0).any() or not np.allclose(posteriors.sum(axis=1), 1.0, atol=1e-4):
        raise ShapeError("leep: expected probabilities whose rows sum to 1, got other numbers. Apply a softmax first.")
    joint_CZ = np.eye(int(labels.max()) + 1)[labels].T @ posteriors / len(labels)
    given_CZ = joint_CZ / np.maximum(joint_CZ.sum(axis=0, keepdims=True), 1e-300)
    likelihood_N = (posteriors * given_CZ[labels]).sum(axis=1)
    return float(np.log(np.maximum(likelihood_N, 1e-300)).mean())


def score_nce(posteriors_NZ: ArrayLike, labels_N: ArrayLike) -> float:
    """Compute NCE: minus the entropy of the labels given the source's most likely class.

    Args:
        posteriors_NZ: Probabilities, or any figures of the source's classes, shape (N, Z).
        labels_N: Class ids of the target, shape (N,).

    Returns:
        Nats, at most 0; 0 where the source's class gives every label away.

    Raises:
        ShapeError: Posteriors and labels do not go together.

    Source:
        Tran et al. 2019, https://arxiv.org/abs/1908.08142. Departure: the source's labels of the target's
        rows are its own guesses, as in Nguyen et al. 2020, because there are no true ones.

    Example:
        >>> score_nce([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]], [1, 0, 1, 0])
        0.0
    """
    posteriors, labels = check_features(posteriors_NZ, labels_N)
    counts_CZ = np.zeros((int(labels.max()) + 1, posteriors.shape[1]))
    np.add.at(counts_CZ, (labels, posteriors.argmax(axis=1)), 1.0)
    given_CZ = counts_CZ / np.maximum(counts_CZ.sum(axis=0, keepdims=True), 1.0)
    logs_CZ = np.log(given_CZ, where=counts_CZ > 0, out=np.zeros_like(given_CZ))
    # Adding 0 makes a plain zero of a negative one.
    return float((counts_CZ * logs_CZ).sum() / len(labels)) + 0.0


def score_nleep(features_ND: ArrayLike, labels_N: ArrayLike, *, seed: int = 0) -> float:
    """Compute N-LEEP: LEEP with Gaussians on the features in place of a source's classes, so that no head is needed.

    Args:
        features_ND: Numbers, shape (N, D).
        labels_N: Class ids, shape (N,).
        seed: Of the mixture's start.

    Returns:
        Nats an example, at most 0.

    Raises:
        ShapeError: Features and labels do not go together.

    Source:
        Li et al. 2021, https://arxiv.org/abs/2011.11200. Departures: covariances are diagonal, which a few
        hundred rows can carry, and there are at most N / 10 Gaussians.

    Example:
        >>> generator = np.random.default_rng(0)
        >>> labels = np.repeat([0, 1], 50)
        >>> features = generator.normal(size=(100, 4)) + 5 * labels[:, None]
        >>> score_nleep(features, labels) > score_nleep(features, generator.permutation(labels))
        True
    """
    features, labels = check_features(features_ND, labels_N)
    num_classes = int(labels.max()) + 1
    num_components = max(1, min(COMPONENTS_A_CLASS * num_classes, len(labels) // ROWS_A_COMPONENT))
    if not features.var(axis=0).max() > 0:
        return score_leep(np.ones((len(labels), 1)), labels)
    reduced_NK = PCA(n_components=KEPT_VARIANCE, svd_solver="full").fit_transform(features)
    # The mixture's own floor of variances is an absolute one, so the scale must not be the encoder's.
    reduced_NK /= max(float(reduced_NK.std(axis=0).max()), 1e-12)
    mixture = GaussianMixture(num_components, covariance_type="diag", reg_covar=1e-4, random_state=seed)
    posteriors_NK = fit_quietly(mixture, reduced_NK).predict_proba(reduced_NK)
    return score_leep(posteriors_NK, labels)
