"""What a transfer has to beat without any pretraining: TF-IDF with a linear model, and the majority."""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.data.target_scale import TargetScale
from nlp_transfer.errors import ShapeError
from nlp_transfer.evaluation.metrics.counts import FloatArray
from nlp_transfer.evaluation.scoring import compute_metrics, is_better
from nlp_transfer.evaluation.solvers import fit_quietly
from nlp_transfer.recipe.schema import SELECTION_METRICS

__all__ = ["predict_majority", "score_tfidf"]

STRENGTHS = (0.1, 1.0, 10.0, 100.0)
"""Inverse regularization that validation chooses from, weakest fit first; chosen: decades around scikit-learn's 1."""

MAX_FEATURES = 100_000
"""Most frequent word 1- and 2-grams kept per text column; chosen: it bounds time and memory on large tables."""

MAX_ITERATIONS = 200
"""Of the solver; chosen. A fit that is still moving then is scored on validation like any other."""


def score_tfidf(
    texts: Mapping[str, Sequence[str]],
    labels: Mapping[str, np.ndarray],
    space: LabelSpace,
    *,
    texts_b: Mapping[str, Sequence[str]] | None = None,
    select_by: str | None = None,
    seed: int = 0,
) -> dict[str, FloatArray]:
    """Train TF-IDF with a linear model and say what it gives each example.

    Word 1- and 2-grams with logarithmic counts; a pair's texts have a vocabulary each. Logistic regression for
    classes, one for each label of a multi-label task, ridge regression for numbers. The regularization is the one
    that does best on validation, and the only thing chosen there; test is never looked at.

    Args:
        texts: Split name to texts; ``train`` and ``validation`` are needed, whatever else is there is predicted.
        labels: Split name to labels, of ``train`` and ``validation`` at least.
        space: The label contract.
        texts_b: Split name to the second texts of pairs.
        select_by: Report key that chooses; by kind of task where absent.
        seed: Seed of the solver, which draws nothing at present.

    Returns:
        For every split but ``train``: float64, shape (N, C), in the form of ``to_probabilities``. Where train holds
        no word at all, what ``predict_majority`` says.

    Raises:
        ShapeError: A split has other counts of texts and labels, or train or validation is absent or empty.

    Example:
        >>> texts = {"train": ["good fun", "bad taste"] * 5, "validation": ["good", "bad"], "test": ["so bad"]}
        >>> labels = {"train": np.array([1, 0] * 5), "validation": np.array([1, 0])}
        >>> found = score_tfidf(texts, labels, LabelSpace("classification", ("negative", "positive")))
        >>> sorted(found), int(found["test"].argmax())
        (['test', 'validation'], 0)
    """
    _check(texts, labels, texts_b)
    features = _vectorize(texts, texts_b)
    others = [split for split in texts if split != "train"]
    if features is None:
        return {split: predict_majority(labels["train"], len(texts[split]), space) for split in others}
    metric = select_by or SELECTION_METRICS[space.kind]
    chosen: _Linear | None = None
    chosen_figure = float("nan")
    previous: _Linear | None = None
    for strength in STRENGTHS:
        model = _Linear(space, strength, seed)
        model.fit(features["train"], np.asarray(labels["train"]), start=previous)
        previous = model
        given = model.predict(features["validation"])
        figure = compute_metrics(labels["validation"], given, space, [metric]).get(metric, float("nan"))
        if chosen is None or is_better(metric, figure, chosen_figure):
            chosen, chosen_figure = model, figure
    assert chosen is not None, "STRENGTHS is not empty"
    return {split: chosen.predict(features[split]) for split in others}


def _check(
    texts: Mapping[str, Sequence[str]],
    labels: Mapping[str, np.ndarray],
    texts_b: Mapping[str, Sequence[str]] | None,
) -> None:
    """Refuse what cannot be trained on or chosen by."""
    for split in ("train", "validation"):
        if not len(texts.get(split, ())) or split not in labels:
            raise ShapeError(f"tfidf: expected labelled examples in {split}, got none; draw or name that split.")
    for split, column in texts.items():
        sizes = {len(column)}
        if split in labels:
            sizes.add(len(labels[split]))
        if texts_b is not None:
            sizes.add(len(texts_b.get(split, ())))
        if len(sizes) > 1:
            raise ShapeError(
                f"tfidf: expected as many labels and second texts as texts in {split}, got {sorted(sizes)}."
            )


def _vectorize(
    texts: Mapping[str, Sequence[str]], texts_b: Mapping[str, Sequence[str]] | None
) -> dict[str, sparse.csr_matrix] | None:
    """Turn every split into features, shape (N, F); None where train holds no word."""
    blocks: list[dict[str, sparse.csr_matrix]] = []
    for column in [texts] if texts_b is None else [texts, texts_b]:
        # Words of one letter count: the default pattern drops "I" and "a", and all of some languages.
        vectorizer = TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, max_features=MAX_FEATURES, token_pattern=r"(?u)\b\w+\b"
        )
        analyze = vectorizer.build_analyzer()
        if any(analyze(text) for text in column["train"]):
            vectorizer.fit(column["train"])
            blocks.append({split: vectorizer.transform(column[split]) for split in texts})
    if not blocks:
        return None
    return {split: sparse.hstack([block[split] for block in blocks], format="csr") for split in texts}


class _Linear:
    """One linear model a task, and what it needs to answer in the columns of the label contract."""

    def __init__(self, space: LabelSpace, strength: float, seed: int) -> None:
        self.space = space
        self.strength = strength
        self.seed = seed
        self.models: list[LogisticRegression | Ridge | float] = []
        self.target = TargetScale()

    def fit(self, features: sparse.csr_matrix, labels: np.ndarray, start: "_Linear | None" = None) -> None:
        """Train on features, shape (N, F), from where a stronger regularization ended: half of the updates."""
        if self.space.kind == "regression":
            # In standard deviations: a solver's stopping rule, too, must not see the unit.
            self.target = TargetScale.measure(labels)
            wanted = self.target.standardize(labels)
            self.models = [fit_quietly(Ridge(alpha=1 / self.strength, random_state=self.seed), features, wanted)]
            return
        columns = labels.T if self.space.kind == "multi_label" else [labels]
        starts = [None] * len(columns) if start is None else start.models
        self.models = [
            self._fit_classes(features, np.asarray(column, dtype=np.int64), before)
            for column, before in zip(columns, starts, strict=True)
        ]

    def _fit_classes(
        self, features: sparse.csr_matrix, labels: np.ndarray, start: object
    ) -> LogisticRegression | float:
        """Train one logistic regression, or note the only class there is."""
        if (labels == labels[0]).all():
            return float(labels[0])
        fresh = LogisticRegression(max_iter=MAX_ITERATIONS, random_state=self.seed, warm_start=True)
        model = copy.deepcopy(start) if isinstance(start, LogisticRegression) else fresh
        model.set_params(C=self.strength)
        return fit_quietly(model, features, labels)

    def predict(self, features: sparse.csr_matrix) -> FloatArray:
        """Probabilities, or numbers for a regression, shape (N, C)."""
        num_examples = features.shape[0]
        found = np.zeros((num_examples, self.space.num_outputs))
        for column, model in enumerate(self.models):
            if isinstance(model, Ridge):
                found[:, 0] = self.target.restore(model.predict(features))
            elif self.space.kind == "multi_label":
                found[:, column] = model if isinstance(model, float) else model.predict_proba(features)[:, 1]
            elif isinstance(model, float):
                found[:, int(model)] = 1.0
            else:
                # A class without training examples keeps probability 0.
                found[:, model.classes_] = model.predict_proba(features)
        return found


def predict_majority(train_labels: np.ndarray, num_examples: int, space: LabelSpace) -> FloatArray:
    """Give every example what train holds on average, whatever its text.

    Args:
        train_labels: int64 (N,), 0 / 1 (N, C) or float (N,), by kind of task.
        num_examples: M, rows to predict.
        space: The label contract.

    Returns:
        Float64, shape (M, C): class shares, of which the majority is the largest; label shares; or the mean.

    Raises:
        ShapeError: There are no training labels.

    Example:
        >>> predict_majority(np.array([1, 1, 0, 1]), 2, LabelSpace("classification", ("no", "yes"))).tolist()
        [[0.25, 0.75], [0.25, 0.75]]
    """
    labels = np.asarray(train_labels)
    if not len(labels):
        raise ShapeError("majority: expected at least 1 training label, got 0; load a train split that has rows.")
    if space.is_categorical:
        shares = np.bincount(labels.astype(np.int64), minlength=space.num_outputs) / len(labels)
    else:
        shares = np.atleast_1d(labels.mean(axis=0, dtype=np.float64))
    return np.tile(shares, (num_examples, 1))
