"""How far two clouds of vectors lie apart: what a classifier tells of them, how they spread, and a kernel's mean."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from nlp_transfer.errors import ShapeError
from nlp_transfer.evaluation.solvers import fit_quietly

__all__ = ["compute_coral", "compute_mmd", "measure_proxy_distance"]


def measure_proxy_distance(first_ND: np.ndarray, second_ND: np.ndarray, *, seed: int) -> float:
    """Ask a linear classifier to tell two clouds of vectors apart.

    As many of the larger cloud are drawn as the smaller one has; half of each trains, the other half is held out.

    Args:
        first_ND: Float, shape (N, D).
        second_ND: Float, shape (M, D).
        seed: Of the draw.

    Returns:
        2 (1 - 2 error) in [0, 2]: 0 where the classifier does no better than chance, 2 where it is never wrong.

    Raises:
        ShapeError: A cloud has fewer than four vectors, or the widths differ.

    Source:
        Ben-David et al. 2007, "Analysis of representations for domain adaptation", section 4, with a logistic
        regression in place of a Huber loss. Estimates below 0 are given as 0.

    Example:
        >>> near, far = np.arange(8.0)[:, None], 100 + np.arange(8.0)[:, None]
        >>> measure_proxy_distance(near, far, seed=0)
        2.0
    """
    _check(first_ND, second_ND, fewest=4)
    generator = np.random.default_rng(seed)
    size = min(len(first_ND), len(second_ND))
    clouds = [cloud[generator.permutation(len(cloud))[:size]].astype(np.float64) for cloud in (first_ND, second_ND)]
    half = size // 2
    rows_ND = np.concatenate([clouds[0][:half], clouds[1][:half], clouds[0][half:], clouds[1][half:]])
    rest = size - half
    sides_N = np.repeat([0, 1, 0, 1], [half, half, rest, rest])
    model = LogisticRegression(C=1.0, max_iter=300)
    fit_quietly(model, rows_ND[: 2 * half], sides_N[: 2 * half])
    error = float(np.mean(model.predict(rows_ND[2 * half :]) != sides_N[2 * half :]))
    return max(0.0, 2 * (1 - 2 * error))


def compute_coral(first_ND: np.ndarray, second_ND: np.ndarray) -> float:
    """Compare how two clouds of vectors spread: the squared distance of their covariances.

    Args:
        first_ND: Float, shape (N, D).
        second_ND: Float, shape (M, D).

    Returns:
        ``||C1 - C2||^2 / (4 D^2)``, 0 for clouds of one spread; it depends on the scale of the vectors.

    Raises:
        ShapeError: A cloud has fewer than two vectors, or the widths differ.

    Source:
        Sun and Saenko 2016, https://arxiv.org/abs/1607.01719, equation 1. No departures.

    Example:
        >>> compute_coral(np.array([[0.0], [2.0]]), np.array([[0.0], [4.0]]))
        9.0
    """
    _check(first_ND, second_ND, fewest=2)
    width = first_ND.shape[1]
    covariances = [np.atleast_2d(np.cov(cloud.astype(np.float64), rowvar=False)) for cloud in (first_ND, second_ND)]
    return float(((covariances[0] - covariances[1]) ** 2).sum() / (4 * width**2))


def compute_mmd(first_ND: np.ndarray, second_ND: np.ndarray) -> float:
    """Compare two clouds of vectors by a Gaussian kernel whose width is their median distance.

    Args:
        first_ND: Float, shape (N, D); a few hundred rows, as every pair is looked at.
        second_ND: Float, shape (M, D).

    Returns:
        The unbiased estimate of the squared maximum mean discrepancy: about 0 for clouds of one kind, a little below
        by chance, and at most 2.

    Raises:
        ShapeError: A cloud has fewer than two vectors, or the widths differ.

    Source:
        Gretton et al. 2012, "A kernel two-sample test", lemma 6; the width by its section 8 (median heuristic).

    Example:
        >>> round(compute_mmd(np.zeros((2, 1)), np.ones((2, 1))), 4)  # 1 + 1 - 2 exp(-1 / 2)
        0.7869
    """
    _check(first_ND, second_ND, fewest=2)
    rows_ND = np.concatenate([first_ND, second_ND]).astype(np.float64)
    norms_N = (rows_ND**2).sum(axis=1)
    squares_NN = np.maximum(norms_N[:, None] + norms_N[None] - 2 * rows_ND @ rows_ND.T, 0.0)
    median = float(np.median(np.sqrt(squares_NN[np.triu_indices(len(rows_ND), 1)])))
    if median == 0.0:
        # More than half of the vectors are one and the same: any width will do, none is better.
        median = float(np.sqrt(squares_NN.max())) or 1.0
    kernel_NN = np.exp(-squares_NN / (2 * median**2))
    n, m = len(first_ND), len(second_ND)
    within = [
        (part.sum() - np.trace(part)) / (size * (size - 1))
        for part, size in ((kernel_NN[:n, :n], n), (kernel_NN[n:, n:], m))
    ]
    return float(within[0] + within[1] - 2 * kernel_NN[:n, n:].mean())


def _check(first_ND: np.ndarray, second_ND: np.ndarray, *, fewest: int) -> None:
    """Refuse clouds that are too small or of two widths."""
    shapes = f"{first_ND.shape} and {second_ND.shape}"
    is_right = first_ND.ndim == second_ND.ndim == 2 and first_ND.shape[1] == second_ND.shape[1]
    if not is_right or min(len(first_ND), len(second_ND)) < fewest:
        raise ShapeError(
            f"distance: expected two clouds of at least {fewest} vectors of one width, got {shapes}. Add rows."
        )
