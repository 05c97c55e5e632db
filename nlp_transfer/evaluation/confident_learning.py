"""Labels that look wrong: out-of-fold probabilities on fixed vectors, ranked by confident learning."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from nlp_transfer.errors import DataError, MissingExtraError, ShapeError
from nlp_transfer.evaluation.metrics.counts import FloatArray, IntArray
from nlp_transfer.evaluation.solvers import fit_quietly

__all__ = ["VIEWS", "Ranking", "View", "estimate_held_out", "rank_suspects"]

STRENGTH, MAX_ITERATIONS, TOLERANCE = 10.0, 200, 1e-3
"""Of the logistic regression: inverse regularization, chosen on trec and sst2 with noise planted at random and where
texts are ambiguous; and when its solver stops."""

NEIGHBORS = 10
"""How many vote on a label; chosen on the same sets."""

SMOOTHING = 0.1
"""Votes that every class has before neighbors are asked, so that no probability is 0; chosen."""

FLOOR = 1e-9
"""Least probability of the regression, so that one that never saw a class can be outvoted; chosen."""

View = Literal["regression", "neighbors"]

VIEWS: tuple[View, ...] = ("regression", "neighbors")

ROWS_AT_ONCE = 1024
"""Rows compared with all others at once, which bounds memory; chosen."""


@dataclass(frozen=True)
class Ranking:
    """Rows in the order in which their labels deserve a second look.

    Attributes:
        rows: Row numbers, most suspect first, int64, shape (N,).
        suggested: The likeliest class of each row by the others, int64, shape (N,), in row order.
        scores: Label quality of each row in [0, 1], float64, shape (N,), in row order: the lower, the more suspect.
        flagged: Whether confident learning counts the row among the wrong ones, bool, shape (N,), in row order.
    """

    rows: IntArray
    suggested: IntArray
    scores: FloatArray
    flagged: np.ndarray


def estimate_held_out(
    vectors: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    seed: int = 0,
    folds: int = 5,
    views: Sequence[View] = VIEWS,
    progress: Callable[[int], None] | None = None,
) -> FloatArray:
    """Say of each row which class it has, asking only the others.

    Two views are put together by their geometric mean, because they err in different places: a logistic regression
    that did not see the row's fold, and the nearest other rows by cosine. A second round, taught by the labels that
    the first did not doubt, was tried and ranked planted noise worse.

    Args:
        vectors: One vector a row, float, shape (N, D).
        labels: Given class ids, int64, shape (N,), each in [0, C).
        num_classes: C.
        seed: Draws the folds.
        folds: Parts that are left out in turn; fewer where the smallest class has fewer rows.
        views: Which are asked: ``regression``, ``neighbors``.
        progress: Called with 1 after each view.

    Returns:
        Float64, shape (N, C); rows sum to 1.

    Raises:
        ShapeError: The inputs disagree on N.
        DataError: There are fewer than two classes with rows, or no class has two.

    Source:
        Northcutt, Jiang and Chuang 2021, section 3, https://arxiv.org/abs/1911.00068, for out-of-sample probabilities.
        Departure: the neighbors.

    Example:
        >>> vectors = np.array([[1.0, 0.1]] * 10 + [[0.1, 1.0]] * 10) + np.linspace(0, 0.1, 40).reshape(20, 2)
        >>> labels = np.array([0] * 9 + [1] + [1] * 10)  # row 9 lies among those of class 0
        >>> bool(estimate_held_out(vectors, labels, 2)[9, 0] > 0.5)
        True
    """
    values, given = np.asarray(vectors, dtype=np.float32), np.asarray(labels, dtype=np.int64)
    if values.ndim != 2 or len(values) != len(given):
        raise ShapeError(f"suspects: expected a label for each of {len(values)} vectors, got {len(given)}.")
    counts = np.bincount(given, minlength=num_classes)
    if (counts > 0).sum() < 2:
        raise DataError("suspects: expected rows of two classes or more, came one class. Add rows of another.")
    if counts.max() < 2:
        raise DataError("suspects: expected two rows of a class to compare, came one of each. Add rows.")
    units_ND = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    parts = int(max(2, min(folds, counts[counts > 0].min())))
    logs_NC = np.zeros((len(given), num_classes))
    for view in views:
        if view == "regression":
            seen_NC = np.maximum(_regress(units_ND, given, num_classes, parts, seed), FLOOR)
        else:
            seen_NC = _vote(units_ND, np.eye(num_classes)[given])
        logs_NC += np.log(seen_NC) / len(views)
        if progress is not None:
            progress(1)
    joined_NC = np.exp(logs_NC)
    return np.asarray(joined_NC / joined_NC.sum(axis=1, keepdims=True))


def _regress(units_ND: np.ndarray, labels: IntArray, num_classes: int, folds: int, seed: int) -> FloatArray:
    """Class probabilities (N, C) of a regression that did not see the row's fold."""
    found = np.zeros((len(labels), num_classes))
    with warnings.catch_warnings():
        # A class with fewer rows than folds is missing from some.
        warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")
        for seen, held_out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(units_ND, labels):
            present = np.unique(labels[seen])
            if len(present) < 2:
                found[np.ix_(held_out, present)] = 1.0
                continue
            model = LogisticRegression(C=STRENGTH, max_iter=MAX_ITERATIONS, tol=TOLERANCE)
            fit_quietly(model, units_ND[seen], labels[seen])
            found[np.ix_(held_out, model.classes_)] = model.predict_proba(units_ND[held_out])
    return found


def _vote(units_ND: np.ndarray, votes_NC: FloatArray) -> FloatArray:
    """What the nearest other rows say of each row, shape (N, C)."""
    num_rows, num_classes = votes_NC.shape
    k = min(NEIGHBORS, num_rows - 1)
    found = np.empty((num_rows, num_classes))
    for start in range(0, num_rows, ROWS_AT_ONCE):
        own = np.arange(start, min(start + ROWS_AT_ONCE, num_rows))
        similar_BN = units_ND[own] @ units_ND.T
        similar_BN[np.arange(len(own)), own] = -np.inf
        near_BK = np.argpartition(-similar_BN, k - 1, axis=1)[:, :k]
        found[own] = (votes_NC[near_BK].sum(axis=1) + SMOOTHING) / (k + SMOOTHING * num_classes)
    return found


def rank_suspects(labels: np.ndarray, probabilities: np.ndarray) -> Ranking:
    """Order rows by how wrong their labels look.

    Args:
        labels: Given class ids, int64, shape (N,).
        probabilities: What held-out estimates say of each row, float, shape (N, C).

    Returns:
        The order, with a suggestion for every row.

    Raises:
        MissingExtraError: cleanlab is not installed.
        ShapeError: The inputs disagree on N.

    Source:
        Northcutt, Jiang and Chuang 2021, https://arxiv.org/abs/1911.00068, in cleanlab's implementation: the quality
        of a label is its normalized margin; which rows are wrong is told from the confident joint.

    Example:
        >>> probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9]])
        >>> ranking = rank_suspects(np.array([0, 1, 1, 1]), probabilities)
        >>> int(ranking.rows[0]), int(ranking.suggested[1]), round(float(ranking.scores[1]), 2)
        (1, 0, 0.2)
    """
    given, found = np.asarray(labels, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
    if len(given) != len(found) or not len(given):
        raise ShapeError(f"suspects: expected a label for each of {len(found)} rows, got {len(given)}.")
    find_issues, score_labels = _import_cleanlab()
    # cleanlab wants every class it is told of to have rows.
    present, dense = np.unique(given, return_inverse=True)
    shares_NC = np.maximum(found[:, present], 1e-12)
    shares_NC /= shares_NC.sum(axis=1, keepdims=True)
    with warnings.catch_warnings():
        # cleanlab never empties a small class by its flags, and says so; the ranking holds for those rows too.
        warnings.filterwarnings("ignore", message="May not flag all label issues", category=UserWarning)
        flags = find_issues(dense, shares_NC, filter_by="prune_by_noise_rate", n_jobs=1)
    scores = np.asarray(score_labels(dense, shares_NC, method="normalized_margin"), dtype=np.float64)
    return Ranking(
        rows=np.asarray(np.argsort(scores, kind="stable")),
        suggested=present[shares_NC.argmax(axis=1)],
        scores=scores,
        flagged=np.asarray(flags, dtype=bool),
    )


def _import_cleanlab() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The filter and the scores of cleanlab, or the command that installs them."""
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError as error:
        raise MissingExtraError("cleanlab", extra="noise", purpose="finding suspect labels") from error
    return find_label_issues, get_label_quality_scores
