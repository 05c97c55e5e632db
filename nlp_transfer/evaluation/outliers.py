"""How far a text lies outside what a classifier was trained on: energy of its logits, distance of its vector."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save
from scipy.special import logsumexp
from scipy.stats import rankdata

from nlp_transfer.errors import ArtifactError, DataError, ShapeError, name_cause
from nlp_transfer.evaluation.metrics.counts import FloatArray

__all__ = ["Gaussians", "Method", "fit_gaussians", "measure_auroc", "read_gaussians", "score_energy"]

Method = Literal["energy", "mahalanobis"]

SHRINKAGE = 0.01
"""Share of the shared covariance that is replaced by its mean variance on the diagonal, so that directions in which
train hardly varies do not decide alone; chosen."""


def score_energy(logits: np.ndarray) -> FloatArray:
    """Free energy of logits: high where no class has much to say for the text.

    Args:
        logits: Float, shape (N, C), not probabilities, which have lost what is measured here.

    Returns:
        Float64, shape (N,); the higher, the further out of scope.

    Raises:
        ShapeError: The logits are no matrix.

    Source:
        Liu et al. 2020, section 3, https://arxiv.org/abs/2010.03759, with a temperature of 1. No departures.

    Example:
        >>> score_energy(np.array([[8.0, 0.0], [0.1, 0.0]])).round(2).tolist()
        [-8.0, -0.74]
    """
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or not values.shape[1]:
        raise ShapeError(f"energy: expected logits (N, C), got {values.shape}.")
    return np.asarray(-logsumexp(values, axis=1))


@dataclass(frozen=True)
class Gaussians:
    """One normal distribution a class, all of one shape.

    Attributes:
        means: Of the classes that have rows, float64, shape (C, D).
        precision: Inverse of the covariance that the classes share, float64, shape (D, D).
    """

    means: FloatArray
    precision: FloatArray

    def score(self, vectors: np.ndarray) -> FloatArray:
        """Squared Mahalanobis distance to the nearest class.

        Args:
            vectors: Float, shape (N, D).

        Returns:
            Float64, shape (N,), from 0 on; the higher, the further out of scope.

        Raises:
            ShapeError: The vectors have another width.
        """
        values = np.asarray(vectors, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != self.means.shape[1]:
            raise ShapeError(f"mahalanobis: expected vectors of width {self.means.shape[1]}, got {values.shape}.")
        found = np.full(len(values), np.inf)
        for mean_D in self.means:
            gaps_ND = values - mean_D
            found = np.minimum(found, np.einsum("nd,nd->n", gaps_ND @ self.precision, gaps_ND))
        return np.asarray(np.maximum(found, 0.0))

    def to_bytes(self) -> bytes:
        """The distributions as a safetensors file."""
        return bytes(save({"means": self.means, "precision": self.precision}))


def fit_gaussians(vectors: np.ndarray, labels: np.ndarray) -> Gaussians:
    """Fit class means and the covariance that the classes share.

    Args:
        vectors: Float, shape (N, D), of train.
        labels: Class ids, int64, shape (N,).

    Returns:
        The distributions of the classes that have rows.

    Raises:
        ShapeError: The inputs disagree on N.
        DataError: There are too few rows for a covariance.

    Source:
        Lee et al. 2018, section 2.1, https://arxiv.org/abs/1807.03888. Departures: no input perturbation, one layer,
        and the covariance is shrunk a little.

    Example:
        >>> draw = np.random.default_rng(0)
        >>> vectors = np.concatenate([draw.normal(size=(50, 2)), draw.normal(size=(50, 2)) + 9])
        >>> found = fit_gaussians(vectors, np.repeat([0, 1], 50)).score(np.array([[0.0, 0.0], [0.0, 9.0]]))
        >>> bool(found[0] < 1 < 30 < found[1])
        True
    """
    values, classes = np.asarray(vectors, dtype=np.float64), np.asarray(labels)
    if values.ndim != 2 or classes.shape != (len(values),):
        raise ShapeError(f"mahalanobis: expected a label for each of {len(values)} vectors, got {classes.shape}.")
    present, own = np.unique(classes, return_inverse=True)
    if len(values) < len(present) + 2:
        raise DataError(
            f"mahalanobis: expected more rows than classes, came {len(values)} for {len(present)}. Add rows."
        )
    means = np.stack([values[own == place].mean(axis=0) for place in range(len(present))])
    gaps = values - means[own]
    covariance = gaps.T @ gaps / len(values)
    width = len(covariance)
    level = np.trace(covariance) / width
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * max(level, 1e-12) * np.eye(width)
    return Gaussians(means, np.linalg.inv(shrunk))


def read_gaussians(content: bytes, *, where: str) -> Gaussians:
    """Read what `Gaussians.to_bytes` wrote.

    Args:
        content: A safetensors file.
        where: The file, for messages.

    Returns:
        The distributions.

    Raises:
        ArtifactError: It is no such file.
    """
    try:
        tensors = load(content)
        means, precision = tensors["means"], tensors["precision"]
        if means.ndim != 2 or precision.shape != (means.shape[1],) * 2 or not np.isfinite(precision).all():
            raise ValueError(f"shapes {means.shape} and {precision.shape}")
    except (SafetensorError, KeyError, ValueError) as error:
        raise ArtifactError(
            f"{where}: expected class means and a precision, came another file ({name_cause(error)}). "
            "Fit it again with nlp-transfer out-of-scope."
        ) from error
    return Gaussians(means.astype(np.float64), precision.astype(np.float64))


def measure_auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Chance that a row out of scope scores higher than one within, ties counting half.

    Args:
        inside: Scores of rows within scope, float, shape (N,).
        outside: Scores of rows out of scope, float, shape (M,).

    Returns:
        In [0, 1]; 1 tells all apart, 0.5 none.

    Raises:
        ShapeError: Either side is empty.

    Example:
        >>> measure_auroc(np.array([0.1, 0.4]), np.array([0.3, 0.9]))
        0.75
    """
    if not len(inside) or not len(outside):
        raise ShapeError(f"auroc: expected rows within and out of scope, got {len(inside)} and {len(outside)}.")
    ranks = rankdata(np.concatenate([inside, outside]))
    num_out = len(outside)
    above = ranks[len(inside) :].sum() - num_out * (num_out + 1) / 2
    return float(above / (len(inside) * num_out))
