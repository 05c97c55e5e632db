"""What quick classifiers reach on train alone, by cross-validation: validation and test are never read."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import ShapeError
from nlp_transfer.evaluation.predictions import to_probabilities
from nlp_transfer.evaluation.solvers import fit_quietly
from nlp_transfer.strategies.fitted_heads import fit_head

__all__ = [
    "Probe",
    "choose_strength",
    "extrapolate_curve",
    "make_folds",
    "measure_curve",
    "predict_logistic",
    "predict_neighbors",
    "predict_tfidf",
    "summarize_folds",
]

Folds = Sequence[tuple[np.ndarray, np.ndarray]]
"""Row numbers to train on and row numbers held out, a pair a fold."""

STRENGTHS = (1.0, 4.0, 16.0, 64.0)
"""Inverse strengths of the penalty that the probe chooses from; as strategy.penalties of features."""

MOST_CHOSEN = 1_500
"""Rows on which that choice is made: it is a coarse one; chosen."""

TFIDF_STRENGTH = 10.0
"""Inverse strength of the penalty over TF-IDF, which on rows of length 1 fits loosely; chosen."""

NEIGHBORS = 10
"""How many vote; as strategy.neighbors of features."""

CURVE_SHARES = (0.25, 0.5)
"""Shares of the rows that the learning curve is read at, beside all of them."""

DAMPING = 0.5
"""What each further doubling of the rows brings, as a share of the one before; chosen: curves flatten."""


@dataclass(frozen=True)
class Probe:
    """What a quick classifier reached.

    Attributes:
        name: ``features``, ``middle_features``, ``neighbors`` or ``tfidf``.
        score: Accuracy over all held-out rows.
        spread: Sample standard deviation of the folds' accuracies.
        folds: How many there were.
        rows: Rows it was scored on, each once.
    """

    name: str
    score: float
    spread: float
    folds: int
    rows: int


def make_folds(labels_N: np.ndarray, count: int, *, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Divide rows into folds, each with its share of every class.

    There are no more folds than a row's class typically has rows: of a class of two, five folds would put one row
    into train beside two of every other class, and a head learns to answer with those.

    Args:
        labels_N: Class ids, shape (N,).
        count: Most folds; there are at least two.
        seed: Of the shuffle.

    Returns:
        Rows to train on and rows held out, a pair a fold; every row is held out once.

    Raises:
        ShapeError: There are fewer than two rows a fold, or one class.

    Example:
        >>> folds = make_folds(np.array([0, 1] * 4), 2, seed=0)
        >>> [len(held) for _, held in folds], sorted(int(row) for _, held in folds for row in held)
        ([4, 4], [0, 1, 2, 3, 4, 5, 6, 7])
    """
    if len(labels_N) < 2 * count or len(np.unique(labels_N)) < 2:
        raise ShapeError(
            f"probes: expected at least {2 * count} rows of two classes, got {len(labels_N)} of "
            f"{len(np.unique(labels_N))}. Add rows; with none at all, strategy.kind=zero_shot needs no labels."
        )
    sizes_C = np.bincount(labels_N)
    count = max(2, min(count, int(np.median(sizes_C[labels_N]))))
    can_stratify = sizes_C.max() >= count
    splitter = (StratifiedKFold if can_stratify else KFold)(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class rarer than there are folds is missing from some, which is what will happen to the user too.
        warnings.simplefilter("ignore", UserWarning)
        return list(splitter.split(np.zeros((len(labels_N), 1)), labels_N))


def predict_logistic(
    vectors_ND: np.ndarray, labels_N: np.ndarray, space: LabelSpace, folds: Folds, *, strength: float, seed: int
) -> np.ndarray:
    """Probabilities of a logistic head for every row, from the fold that has not seen it.

    Args:
        vectors_ND: Float32, shape (N, D).
        labels_N: Class ids, shape (N,).
        space: The label contract.
        folds: As ``make_folds`` gives them; training rows may be fewer.
        strength: Inverse strength of the penalty.
        seed: Of the solver.

    Returns:
        Float, shape (N, C).
    """
    found_NC = np.zeros((len(labels_N), space.num_outputs))
    for train, held in folds:
        _, tensors = fit_head("logistic", vectors_ND[train], labels_N[train], space, seed=seed, penalties=(strength,))
        weight_CD, bias_C = tensors["weight"].numpy(), tensors["bias"].numpy()
        found_NC[held] = to_probabilities(vectors_ND[held] @ weight_CD.T + bias_C, space)
    return found_NC


def choose_strength(vectors_ND: np.ndarray, labels_N: np.ndarray, space: LabelSpace, *, seed: int) -> float:
    """Choose the penalty by two folds of at most 1,500 rows; the stronger one where they are level.

    Args:
        vectors_ND: Float32, shape (N, D).
        labels_N: Class ids, shape (N,).
        space: The label contract.
        seed: Of the rows and the folds.

    Returns:
        Inverse strength.
    """
    rows = np.random.default_rng(seed).permutation(len(labels_N))[:MOST_CHOSEN]
    vectors_ND, labels_N = vectors_ND[rows], labels_N[rows]
    if len(np.unique(labels_N)) < 2:
        return STRENGTHS[0]
    folds = make_folds(labels_N, 2, seed=seed)
    best, best_hits = STRENGTHS[0], -1
    for strength in STRENGTHS:
        found_NC = predict_logistic(vectors_ND, labels_N, space, folds, strength=strength, seed=seed)
        hits = int((found_NC.argmax(axis=1) == labels_N).sum())
        if hits > best_hits:
            best, best_hits = strength, hits
    return best


def predict_neighbors(vectors_ND: np.ndarray, labels_N: np.ndarray, num_classes: int, folds: Folds) -> np.ndarray:
    """Share of each class among a row's ten nearest rows by cosine, from the fold that has not seen it.

    Args:
        vectors_ND: Float32, shape (N, D), each of length 1.
        labels_N: Class ids, shape (N,).
        num_classes: C.
        folds: As ``make_folds`` gives them.

    Returns:
        Float, shape (N, C); the nearer of two classes that are level has a hair more.
    """
    found_NC = np.zeros((len(labels_N), num_classes))
    for train, held in folds:
        cosines_HT = vectors_ND[held] @ vectors_ND[train].T
        nearest_HK = np.argsort(-cosines_HT, axis=1, kind="stable")[:, : min(NEIGHBORS, len(train))]
        for row, order in zip(held, nearest_HK, strict=True):
            votes_K = labels_N[train[order]]
            # A millionth a rank: never as much as a vote, and enough to break a tie.
            np.add.at(found_NC[row], votes_K, (1 - 1e-6 * np.arange(len(order))) / len(order))
    return found_NC


def predict_tfidf(texts: Sequence[str], labels_N: np.ndarray, folds: Folds, *, seed: int) -> np.ndarray:
    """Classes that TF-IDF with logistic regression gives every row, from the fold that has not seen it.

    Words and pairs of words with logarithmic counts, as the baseline of every run has them; one regression a class.

    Args:
        texts: N texts; the two of a pair joined.
        labels_N: Class ids, shape (N,).
        folds: As ``make_folds`` gives them.
        seed: Of the solver.

    Returns:
        Class ids, int64, shape (N,); the most frequent class where train holds no word.
    """
    found_N = np.zeros(len(labels_N), dtype=np.int64)
    for train, held in folds:
        present, counts = np.unique(labels_N[train], return_counts=True)
        found_N[held] = present[counts.argmax()]
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
        analyze = vectorizer.build_analyzer()
        if len(present) < 2 or not any(analyze(texts[row]) for row in train):
            continue
        seen_TF: sparse.csr_matrix = vectorizer.fit_transform([texts[row] for row in train])
        # One regression a class by coordinate descent is many times faster on counts than one over all classes.
        model = LogisticRegression(C=TFIDF_STRENGTH, solver="liblinear", random_state=seed)
        chosen = model if len(present) == 2 else OneVsRestClassifier(model)
        fit_quietly(chosen, seen_TF, labels_N[train])
        found_N[held] = chosen.predict(vectorizer.transform([texts[row] for row in held]))
    return found_N


def summarize_folds(name: str, predicted_N: np.ndarray, labels_N: np.ndarray, folds: Folds) -> Probe:
    """Score held-out answers, and say how much folds differ.

    Args:
        name: What answered.
        predicted_N: Class ids, shape (N,).
        labels_N: True class ids, shape (N,).
        folds: Whose held-out rows these are.

    Returns:
        The probe.

    Raises:
        ShapeError: The folds do not hold every row out once.

    Example:
        >>> folds = [(np.array([2, 3]), np.array([0, 1])), (np.array([0, 1]), np.array([2, 3]))]
        >>> probe = summarize_folds("tfidf", np.array([0, 1, 0, 0]), np.array([0, 1, 0, 1]), folds)
        >>> probe.score, round(probe.spread, 3), probe.rows
        (0.75, 0.354, 4)
    """
    held = np.concatenate([rows for _, rows in folds])
    if len(held) != len(labels_N) or len(np.unique(held)) != len(labels_N):
        raise ShapeError(f"{name}: expected folds that hold each of {len(labels_N)} rows out once, got {len(held)}.")
    right_N = predicted_N == labels_N
    shares = [float(right_N[rows].mean()) for _, rows in folds]
    return Probe(name, float(right_N.mean()), float(np.std(shares, ddof=1)), len(folds), len(labels_N))


def measure_curve(
    vectors_ND: np.ndarray, labels_N: np.ndarray, space: LabelSpace, folds: Folds, *, strength: float, seed: int
) -> list[tuple[int, float]]:
    """Accuracy of the logistic head on a quarter and on half of each fold's training rows.

    Args:
        vectors_ND: Float32, shape (N, D).
        labels_N: Class ids, shape (N,).
        space: The label contract.
        folds: As ``make_folds`` gives them; all points are scored on the same held-out rows.
        strength: Inverse strength of the penalty.
        seed: Which rows stay.

    Returns:
        Mean training rows and accuracy, fewest first; points of fewer than four rows are left out.
    """
    generator = np.random.default_rng(seed)
    orders = [train[generator.permutation(len(train))] for train, _ in folds]
    points = []
    for share in CURVE_SHARES:
        fewer = [(order[: int(share * len(order))], held) for order, (_, held) in zip(orders, folds, strict=True)]
        if min(len(train) for train, _ in fewer) < 4:
            continue
        found_NC = predict_logistic(vectors_ND, labels_N, space, fewer, strength=strength, seed=seed)
        rows = round(sum(len(train) for train, _ in fewer) / len(fewer))
        points.append((rows, float((found_NC.argmax(axis=1) == labels_N).mean())))
    return points


def extrapolate_curve(curve: Sequence[tuple[int, float]], rows: int) -> float:
    """Say what the last point of a learning curve would be with more rows.

    The gain of the last doubling is carried on, each further doubling bringing half of the one before; a curve that
    falls is taken as flat.

    Args:
        curve: Rows and accuracy, fewest first; at least one point.
        rows: For how many to say it; what is fewer than the curve's last gives its last.

    Returns:
        An accuracy, at most 1.

    Example:
        >>> round(extrapolate_curve([(100, 0.7), (200, 0.8)], 800), 3)  # 0.8 + 0.05 + 0.025
        0.875
    """
    (last_rows, last) = curve[-1]
    if len(curve) < 2 or rows <= last_rows:
        return last
    before_rows, before = curve[-2]
    slope = max(0.0, (last - before) / np.log2(last_rows / before_rows))
    doublings = float(np.log2(rows / last_rows))
    # The sum of DAMPING, DAMPING^2, ..., in a form that takes a fraction of a doubling too.
    total = DAMPING / (1 - DAMPING) * (1 - DAMPING**doublings)
    return float(min(1.0, last + slope * total))
