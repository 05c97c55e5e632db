"""Whether texts are of the kind a classifier was trained on: fit, score, and measure against labelled outsiders."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from datasets import Dataset
from torch import nn

from nlp_transfer.classifier import Classifier
from nlp_transfer.data.columns import prepare_inference_table
from nlp_transfer.data.labels.contract import map_labels
from nlp_transfer.data.tables import read_table
from nlp_transfer.engine.predict.vectors import extract_vectors
from nlp_transfer.errors import ArtifactError, DataError
from nlp_transfer.evaluation.metrics.counts import FloatArray
from nlp_transfer.evaluation.outliers import (
    Gaussians,
    Method,
    fit_gaussians,
    measure_auroc,
    read_gaussians,
    score_energy,
)
from nlp_transfer.files import check_new_file, explain_reading
from nlp_transfer.models.custom import CustomClassifier
from nlp_transfer.models.digests import check_added
from nlp_transfer.models.merge import is_adapter
from nlp_transfer.models.resolve import ARTIFACT_FILE
from nlp_transfer.models.vector_classifier import Neighbors
from nlp_transfer.publishing.artifact import amend_artifact, write_atomically
from nlp_transfer.recipe.schema import EvaluationConfig

__all__ = ["SCOPE_FILE", "ScopeTest", "add_scope", "fit_scope", "measure_scope", "score_scope"]

SCOPE_FILE = "out_of_scope.safetensors"
"""Beside the weights; loaders that do not know it pass over it."""

COLUMN = "out_of_scope"

RESAMPLES = 1000
"""Of the interval of an AUROC; chosen."""


@dataclass(frozen=True)
class ScopeTest:
    """How well a score tells rows out of scope from those within.

    Attributes:
        method: ``energy`` or ``mahalanobis``.
        auroc: In [0, 1]; 0.5 tells nothing.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        num_inside: Rows within scope.
        num_outside: Rows out of scope.
        threshold: The score that 95 in 100 rows within scope stay below.
        caught: Share of the rows out of scope above it.
    """

    method: str
    auroc: float
    low: float
    high: float
    num_inside: int
    num_outside: int
    threshold: float
    caught: float

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        return asdict(self)


def check_method(method: str, *, where: str) -> None:
    """Refuse a way to score that there is not.

    Args:
        method: Its name.
        where: Names the option in a message.

    Raises:
        DataError: There is no such way.
    """
    if method not in get_args(Method):
        raise DataError(f"{where}: expected {' or '.join(get_args(Method))}, got {method!r}. Choose one.")


def has_fit(classifier: Classifier) -> Path | None:
    """The file that holds what `fit_scope` found; None where there is none."""
    place = classifier.artifact.folder / SCOPE_FILE
    return place if place.is_file() else None


def fit_scope(
    classifier: Classifier,
    data: object,
    *,
    text: str | None = None,
    text_b: str | None = None,
    label: str | None = None,
) -> Path:
    """Fit what the Mahalanobis score needs on labelled rows, best those of train, and keep it with the artefact.

    Args:
        classifier: Its encoder as it was fine-tuned gives the vectors, the mean over the tokens of the last layer.
        data: A file, a `datasets.Dataset` or a pandas frame with labels.
        text: Column of the text; found by the usual names where absent.
        text_b: Column of the second text of a pair, likewise.
        label: Column of the label, likewise.

    Returns:
        The file, ``out_of_scope.safetensors`` in the artefact's folder.

    Raises:
        DataError: The table cannot be used, a class has no rows, or the task has no classes.
        StorageError: The disk is full or failing.
    """
    space = classifier.space
    if not space.is_categorical:
        raise DataError(f"mahalanobis: expected a classifier with classes, this one is of task.kind={space.kind}.")
    place = classifier.artifact.folder / SCOPE_FILE
    check_new_file(place, where=str(place))
    rows = read_table(data)
    labels = map_labels(rows, space, label=label, label_separator=",", where="data")
    vectors_ND = _extract(classifier, _prepare(classifier, rows, text, text_b))
    truth = np.asarray(labels.with_format("numpy")["label"][:])
    absent = [name for number, name in enumerate(space.names) if not (truth == number).any()]
    if absent:
        raise DataError(
            f"data: expected rows of every class, as one without would count as out of scope; none is of {absent[0]}. "
            "Fit to the rows of train."
        )
    write_atomically(place, fit_gaussians(vectors_ND, truth).to_bytes())
    if (place.parent / ARTIFACT_FILE).is_file():
        amend_artifact(place.parent, added=[SCOPE_FILE])
    return place


def score_scope(
    classifier: Classifier,
    data: object,
    *,
    method: str = "energy",
    text: str | None = None,
    text_b: str | None = None,
    batch_size: int = 64,
) -> FloatArray:
    """Score how far rows lie out of scope.

    Args:
        classifier: For ``mahalanobis``, `fit_scope` has been called on its artefact.
        data: A file, a `datasets.Dataset` or a pandas frame.
        method: ``energy``, of the logits, or ``mahalanobis``, of the encoder's vectors.
        text: Column of the text; found by the usual names where absent.
        text_b: Column of the second text of a pair, likewise.
        batch_size: Texts in one forward pass.

    Returns:
        Float64, shape (N,); the higher, the further out. Scores of two methods or models cannot be compared.

    Raises:
        ArtifactError: Nothing was fitted for ``mahalanobis``.
        DataError: The table cannot be used, the task has no classes, or the head has no logits for ``energy``.
    """
    if not classifier.space.is_categorical:
        raise DataError(f"ood: expected a classifier with classes, this one is of task.kind={classifier.space.kind}.")
    check_method(method, where="ood")
    if method == "energy" and isinstance(getattr(classifier.artifact.model, "head", None), Neighbors):
        raise DataError(
            "ood: energy is that of logits, and nearest neighbors give votes, which sum to 1 wherever a text lies. Use "
            "method mahalanobis."
        )
    fitted = _read_fitted(classifier) if method == "mahalanobis" else None
    ready = _prepare(classifier, read_table(data), text, text_b)
    if fitted is not None:
        return fitted.score(_extract(classifier, ready))
    most: int = EvaluationConfig.model_fields["max_tokens"].default
    return score_energy(classifier.scorer.score(ready, batch_size=batch_size, max_tokens=most, is_exact=True))


def add_scope(
    classifier: Classifier,
    rows: Dataset,
    *,
    method: str,
    text: str | None = None,
    text_b: str | None = None,
    batch_size: int = 64,
) -> Dataset:
    """Add the score of every row to a table.

    Args:
        classifier: As for `score_scope`.
        rows: The table.
        method: ``energy`` or ``mahalanobis``.
        text: Column of the text; that of the training data, else found by the usual names, where absent.
        text_b: Column of the second text of a pair, likewise.
        batch_size: Texts in one forward pass.

    Returns:
        The table with a column ``out_of_scope``.

    Raises:
        ArtifactError: Nothing was fitted for ``mahalanobis``.
        DataError: The table has such a column already, or cannot be used.
    """
    if COLUMN in rows.column_names:
        raise DataError(f"ood: the table has a column {COLUMN!r} already, which would be overwritten. Rename it first.")
    scores = score_scope(classifier, rows, method=method, text=text, text_b=text_b, batch_size=batch_size)
    return rows.add_column(COLUMN, scores)


def measure_scope(inside: FloatArray, outside: FloatArray, *, method: str, seed: int = 0) -> ScopeTest:
    """Measure a score on rows of which it is known where they belong.

    Args:
        inside: Scores of rows within scope that were not trained on, float, shape (N,).
        outside: Scores of rows out of scope, float, shape (M,).
        method: How they were scored.
        seed: Of the resamples.

    Returns:
        The AUROC with its interval, and what a threshold would catch.

    Raises:
        ShapeError: Either side is empty.

    Example:
        >>> found = measure_scope(np.arange(50.0), np.arange(40.0, 90.0), method="energy")
        >>> round(found.auroc, 2), found.caught
        (0.98, 0.86)
    """
    auroc = measure_auroc(inside, outside)
    draw = np.random.default_rng(seed)
    resampled = [
        measure_auroc(draw.choice(inside, len(inside)), draw.choice(outside, len(outside))) for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(resampled, [0.025, 0.975])
    threshold = float(np.quantile(inside, 0.95))
    caught = float((outside > threshold).mean())
    ends = (min(float(low), auroc), max(float(high), auroc))
    return ScopeTest(method, auroc, *ends, len(inside), len(outside), threshold, caught)


def _read_fitted(classifier: Classifier) -> Gaussians:
    """What was kept with the artefact."""
    place = classifier.artifact.folder / SCOPE_FILE
    try:
        check_added(place.parent / ARTIFACT_FILE, SCOPE_FILE)
        return read_gaussians(place.read_bytes(), where=str(place))
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{place}: expected what the Mahalanobis score was fitted to, came no such file. "
            "Make it with: nlp-transfer out-of-scope ARTIFACT TRAIN --method mahalanobis"
        ) from error
    except OSError as error:
        raise explain_reading(place, error, ArtifactError, way_out="Try again.") from error


def _prepare(classifier: Classifier, rows: Dataset, text: str | None, text_b: str | None) -> Dataset:
    """The texts of a table, as the classifier reads them."""
    metadata = classifier.artifact.metadata
    is_pair = bool(metadata.get("reading", {}).get("is_pair"))
    if text is None and text_b is None:
        data = metadata.get("recipe", {}).get("data", {})
        named = (data.get("text"), data.get("text_b") if is_pair else None)
        if {name for name in named if name} <= set(rows.column_names):
            text, text_b = named
    ready = prepare_inference_table(rows, text=text, text_b=text_b, is_pair=is_pair, where="data")
    return ready.select_columns(["text", "text_b"] if is_pair else ["text"])


def _extract(classifier: Classifier, texts: Dataset) -> FloatArray:
    """One vector a text, (N, D)."""
    encoder = _find_encoder(classifier.artifact.model)
    layers = [int(encoder.config.num_hidden_layers)]
    found: FloatArray = extract_vectors(encoder, classifier.scorer.encode(texts), "input", layers=layers)
    return found.astype(np.float64)


def _find_encoder(model: nn.Module) -> Any:
    """The encoder below a head, whatever wraps it; its adapters stay in it."""
    inner: Any = model.get_base_model() if is_adapter(model) else model
    return inner.encoder if isinstance(inner, CustomClassifier) else getattr(inner, inner.base_model_prefix)
