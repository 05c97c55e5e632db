"""Small heads fitted on vectors with scikit-learn, as tensors that a `VectorClassifier` takes."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.svm import LinearSVC, LinearSVR
from torch import Tensor

from nlp_transfer.contracts import LabelSpace, Track, track_nothing
from nlp_transfer.evaluation.predictions import to_probabilities
from nlp_transfer.evaluation.scoring import compute_metrics, is_better
from nlp_transfer.evaluation.solvers import fit_quietly
from nlp_transfer.recipe.schema import SELECTION_METRICS

__all__ = ["FittedHead", "fit_head"]

FittedHead = tuple[dict[str, Any], dict[str, Tensor]]
"""Layout and weights of a head, as ``VectorClassifier.set_head`` takes them."""

MOST_FOLDED = 4_000
"""Most rows that cross-validation looks at: the penalty is a coarse choice, and folds of all rows would cost more than
the encoder. Chosen."""

MAX_ITERATIONS = 300
"""Of the solvers; chosen. A fit that still moves then is scored like any other."""

FOLD_TOLERANCE, FINAL_TOLERANCE = 1e-3, 1e-4
"""Of the logistic solver, in the folds and at the end. On banking77 a final 1e-3 stopped 0.013 short of 1e-4."""

NEVER = 12.0
"""Logit of a label that all or none of the examples have, about six in a million; chosen."""


def fit_head(
    kind: str,
    vectors_ND: np.ndarray,
    targets: np.ndarray,
    space: LabelSpace,
    *,
    seed: int,
    weights_C: np.ndarray | None = None,
    penalties: Sequence[float] = (1.0,),
    folds: int = 3,
    neighbors: int = 10,
    hidden: int = 256,
    track: Track = track_nothing,
) -> FittedHead:
    """Fit a head on vectors.

    Args:
        kind: ``logistic``, ``svm``, ``knn`` or ``mlp``.
        vectors_ND: Float32, shape (N, D).
        targets: Class ids (N,), 0/1 rows (N, C) for multi_label, figures (N,) for a regression.
        space: The label contract.
        seed: Of solvers and folds.
        weights_C: Weight of each class, shape (C,); all alike where absent. ``knn`` and ``mlp`` take none.
        penalties: Inverse strengths that cross-validation chooses from (logistic, svm).
        folds: Of that.
        neighbors: How many vote (knn).
        hidden: Width of the hidden layer (mlp).
        track: Shows how far it is.

    Returns:
        Layout and weights.

    Example:
        >>> space = LabelSpace("classification", ("left", "right"))
        >>> vectors = np.array([[-1.0], [-2.0], [1.0], [2.0]], dtype=np.float32)
        >>> head, tensors = fit_head("logistic", vectors, np.array([0, 0, 1, 1]), space, seed=0, folds=2)
        >>> head["kind"], tensors["weight"].shape, bool(tensors["weight"][1, 0] > 0)
        ('linear', torch.Size([2, 1]), True)
    """
    if kind == "knn":
        return _keep_neighbors(vectors_ND, targets, space, neighbors)
    if kind == "mlp":
        return _fit_mlp(vectors_ND, targets, space, hidden, seed)
    fit = _Linear(kind, space, seed, weights_C)
    strength = penalties[0]
    if len(penalties) > 1:
        strength = _choose_penalty(fit, vectors_ND, targets, space, penalties, folds, seed, track)
    fit.tolerance = FINAL_TOLERANCE
    weight_CD, bias_C = fit(vectors_ND, targets, strength)
    return {"kind": "linear"}, {"weight": _to_tensor(weight_CD), "bias": _to_tensor(bias_C)}


def _to_tensor(values: np.ndarray) -> Tensor:
    """A contiguous float32 tensor of its own."""
    return torch.from_numpy(np.array(values, dtype=np.float32, order="C"))


class _Linear:
    """Fits one linear model, or one a label, and gives it as a matrix and a bias in the columns of the contract."""

    def __init__(self, kind: str, space: LabelSpace, seed: int, weights_C: np.ndarray | None) -> None:
        self.kind, self.space, self.seed, self.weights_C = kind, space, seed, weights_C
        self.tolerance = FOLD_TOLERANCE

    def __call__(self, vectors_ND: np.ndarray, targets: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Give the weight (C, D) and the bias (C,)."""
        if self.space.kind == "regression":
            model: Any = (
                LinearSVR(C=strength, random_state=self.seed, max_iter=10_000)
                if self.kind == "svm"
                else Ridge(alpha=1 / strength, random_state=self.seed)
            )
            fit_quietly(model, vectors_ND, targets.astype(np.float64))
            return model.coef_.reshape(1, -1), np.reshape(model.intercept_, 1)
        if self.space.kind == "multi_label":
            parts = [self._fit_label(vectors_ND, column, strength) for column in targets.T]
            return np.stack([weight for weight, _ in parts]), np.array([bias for _, bias in parts])
        return self._fit_classes(vectors_ND, targets, strength)

    def _build(self, strength: float, class_weight: dict[int, float] | None) -> Any:
        """A model that is not fitted yet."""
        if self.kind == "svm":
            return LinearSVC(C=strength, random_state=self.seed, class_weight=class_weight, max_iter=10_000)
        return LogisticRegression(C=strength, max_iter=MAX_ITERATIONS, tol=self.tolerance, class_weight=class_weight)

    def _fit_label(self, vectors_ND: np.ndarray, column: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
        """One label of several that may hold at once."""
        if len(np.unique(column)) == 1:
            return np.zeros(vectors_ND.shape[1]), NEVER if column[0] else -NEVER
        model = self._build(strength, None)
        fit_quietly(model, vectors_ND, column.astype(np.int64))
        return model.coef_[0], float(model.intercept_[0])

    def _fit_classes(
        self, vectors_ND: np.ndarray, targets: np.ndarray, strength: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Classes of which one holds; one that no example has gets a logit that never wins."""
        present = np.unique(targets)
        weight_CD = np.zeros((self.space.num_outputs, vectors_ND.shape[1]))
        bias_C = np.full(self.space.num_outputs, -NEVER)
        if len(present) == 1:
            bias_C[present] = NEVER
            return weight_CD, bias_C
        weights = None if self.weights_C is None else {int(c): float(self.weights_C[c]) for c in present}
        model = self._build(strength, weights)
        fit_quietly(model, vectors_ND, targets)
        if len(present) == 2:
            # One figure z for two classes: half of it to each side gives the same softmax.
            scale = 1.0 if self.kind == "svm" else 0.5
            weight_CD[present] = scale * np.stack([-model.coef_[0], model.coef_[0]])
            bias_C[present] = scale * np.array([-model.intercept_[0], model.intercept_[0]])
        else:
            weight_CD[present], bias_C[present] = model.coef_, model.intercept_
        return weight_CD, bias_C


def _choose_penalty(
    fit: Callable[[np.ndarray, np.ndarray, float], tuple[np.ndarray, np.ndarray]],
    vectors_ND: np.ndarray,
    targets: np.ndarray,
    space: LabelSpace,
    penalties: Sequence[float],
    folds: int,
    seed: int,
    track: Track,
) -> float:
    """Choose the penalty whose folds do best on the metric of the task; the stronger one where they are level."""
    rows = np.random.default_rng(seed).permutation(len(vectors_ND))[:MOST_FOLDED]
    vectors_ND, targets = vectors_ND[rows], targets[rows]
    if len(rows) < 2 * folds:
        return penalties[0]
    smallest = np.bincount(targets).max() if space.is_categorical else 0
    splitter = (StratifiedKFold if smallest >= folds else KFold)(folds, shuffle=True, random_state=seed)
    metric = SELECTION_METRICS[space.kind]
    figures: dict[float, list[float]] = {strength: [] for strength in penalties}
    with track("penalty by cross-validation", folds * len(penalties)) as advance, warnings.catch_warnings():
        # A class rarer than there are folds is missing from some.
        warnings.simplefilter("ignore", UserWarning)
        parts = list(splitter.split(vectors_ND, targets if smallest >= folds else None))
        for train, held in parts:
            for strength in penalties:
                weight_CD, bias_C = fit(vectors_ND[train], targets[train], strength)
                given = to_probabilities(vectors_ND[held] @ weight_CD.T + bias_C, space)
                figures[strength].append(compute_metrics(targets[held], given, space, [metric])[metric])
                advance(1)
    best = sorted(penalties)[0]
    for strength in sorted(penalties)[1:]:
        if is_better(metric, float(np.mean(figures[strength])), float(np.mean(figures[best]))):
            best = strength
    return best


def _keep_neighbors(vectors_ND: np.ndarray, targets: np.ndarray, space: LabelSpace, neighbors: int) -> FittedHead:
    """Keep the examples themselves."""
    votes = np.eye(space.num_outputs)[targets] if space.is_categorical else targets.reshape(len(targets), -1)
    head = {"kind": "knn", "num_rows": len(vectors_ND), "k": min(neighbors, len(vectors_ND))}
    return head, {"rows_ND": _to_tensor(vectors_ND), "votes_NC": _to_tensor(votes)}


def _fit_mlp(vectors_ND: np.ndarray, targets: np.ndarray, space: LabelSpace, hidden: int, seed: int) -> FittedHead:
    """One hidden layer."""
    settings: dict[str, Any] = {
        "hidden_layer_sizes": (hidden,),
        "random_state": seed,
        # Vectors of length 1 are small figures; adam's own rate would take hundreds of passes.
        "learning_rate_init": 5e-3,
        "max_iter": 100,
        "early_stopping": len(vectors_ND) >= 1000,
    }
    model: Any = MLPRegressor(**settings) if space.kind == "regression" else MLPClassifier(**settings)
    fit_quietly(model, vectors_ND, targets if space.kind == "regression" else targets.astype(np.int64))
    first, last = (coefficients.T for coefficients in model.coefs_)
    first_bias, last_bias = model.intercepts_
    if space.is_categorical:
        weight_CH = np.zeros((space.num_outputs, hidden))
        bias_C = np.full(space.num_outputs, -NEVER)
        present = model.classes_.astype(np.int64)
        # For two classes there is one output, the logit of the second.
        weight_CH[present] = np.concatenate([-last / 2, last / 2]) if len(last) == 1 else last
        bias_C[present] = np.concatenate([-last_bias / 2, last_bias / 2]) if len(last) == 1 else last_bias
        last, last_bias = weight_CH, bias_C
    weights = {"0.weight": first, "0.bias": first_bias, "2.weight": last, "2.bias": last_bias}
    return {"kind": "mlp", "hidden": hidden}, {name: _to_tensor(value) for name, value in weights.items()}
