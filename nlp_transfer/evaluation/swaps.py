"""What a score makes of one word: texts with an identity term against the same texts with another in its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlp_transfer.errors import ShapeError
from nlp_transfer.evaluation.fairness import Figure
from nlp_transfer.evaluation.intervals import bootstrap_values, percentile_interval
from nlp_transfer.evaluation.metrics.counts import FloatArray, divide

__all__ = ["Swap", "draw_swaps", "measure_swaps"]


@dataclass(frozen=True)
class Swap:
    """One term of one row and what takes its place."""

    row: int
    term: str
    other: str


def draw_swaps(
    found: Sequence[Sequence[str]], sets: Mapping[str, Sequence[str]], *, most: int, seed: int = 0
) -> tuple[list[Swap], int]:
    """List what can be swapped, or an even sample of it.

    Args:
        found: The terms of each of N rows.
        sets: Term to all terms of its set.
        most: Swaps that are kept at most.
        seed: Of the sample.

    Returns:
        The swaps in the order of the rows, and how many there are in all.

    Example:
        >>> swaps, possible = draw_swaps([["gay"], [], ["gay"]], {"gay": ["gay", "straight", "queer"]}, most=3)
        >>> len(swaps), possible
        (3, 4)
    """
    # Only their places are drawn: a large table has more swaps than there is room for.
    sizes = np.array([sum(len(sets[term]) - 1 for term in terms) for terms in found], dtype=np.int64)
    possible = int(sizes.sum())
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(possible, most, replace=False)) if possible > most else np.arange(possible)
    ends = np.cumsum(sizes)
    swaps = []
    for place in chosen.tolist():
        row = int(np.searchsorted(ends, place, side="right"))
        offset = place - int(ends[row] - sizes[row])
        for term in found[row]:
            others = [other for other in sets[term] if other != term]
            if offset < len(others):
                swaps.append(Swap(row, term, others[offset]))
                break
            offset -= len(others)
    return swaps, possible


def measure_swaps(
    swaps: Sequence[Swap],
    before: FloatArray,
    after: FloatArray,
    flipped: np.ndarray,
    *,
    kinds: Mapping[str, str],
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure how far scores follow the terms.

    Args:
        swaps: M swaps.
        before: Score of each swap's row as it is, float, shape (M,).
        after: Score with the other term, float, shape (M,).
        flipped: Whether the label changed, bool, shape (M,).
        kinds: Term to what it tells of a person.
        resamples: Of the intervals; rows are drawn, with all of their swaps.
        confidence: Coverage, in (0, 1).
        seed: Of the resamples.

    Returns:
        ``mean_change``, the mean absolute change of the score; ``flipped``, the share of swaps that change the label;
        ``terms``, from the highest shift to the lowest: how much higher texts score with the term than with another
        of its set, in [-1, 1], over the swaps that bring it or take it away.

    Raises:
        ShapeError: The inputs disagree on M, or M is 0.

    Source:
        Garg et al. 2019, section 3, counterfactual token fairness, https://doi.org/10.1145/3306618.3317950; its gap
        is the mean absolute change. Terms are those of one grammatical form only.

    Example:
        >>> swaps = [Swap(0, "gay", "straight"), Swap(1, "straight", "gay")]
        >>> found = measure_swaps(swaps, np.array([0.9, 0.2]), np.array([0.4, 0.9]), np.array([True, True]),
        ...                       kinds={"gay": "orientation", "straight": "orientation"})
        >>> [(each["term"], round(each["shift"]["value"], 2)) for each in found["terms"]]
        [('gay', 0.6), ('straight', -0.6)]
    """
    if not swaps or not len(swaps) == len(before) == len(after) == len(flipped):
        raise ShapeError(f"swaps: expected a score before and after each of {len(swaps)} swaps, got {len(after)}.")
    change = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    rows = np.array([swap.row for swap in swaps])

    def measure(values: np.ndarray, of: np.ndarray) -> Figure:
        _, own = np.unique(of, return_inverse=True)
        sums, sizes = np.bincount(own, weights=values), np.bincount(own).astype(np.float64)
        drawn = bootstrap_values(
            lambda weights: divide(sums @ weights, sizes @ weights), len(sums), resamples=resamples, seed=seed
        )
        interval = percentile_interval(drawn, confidence)
        return {"value": float(values.mean()), "low": interval.low, "high": interval.high, "n": len(values)}

    terms = []
    for term in sorted({name for swap in swaps for name in (swap.term, swap.other)}):
        signs = np.array([(swap.other == term) - (swap.term == term) for swap in swaps])
        own = np.flatnonzero(signs)
        figure = measure(change[own] * signs[own], rows[own])
        terms.append({"term": term, "kind": kinds[term], "shift": figure})
    terms.sort(key=lambda entry: -float(entry["shift"]["value"]))  # type: ignore[index]
    return {
        "mean_change": measure(np.abs(change), rows),
        "flipped": measure(np.asarray(flipped, dtype=np.float64), rows),
        "terms": terms,
    }
