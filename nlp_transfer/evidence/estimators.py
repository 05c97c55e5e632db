"""How well features suit labels, without any training of the encoder: one plain function an estimator.

Of each, more is better. They compare encoders on the same rows; no figure of one estimator means anything beside a
figure of another.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import brentq
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture

from nlp_transfer.errors import ShapeError
from nlp_transfer.evaluation.solvers import fit_quietly

__all__ = [
    "check_features",
    "deal_folds",
    "score_gbc",
    "score_h",
    "score_h_deep",
    "score_h_even",
    "score_leep",
    "score_logme",
    "score_nce",
    "score_neighbors",
    "score_nleep",
    "score_probe",
    "score_transrate",
    "standardize",
]

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

MAX_ROUNDS = 1000
"""Of LogME's fixed point. Ten are mostly enough, but features that say nothing take hundreds; chosen."""

TOLERANCE = 1e-6
"""Relative change at which LogME's fixed point is taken to be reached; chosen."""

ROWS_A_DIMENSION = 10
"""Rows behind each effective dimension of the even H-score; chosen, by simulation: with features of known H-score,
spectra from flat to steep and 150 to 1000 rows, 10 orders them best where rows are few, and as well as 4 where not."""

DEPTH_POWER = 0.25
"""Of the count of layers beside the H-score; chosen: a half or a logarithm do as well, 1 makes a random encoder of six
layers better than a trained one of three, see RESULTS.md."""

GBC_DIMENSIONS = 64
"""Principal components that GBC keeps: the source's choice."""

TINY, RELATIVE_SLACK = 1e-12, 1e-9
"""Against division by zero."""


def check_features(features_ND: ArrayLike, labels_N: ArrayLike) -> tuple[Floats, Labels]:
    """Hold features and labels against each other.

    Args:
        features_ND: Numbers, shape (N, D).
        labels_N: Class ids of any integers, shape (N,).

    Returns:
        Features as float64, and labels as ids 0 to C - 1 without gaps, int64.

    Raises:
        ShapeError: They disagree on N, hold nothing, are not finite, or there is one class only.

    Example:
        >>> check_features([[1.0], [2.0]], [5, 3])[1].tolist()
        [1, 0]
    """
    features, labels = np.asarray(features_ND, dtype=np.float64), np.asarray(labels_N)
    if features.ndim != 2 or labels.ndim != 1 or len(features) != len(labels) or not features.size:
        raise ShapeError(
            f"estimator: expected features (N, D) and labels (N,), got {features.shape} and {labels.shape}. "
            "Give one label a row."
        )
    if not np.isfinite(features).all():
        raise ShapeError("estimator: expected finite features, got nan or inf. Look at the encoder's weights.")
    names, ids = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise ShapeError(f"estimator: expected two classes or more, got {len(names)}. Add rows of another class.")
    return features, ids.astype(np.int64)


def standardize(features_ND: Floats) -> Floats:
    """Give every column mean 0 and variance 1; a column that does not vary becomes zeros.

    Encoders have a few dimensions with a variance far above all others (Timkey and van Schijndel 2021,
    https://arxiv.org/abs/2109.04404). Whatever shrinks a covariance towards a multiple of the identity would
    otherwise wipe out what the small dimensions say.

    Args:
        features_ND: Float64, shape (N, D).

    Returns:
        Float64, shape (N, D).

    Example:
        >>> standardize(np.array([[1.0, 7.0], [3.0, 7.0]])).tolist()
        [[-1.0, 0.0], [1.0, 0.0]]
    """
    centered = features_ND - features_ND.mean(axis=0)
    spread = centered.std(axis=0)
    # What rounding leaves of a constant column must not be blown up to variance 1.
    floor = 1e-10 * np.maximum(np.abs(features_ND).max(axis=0), TINY)
    return np.where(spread > floor, centered / np.maximum(spread, TINY), 0.0)


def score_h(features_ND: ArrayLike, labels_N: ArrayLike) -> float:
    """Compute the regularized H-score: how much of the features' variance lies between the classes.

    The trace of the inverse covariance of the features times the covariance of their class means. The covariance is
    shrunk towards a multiple of the identity by Ledoit and Wolf's rule, which keeps it from being singular where
    there are fewer rows than dimensions, and the between-class part is scaled down by as much.

    Args:
        features_ND: Numbers, shape (N, D).
        labels_N: Class ids, shape (N,).

    Returns:
        A figure in [0, min(C - 1, D)], higher for features that tell the classes apart.

    Raises:
        ShapeError: Features and labels do not go together.

    Source:
        Ibrahim et al. 2021, https://arxiv.org/abs/2110.06893, the shrinkage-based H-score; after
        Bao et al. 2019. No departures.

    Example:
        >>> features, labels = [[0.0, 1.0], [0.0, -1.0], [4.0, 1.0], [4.0, -1.0]], [0, 0, 1, 1]
        >>> score_h(features, labels) > 10 * score_h(features, [0, 1, 1, 0])
        True
    """
    features, labels = check_features(features_ND, labels_N)
    centered_ND = features - features.mean(axis=0)
    if not np.abs(centered_ND).max() > TINY:
        return 0.0
    covariance_DD, shrinkage = ledoit_wolf(centered_ND, assume_centered=True)
    if not shrinkage > 0:
        # Rows all in one direction, as two always are: nothing of their spread is taken for chance, and a covariance
        # of that direction alone has no inverse.
        slack = RELATIVE_SLACK * np.trace(covariance_DD) / len(covariance_DD)
        covariance_DD = covariance_DD + slack * np.eye(len(covariance_DD))
    shares_C, means_CD = _average_classes(centered_ND, labels)
    solved_DC = cho_solve(cho_factor(covariance_DD), means_CD.T)
    between = float(np.einsum("c,cd,dc->", shares_C, means_CD, solved_DC))
    return (1.0 - float(shrinkage)) * between


def score_h_even(features_ND: ArrayLike, labels_N: ArrayLike, *, rows_a_dimension: float = ROWS_A_DIMENSION) -> float:
    """Compute the H-score with a ridge that gives every encoder the same chance level.

    What an H-score says of labels without any meaning grows with the effective dimensions of the features, so encoders
    with a flat spectrum, an untrained one for instance, gain most from few rows. Ledoit and Wolf's rule leaves them
    tens or hundreds of dimensions, as their spectrum has it. Here the ridge is as strong as it takes for N / 10
    effective dimensions, the trace of S (S + ridge)^-1: chance then comes to (C - 1) * (N / 10) / (N - 1) for all.
    Features are standardized first, so that a few large dimensions do not set the ridge for all others.

    Args:
        features_ND: Numbers, shape (N, D).
        labels_N: Class ids, shape (N,).
        rows_a_dimension: Rows behind each effective dimension; there are C - 1 dimensions at least. Features that do
            not have so many are left as they are.

    Returns:
        A figure in [0, min(C - 1, D)], higher for features that tell the classes apart.

    Raises:
        ShapeError: Features and labels do not go together.

    Source:
        Bao et al. 2019, https://doi.org/10.1109/ICIP.2019.8803726, and Ibrahim et al. 2021 (see `score_h`), with
        another regularization; effective dimensions as in Hastie et al. 2009, equation 3.50.

    Example:
        >>> features, labels = [[0.0, 1.0], [0.0, -1.0], [4.0, 1.0], [4.0, -1.0]], [0, 0, 1, 1]
        >>> score_h_even(features, labels) > 10 * score_h_even(features, [0, 1, 1, 0])
        True
    """
    features, labels = check_features(features_ND, labels_N)
    left_NK, singular_K, _ = np.linalg.svd(standardize(features), full_matrices=False)
    kept = singular_K > singular_K[0] * 1e-7
    if not kept.any():
        return 0.0
    values_K = singular_K[kept] ** 2 / len(labels)
    wanted = max(len(labels) / rows_a_dimension, float(labels.max()))
    ridge = 0.0
    if wanted < len(values_K):

        def miss(log_ridge: float) -> float:
            return float((values_K / (values_K + np.exp(log_ridge))).sum()) - wanted

        # Far ends: next to no ridge leaves all dimensions, one far above the largest value leaves next to none.
        ridge = float(np.exp(brentq(miss, np.log(values_K.min()) - 30, np.log(values_K.max()) + 30)))
    shares_C, means_CK = _average_classes(left_NK[:, kept] * singular_K[kept], labels)
    return float(np.einsum("c,ck,k->", shares_C, means_CK**2, 1 / (values_K + ridge)))


def score_h_deep(features_ND: ArrayLike, labels_N: ArrayLike, *, num_layers: int) -> float:
    """Compute the even H-score times the fourth root of the count of layers that fine-tuning can move.

    How well fixed features tell the classes apart does not say how far training gets from there: the first layer of
    an encoder and all six of them have H-scores a seventh apart on SST-2, and 0.71 and 0.84 of the sentences right
    after fine-tuning on a thousand. Between encoders of the same depth the order is that of `score_h_even`.

    Args:
        features_ND: Numbers, shape (N, D).
        labels_N: Class ids, shape (N,).
        num_layers: Of the encoder, whichever of them the features come from.

    Returns:
        A figure of at least 0, higher for encoders that are expected to do better after fine-tuning.

    Raises:
        ShapeError: Features and labels do not go together.

    Source:
        `score_h_even`; the factor is this project's. Deeper encoders of one width fine-tune better in Turc et al. 2019,
        https://arxiv.org/abs/1908.08962.

    Example:
        >>> features, labels = [[0.0, 1.0], [0.0, -1.0], [4.0, 1.0], [4.0, -1.0]], [0, 0, 1, 1]
        >>> score_h_deep(features, labels, num_layers=16) == 2 * score_h_even(features, labels)
        True
    """
    return float(num_layers**DEPTH_POWER) * score_h_even(features_ND, labels_N)


def _average_classes(features_ND: Floats, labels_N: Labels) -> tuple[Floats, Floats]:
    """Share of every class, shape (C,), and its mean, shape (C, D)."""
    counts_C = np.bincount(labels_N).astype(np.float64)
    sums_CD = np.zeros((len(counts_C), features_ND.shape[1]))
    np.add.at(sums_CD, labels_N, features_ND)
    return counts_C / len(labels_N), sums_CD / counts_C[:, None]


def score_logme(features_ND: ArrayLike, labels_N: ArrayLike) -> float:
    """Compute LogME: the largest log evidence of a Bayesian linear model from features to one-hot labels.

    For each class, precision of weights and noise are set where the evidence is largest, by a fixed point that needs
    one singular value decomposition for all classes together.

    Args:
        features_ND: Numbers, shape (N, D).
        labels_N: Class ids, shape (N,).

    Returns:
        Nats an example, averaged over classes; any real number.

    Raises:
        ShapeError: Features and labels do not go together.

    Source:
        You et al. 2021, https://arxiv.org/abs/2102.11005; fixed point of You et al. 2022,
        https://arxiv.org/abs/2110.10545. Departure: it is run to a tighter tolerance, without the
        source's 1e-5 in the denominators, and the evidence is taken at the last precisions.

    Example:
        >>> features, labels = [[0.0, 1.0], [0.1, -1.0], [4.0, 1.0], [4.1, -1.0]], [0, 0, 1, 1]
        >>> score_logme(features, labels) > score_logme(features, [0, 1, 0, 1])
        True
    """
    features, labels = check_features(features_ND, labels_N)
    left_NK, singular_K, _ = np.linalg.svd(features, full_matrices=False)
    squares_K = singular_K**2
    targets_NC = np.eye(int(labels.max()) + 1)[labels]
    inside_KC = (left_NK.T @ targets_NC) ** 2
    outside_C = np.maximum((targets_NC**2).sum(axis=0) - inside_KC.sum(axis=0), 0.0)
    num_rows, width = features.shape
    evidences = [
        _maximize_evidence(squares_K, inside_KC[:, column], float(outside_C[column]), num_rows, width)
        for column in range(targets_NC.shape[1])
    ]
    return float(np.mean(evidences))


def _maximize_evidence(squares_K: Floats, inside_K: Floats, outside: float, num_rows: int, width: int) -> float:
    """Largest log evidence of one target, an example; ``inside_K`` are its squared coordinates along the features."""
    alpha = beta = 1.0
    for _ in range(MAX_ROUNDS):
        ratio = alpha / beta
        gamma, weights, residual = _fit_ridge(squares_K, inside_K, outside, ratio)
        alpha, beta = gamma / max(weights, TINY), max(num_rows - gamma, TINY) / max(residual, TINY)
        if not 0.0 < alpha / beta < np.inf or abs(alpha / beta - ratio) <= TOLERANCE * ratio:
            break
    alpha, beta = max(alpha, TINY), max(beta, TINY)
    _, weights, residual = _fit_ridge(squares_K, inside_K, outside, alpha / beta)
    # Dimensions beyond the rank have no singular value of their own, and a determinant of alpha each.
    determinant = np.log(alpha + beta * squares_K).sum() + (width - len(squares_K)) * np.log(alpha)
    evidence = width * np.log(alpha) + num_rows * np.log(beta) - determinant
    evidence -= beta * residual + alpha * weights + num_rows * np.log(2 * np.pi)
    return float(evidence / (2 * num_rows))


def _fit_ridge(squares_K: Floats, inside_K: Floats, outside: float, ratio: float) -> tuple[float, float, float]:
    """Effective dimensions, squared length of the weights and squared residual of a ridge of strength ``ratio``."""
    gamma = float((squares_K / (squares_K + ratio)).sum())
    weights = float((squares_K * inside_K / (squares_K + ratio) ** 2).sum())
    residual = float((inside_K * (ratio / (squares_K + ratio)) ** 2).sum()) + outside
    return gamma, weights, residual


def score_transrate(features_ND: ArrayLike, labels_N: ArrayLike, *, distortion: float = 1e-4) -> float:
    """Compute TransRate: bits that labels save in coding the features up to a distortion.

    Args:
        features_ND: Numbers, shape (N, D).
        labels_N: Class ids, shape (N,).
        distortion: Squared error that the code may leave; the source's choice.

    Returns:
        Nats, at least 0 but for rounding.

    Raises:
        ShapeError: Features and labels do not go together.

    Source:
        Huang et al. 2022, https://arxiv.org/abs/2106.09362. Departure: classes weigh by their share, as
        in the paper's definition; its code weighs them alike.

    Example:
        >>> features, labels = [[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0], [0.0, -3.0]], [0, 0, 1, 1]
        >>> score_transrate(features, labels) > score_transrate(features, [0, 1, 0, 1])
        True
    """
    features, labels = check_features(features_ND, labels_N)
    centered_ND = features - features.mean(axis=0)
    rate = _measure_rate(centered_ND, distortion)
    for label, count in enumerate(np.bincount(labels)):
        rate -= float(count) / len(labels) * _measure_rate(centered_ND[labels == label], distortion)
    return rate


def _measure_rate(features_ND: Floats, distortion: float) -> float:
    """Half the log determinant of I + Z'Z / (N * distortion), by the smaller of the two Gram matrices."""
    num_rows, width = features_ND.shape
    gram = features_ND.T @ features_ND if width <= num_rows else features_ND @ features_ND.T
    _, log_determinant = np.linalg.slogdet(np.eye(len(gram)) + gram / (num_rows * distortion))
    return 0.5 * float(log_determinant)


def score_gbc(features_ND: ArrayLike, labels_N: ArrayLike, *, dimensions: int = GBC_DIMENSIONS) -> float:
    """Compute GBC: how little the classes overlap, each taken for a Gaussian with a diagonal covariance.

    Args:
        features_ND: Numbers, shape (N, D).
        labels_N: Class ids, shape (N,).
        dimensions: Principal components that are kept; all where there are fewer.

    Returns:
        Minus the sum of Bhattacharyya coefficients over ordered pairs of classes, in [-C * (C - 1), 0].

    Raises:
        ShapeError: Features and labels do not go together.

    Source:
        Pándy et al. 2022, https://arxiv.org/abs/2111.12780. Departure: a class of one row, which
        has no variance, takes the variance within all classes.

    Example:
        >>> features, labels = [[0.0, 1.0], [0.0, -1.0], [4.0, 1.0], [4.0, -1.0]], [0, 0, 1, 1]
        >>> score_gbc(features, labels) > score_gbc(features, [0, 1, 1, 0])
        True
    """
    features, labels = check_features(features_ND, labels_N)
    centered_ND = features - features.mean(axis=0)
    _, _, axes_KD = np.linalg.svd(centered_ND, full_matrices=False)
    reduced_NK = centered_ND @ axes_KD[:dimensions].T
    _, means_CK = _average_classes(reduced_NK, labels)
    counts_C1 = np.bincount(labels)[:, None]
    squares_CK = np.zeros_like(means_CK)
    np.add.at(squares_CK, labels, (reduced_NK - means_CK[labels]) ** 2)
    pooled_K = squares_CK.sum(axis=0) / len(labels)
    variances_CK = np.where(counts_C1 > 1, squares_CK / counts_C1, pooled_K)
    floor = max(1e-6 * float(reduced_NK.var(axis=0).mean()), TINY)
    variances_CK = np.maximum(variances_CK, floor)
    total = 0.0
    for mean_K, variance_K in zip(means_CK, variances_CK, strict=True):
        middle_CK = (variances_CK + variance_K) / 2
        distance_C = ((means_CK - mean_K) ** 2 / middle_CK).sum(axis=1) / 8
        distance_C += 0.5 * (np.log(middle_CK) - 0.5 * (np.log(variances_CK) + np.log(variance_K))).sum(axis=1)
        total += float(np.exp(-distance_C).sum()) - 1.0  # every class overlaps with itself wholly
    return -total


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
