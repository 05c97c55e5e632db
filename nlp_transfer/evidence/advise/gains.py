"""What each strategy brings over a head on fixed features, before it is tried: a prior, corrected by outcomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nlp_transfer.recipe.strategies.table import STRATEGIES

__all__ = [
    "GAINS",
    "PRIOR",
    "RESIDUALS",
    "Situation",
    "describe_situation",
    "expect_gain",
    "fit_gains",
]

SITUATION = ("always", "examples", "classes", "lexical", "distance")
"""What the figures of a row of ``PRIOR`` and ``GAINS`` belong to, in order; see ``describe_situation``."""

PRIOR = {kind: facts.gain.prior for kind, facts in STRATEGIES.items() if facts.gain is not None}
"""The field's rule of thumb in figures, each a share of the head's errors: with a handful of examples a class training
the encoder hardly pays, with thousands it removes more than a third of the errors; with many classes it takes more; the
top layers risk less and win less than all of them; far from the encoder's world all layers should move; contrastive
pairs beat fixed features by some points where there are few examples of few classes (Tunstall et al. 2022). Chosen."""

GAINS = {kind: facts.gain.fitted for kind, facts in STRATEGIES.items() if facts.gain is not None}
"""``PRIOR`` after measured outcomes of 37 cells, of 2 to 29 classes: ag_news, davidson_hate, xlmt_sentiment,
amazon_domains by sentiment, by domain and by both, hatecheck by target and by function, each at 64 rows with one to
five seeds and at 500 rows, and davidson_hate at 5,000. ``python recipes/scripts/check_advise.py --fit`` prints it."""

RESIDUALS = {kind: facts.gain.residual for kind, facts in STRATEGIES.items() if facts.gain is not None}
"""How far measured gains lie from those expected: standard deviation over cells, each left out in turn."""

LEAST_RESIDUAL = 0.01
"""A point: what seeds alone make of it; chosen."""

FEWEST_CELLS = 3
"""Cells below which the fit is not trusted to say how far off it is; chosen."""

NOISE, COEFFICIENT_SPREAD = 0.04, 0.02
"""Standard deviations of a measured gain and, around the prior, of a coefficient; their squares' ratio is the strength
of the ridge. The first is chosen: a cell is one draw of rows and some hundred test rows. Of the second, 0.02 to 0.3
were tried on the cells of the fit, sets of the same texts left out together, and that with the least regret kept."""

MOST_GAIN = 0.6
"""Most of the head's errors that is expected to go, as a share: beyond it a line through small tables would promise
anything; chosen."""


@dataclass(frozen=True)
class Situation:
    """What a gain depends on.

    Attributes:
        probe: Accuracy of a logistic head on fixed features.
        tfidf: Accuracy of TF-IDF with logistic regression.
        rows: Training rows.
        classes: Count of classes.
        distance: Proxy A-distance from the reference sample, in [0, 2].
    """

    probe: float
    tfidf: float
    rows: int
    classes: int
    distance: float


def describe_situation(situation: Situation) -> np.ndarray:
    """Turn a situation into the figures that coefficients are multiplied with.

    Args:
        situation: What was found before training.

    Returns:
        Float64, shape (5,), in the order of ``SITUATION``: 1; examples a class, as doublings from 32 in units of four,
        in [-1.25, 1.5]; classes, as doublings from two in the same units; how much of the head's errors TF-IDF avoids,
        in [-1, 1]; half the proxy A-distance, in [0, 1].

    Example:
        >>> describe_situation(Situation(probe=0.8, tfidf=0.7, rows=4096, classes=8, distance=2.0)).round(3).tolist()
        [1.0, 1.0, 0.5, -0.5, 1.0]
    """
    headroom = max(1 - situation.probe, 0.01)
    each = max(situation.rows / situation.classes, 1.0)
    return np.array(
        [
            1.0,
            np.clip(np.log2(each / 32) / 4, -1.25, 1.5),
            np.log2(situation.classes / 2) / 4,
            np.clip((situation.tfidf - situation.probe) / headroom, -1.0, 1.0),
            np.clip(situation.distance / 2, 0.0, 1.0),
        ]
    )


def expect_gain(kind: str, situation: Situation, table: Mapping[str, Sequence[float]] | None = None) -> float:
    """Say how much higher a strategy's accuracy will be than that of the head on fixed features.

    Args:
        kind: ``strategy.kind``; one that is not in the table gains nothing.
        situation: What was found before training.
        table: Coefficients by kind; ``GAINS`` where absent.

    Returns:
        A difference of accuracies: a share, in [-1, 0.6], of the head's errors.

    Example:
        >>> much = Situation(probe=0.8, tfidf=0.7, rows=8192, classes=2, distance=1.0)
        >>> little = Situation(probe=0.8, tfidf=0.7, rows=16, classes=2, distance=1.0)
        >>> expect_gain("full", much, PRIOR) > 0 > expect_gain("full", little, PRIOR)
        True
    """
    coefficients = (GAINS if table is None else table).get(kind)
    if coefficients is None:
        return 0.0
    share = float(np.clip(describe_situation(situation) @ np.asarray(coefficients), -1.0, MOST_GAIN))
    return share * (1 - situation.probe)


def fit_gains(
    cells: Sequence[tuple[Situation, Mapping[str, float]]], *, spread: float = COEFFICIENT_SPREAD
) -> tuple[dict[str, tuple[float, ...]], dict[str, float]]:
    """Move the prior to where measured gains are.

    For each strategy a ridge regression of gains on the situation times the head's errors, which pulls towards the
    prior in place of 0: what the cells say nothing about stays as the rule of thumb has it.

    Args:
        cells: A situation, and the gain measured there by kind of strategy.
        spread: How far coefficients are expected to lie from the prior.

    Returns:
        Coefficients by kind, as ``GAINS`` holds them, and the standard deviation of the gains around what is expected
        of a cell by the others, as ``RESIDUALS`` holds it.

    Example:
        >>> fit_gains([])[0] == PRIOR
        True
    """
    table, residuals = {}, {}
    for kind, prior in PRIOR.items():
        rows = [
            (describe_situation(situation) * (1 - situation.probe), gains[kind])
            for situation, gains in cells
            if kind in gains
        ]
        phi_NK, gains_N = np.array([row for row, _ in rows]).reshape(-1, len(prior)), np.array([g for _, g in rows])
        table[kind] = tuple(round(float(value), 3) for value in _solve(phi_NK, gains_N, prior, spread))
        residuals[kind] = RESIDUALS[kind]
        if len(rows) >= FEWEST_CELLS:
            misses = [
                gains_N[cell]
                - phi_NK[cell] @ _solve(np.delete(phi_NK, cell, 0), np.delete(gains_N, cell), prior, spread)
                for cell in range(len(rows))
            ]
            residuals[kind] = round(max(LEAST_RESIDUAL, float(np.sqrt(np.mean(np.square(misses))))), 3)
    return table, residuals


def _solve(phi_NK: np.ndarray, gains_N: np.ndarray, prior: Sequence[float], spread: float) -> np.ndarray:
    """Ridge regression towards a prior, shape (K,)."""
    prior_K = np.asarray(prior, dtype=np.float64)
    strength = (NOISE / spread) ** 2
    left_KK = phi_NK.T @ phi_NK + strength * np.eye(len(prior_K))
    moved: np.ndarray = prior_K + np.linalg.solve(left_KK, phi_NK.T @ (gains_N - phi_NK @ prior_K))
    return moved
