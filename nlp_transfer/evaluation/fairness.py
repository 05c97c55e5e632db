"""How a classifier treats groups: rates with intervals, gaps between groups, and the group that fares worst."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from nlp_transfer.errors import DataError, MissingExtraError, ShapeError
from nlp_transfer.evaluation.intervals import percentile_interval, wilson_interval
from nlp_transfer.evaluation.metrics.counts import FloatArray, divide

__all__ = ["GAPS", "RATES", "Decisions", "Figure", "find_worst_groups", "measure_auc", "measure_gaps", "score_groups"]

Figure = dict[str, float | int | None]
"""``value``, ``low``, ``high`` and ``n``, the rows that it is over; no value where there are none."""

RATES = ("accuracy", "selection_rate", "false_positive_rate", "false_negative_rate")
"""Shares of rows: right; given the positive class; of the negative rows, given it; of the positive, not given it."""

GAPS = {
    "demographic_parity": ("selection_rate",),
    "equalized_odds": ("false_positive_rate", "false_negative_rate"),
    "false_positive_rate": ("false_positive_rate",),
    "false_negative_rate": ("false_negative_rate",),
}
"""Each gap is the largest of its rates' differences between the groups of the highest and of the lowest rate."""

EQUALITY = {
    "false_positive_equality_difference": "false_positive_rate",
    "false_negative_equality_difference": "false_negative_rate",
}
"""Sums over the groups of the distance between a group's rate and that of all rows."""

_HARMFUL = {"accuracy": -1, "false_positive_rate": 1, "false_negative_rate": 1}
"""Rates that have a worst group, and whether more or less of them is the harm."""


@dataclass(frozen=True)
class Decisions:
    """What was true of N rows and what a classifier made of them.

    Attributes:
        truth: Whether a row is of the positive class, bool, shape (N,).
        decided: Whether it was given the positive class, bool, shape (N,).
        right: Whether its label is right, whatever the classes, bool, shape (N,).
        scores: Probability of the positive class, float64, shape (N,).
    """

    truth: np.ndarray
    decided: np.ndarray
    right: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        sizes = {len(self.truth), len(self.decided), len(self.right), len(self.scores)}
        if len(sizes) > 1 or not len(self.truth):
            raise ShapeError(f"fairness: expected one truth, decision and score a row, got {sorted(sizes)}.")

    def count(self, rows: np.ndarray | slice = slice(None)) -> dict[str, tuple[int, int]]:
        """Count, for each rate, the rows that it happened to and those that it could have happened to."""
        truth, decided, right = self.truth[rows], self.decided[rows], self.right[rows]
        return {
            "accuracy": (int(right.sum()), len(right)),
            "selection_rate": (int(decided.sum()), len(decided)),
            "false_positive_rate": (int((decided & ~truth).sum()), int((~truth).sum())),
            "false_negative_rate": (int((~decided & truth).sum()), int(truth.sum())),
        }


def score_groups(
    members: Mapping[str, np.ndarray], decisions: Decisions, *, confidence: float = 0.95
) -> tuple[dict[str, Figure], dict[str, dict[str, Figure]]]:
    """Give the rates of all rows and of every group.

    Args:
        members: Group to the numbers of its rows; a row may be in several groups, or in none.
        decisions: Of all rows.
        confidence: Coverage of the intervals: Wilson's for shares, DeLong's for the AUC.

    Returns:
        Rate, or ``auc``, to figure for all rows; and the same for each group. Fractions in [0, 1].

    Raises:
        MissingExtraError: fairlearn is not installed.

    Source:
        The shares of groups are those of fairlearn's MetricFrame, but for a rate that no row of a group counts in:
        that has no value here and is 0 there.
    """
    counts = {name: decisions.count(rows) for name, rows in members.items()}
    shares = _ask_fairlearn(members, decisions)
    found: dict[str, dict[str, Figure]] = {}
    for name, rows in members.items():
        figures = {
            rate: _make_figure(hits, n, confidence, value=shares[rate][name])
            for rate, (hits, n) in counts[name].items()
        }
        figures["auc"] = measure_auc(decisions.truth[rows], decisions.scores[rows], confidence=confidence)
        found[name] = figures
    overall = {rate: _make_figure(hits, n, confidence) for rate, (hits, n) in decisions.count().items()}
    overall["auc"] = measure_auc(decisions.truth, decisions.scores, confidence=confidence)
    return overall, found


def _make_figure(hits: int, n: int, confidence: float, *, value: float | None = None) -> Figure:
    """A share with Wilson's interval."""
    if not n:
        return {"value": None, "low": None, "high": None, "n": 0}
    interval = wilson_interval(hits, n, confidence)
    return {"value": hits / n if value is None else value, "low": interval.low, "high": interval.high, "n": n}


def _import_fairlearn() -> Any:
    """The metrics of fairlearn, or the command that installs it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from fairlearn import metrics
    except ImportError as error:
        raise MissingExtraError("fairlearn", extra="audit", purpose="a fairness audit") from error
    return metrics


def _explode(members: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers and group names, one a membership: fairlearn knows one group a row."""
    rows = np.concatenate([np.asarray(own) for own in members.values()])
    return rows, np.repeat(np.array(list(members), dtype=object), [len(own) for own in members.values()])


def _ask_fairlearn(members: Mapping[str, np.ndarray], decisions: Decisions) -> dict[str, dict[str, float]]:
    """Rate to group to share."""
    metrics = _import_fairlearn()
    if not members:
        return {}
    rows, names = _explode(members)
    truth, decided = decisions.truth[rows].astype(int), decisions.decided[rows].astype(int)
    rates: dict[str, Callable[..., float]] = {
        name: getattr(metrics, name) for name in ("selection_rate", "false_positive_rate", "false_negative_rate")
    }
    frame = metrics.MetricFrame(metrics=rates, y_true=truth, y_pred=decided, sensitive_features=names)
    found = {name: {str(g): float(v) for g, v in frame.by_group[name].items()} for name in rates}
    # Whether a label is right is asked of all classes, so that it is counted as a share of its own.
    right = metrics.MetricFrame(
        metrics=metrics.selection_rate, y_true=truth, y_pred=decisions.right[rows].astype(int), sensitive_features=names
    )
    return found | {"accuracy": {str(g): float(v) for g, v in right.by_group.items()}}


def measure_auc(truth: np.ndarray, scores: np.ndarray, *, confidence: float = 0.95) -> Figure:
    """Measure how often a positive row scores above a negative one, with an interval.

    Args:
        truth: Whether a row is positive, bool, shape (N,).
        scores: Float, shape (N,).
        confidence: Coverage, in (0, 1).

    Returns:
        The area in [0, 1]; no value without rows of both classes. The interval closes on a perfect area.

    Source:
        DeLong, DeLong and Clarke-Pearson 1988. Departure: the interval is cut at 0 and 1.

    Example:
        >>> found = measure_auc(np.array([False, False, True, True]), np.array([0.1, 0.4, 0.35, 0.8]))
        >>> found["value"], found["n"]
        (0.75, 4)
    """
    positive, negative = scores[truth], scores[~truth]
    p, n = len(positive), len(negative)
    if not p or not n:
        return {"value": None, "low": None, "high": None, "n": len(truth)}
    ranks = rankdata(np.concatenate([positive, negative]))
    wins_p = (ranks[:p] - rankdata(positive)) / n
    wins_n = 1 - (ranks[p:] - rankdata(negative)) / p
    value = float(wins_p.mean())
    variance = sum(float(wins.var(ddof=1)) / len(wins) for wins in (wins_p, wins_n) if len(wins) > 1)
    reach = float(ndtri((1 + confidence) / 2)) * float(np.sqrt(variance))
    return {"value": value, "low": max(0.0, value - reach), "high": min(1.0, value + reach), "n": len(truth)}


def measure_gaps(
    members: Mapping[str, np.ndarray],
    decisions: Decisions,
    *,
    min_group: int = 20,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Measure how far apart groups are, and how far apart they would be by chance.

    Args:
        members: Group to the numbers of its rows.
        decisions: Of all rows.
        min_group: Rows over which a rate must be to count in a gap: that of a few rows is mostly noise.
        resamples: Of the intervals, and of what chance gives.
        confidence: Coverage, in (0, 1).
        seed: Of the resamples.

    Returns:
        Gap to ``value``, ``low``, ``high``, ``groups`` (how many were compared), and ``chance``: the gap that
        groups which do not differ stay below in 95 of 100 draws (at that confidence). All None where fewer than two
        groups have rows enough. Gaps are fractions in [0, 1]; equality differences are sums over the groups. The
        percentile interval of a largest difference leans upward: read it beside ``chance``.

    Raises:
        MissingExtraError: fairlearn is not installed.

    Source:
        demographic_parity_difference and equalized_odds_difference of fairlearn, between groups. Equality
        differences: Dixon et al. 2018, section 4, https://doi.org/10.1145/3278721.3278729.
    """
    metrics, random = _import_fairlearn(), np.random.default_rng(seed)
    counts = {name: decisions.count(rows) for name, rows in members.items()}
    judged = {rate: [name for name in members if counts[name][rate][1] >= min_group] for rate in RATES}
    drawn = _resample_rates(members, decisions, resamples, random)
    overall = decisions.count()
    order = {name: position for position, name in enumerate(members)}
    found: dict[str, dict[str, Any]] = {}

    def add(key: str, names: list[str], value: float, samples: FloatArray, chance: FloatArray) -> None:
        interval = percentile_interval(samples, confidence)
        found[key] = {
            "value": value,
            "low": min(interval.low, value),
            "high": max(interval.high, value),
            "chance": float(np.quantile(chance, confidence)),
            "groups": len(names),
        }

    for key, rates in GAPS.items():
        names = [name for name in members if all(name in judged[rate] for rate in rates)]
        if len(names) < 2:
            found[key] = {"value": None, "low": None, "high": None, "chance": None, "groups": len(names)}
            continue
        own = [order[name] for name in names]
        samples = np.max([_spread(drawn[rate][:, own]) for rate in rates], axis=0)
        even = [_draw_even(counts, names, rate, overall[rate], resamples, random) for rate in rates]
        chance = np.max([_spread(table) for table in even], axis=0)
        value = _ask_gap(metrics, key, {name: members[name] for name in names}, decisions, counts)
        add(key, names, value, samples, chance)
    for key, rate in EQUALITY.items():
        names = judged[rate]
        if len(names) < 2:
            found[key] = {"value": None, "low": None, "high": None, "chance": None, "groups": len(names)}
            continue
        hits, n = overall[rate]
        values = np.array([counts[name][rate][0] / counts[name][rate][1] for name in names])
        own = [order[name] for name in names]
        samples = np.nansum(np.abs(drawn[rate][:, own] - drawn["all", rate][:, None]), axis=1)
        chance = np.abs(_draw_even(counts, names, rate, overall[rate], resamples, random) - hits / n).sum(axis=1)
        add(key, names, float(np.abs(values - hits / n).sum()), samples, chance)
    return found


def _ask_gap(
    metrics: Any,
    key: str,
    members: Mapping[str, np.ndarray],
    decisions: Decisions,
    counts: Mapping[str, Mapping[str, tuple[int, int]]],
) -> float:
    """A gap's value, by fairlearn where it has a function for it."""
    if key in ("demographic_parity", "equalized_odds"):
        rows, names = _explode(members)
        ask = getattr(metrics, f"{key}_difference")
        truth, decided = decisions.truth[rows].astype(int), decisions.decided[rows].astype(int)
        return float(ask(truth, decided, sensitive_features=names))
    values = [counts[name][key][0] / counts[name][key][1] for name in members]
    return max(values) - min(values)


def _spread(rates: FloatArray) -> FloatArray:
    """Highest less lowest rate of each resample; a group that a resample left without rows does not count."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All-NaN")
        found: FloatArray = np.nanmax(rates, axis=1) - np.nanmin(rates, axis=1)
    return found


def _draw_even(
    counts: Mapping[str, Mapping[str, tuple[int, int]]],
    names: Sequence[str],
    rate: str,
    overall: tuple[int, int],
    resamples: int,
    random: np.random.Generator,
) -> FloatArray:
    """Rates of groups that all have the rate of all rows, (R, G)."""
    sizes = np.array([counts[name][rate][1] for name in names])
    return np.asarray(random.binomial(sizes, overall[0] / max(overall[1], 1), size=(resamples, len(names))) / sizes)


def _resample_rates(
    members: Mapping[str, np.ndarray], decisions: Decisions, resamples: int, random: np.random.Generator
) -> dict[Any, FloatArray]:
    """Rates of every group over resamples of the rows: rate to (R, G), and (``all``, rate) to (R,).

    Rows that agree in groups, truth, decision and rightness are drawn together: the same bootstrap, at a small part
    of its cost.
    """
    num_rows, names = len(decisions.truth), list(members)
    inside = np.zeros((num_rows, len(names)), dtype=bool)
    for position, name in enumerate(names):
        inside[members[name], position] = True
    columns = np.column_stack([inside, decisions.truth, decisions.decided, decisions.right])
    packed = np.packbits(columns, axis=1)
    _, first, sizes = np.unique(packed, axis=0, return_index=True, return_counts=True)
    drawn = random.multinomial(num_rows, sizes / num_rows, size=resamples).astype(np.float64)
    kinds, truth, decided, right = inside[first].astype(float), *columns[first, -3:].T
    parts = {
        "accuracy": (right, np.ones_like(right)),
        "selection_rate": (decided, np.ones_like(right)),
        "false_positive_rate": (decided & ~truth, ~truth),
        "false_negative_rate": (~decided & truth, truth),
    }
    found: dict[Any, FloatArray] = {}
    for rate, (hit, open_) in parts.items():
        found[rate] = _share(drawn @ (kinds * hit[:, None]), drawn @ (kinds * open_[:, None]))
        found["all", rate] = _share(drawn @ hit.astype(float), drawn @ open_.astype(float))
    return found


def _share(hits: FloatArray, n: FloatArray) -> FloatArray:
    """Hits by rows; NaN where there are no rows."""
    return np.where(n > 0, divide(hits, n), np.nan)


def find_worst_groups(
    members: Mapping[str, np.ndarray], decisions: Decisions, *, min_group: int = 20, confidence: float = 0.95
) -> dict[str, str | None]:
    """Name the group that fares worst by each rate, where one surely does.

    Args:
        members: Group to the numbers of its rows.
        decisions: Of all rows.
        min_group: Rows over which a rate must be to be judged.
        confidence: Of all the comparisons of a rate together (Bonferroni).

    Returns:
        Rate to group: of those whose interval lies on the bad side of the rate of all rows, the one whose interval
        lies furthest from it. None where no group stands out, so that a small group does not win by noise.

    Raises:
        DataError: ``min_group`` is below 1.

    Example:
        >>> truth = np.zeros(203, dtype=bool)
        >>> decided = np.arange(203) >= 160
        >>> rows = {"many": np.arange(100), "half": np.arange(120, 200), "three": np.arange(200, 203)}
        >>> find_worst_groups(rows, Decisions(truth, decided, ~decided, decided * 1.0))["false_positive_rate"]
        'half'
    """
    if min_group < 1:
        raise DataError(f"min_group: expected 1 row or more, got {min_group}.")
    found: dict[str, str | None] = {}
    overall = decisions.count()
    counts = {name: decisions.count(rows) for name, rows in members.items()}
    for rate, side in _HARMFUL.items():
        judged = [name for name in members if counts[name][rate][1] >= min_group]
        found[rate] = None
        if len(judged) < 2:
            continue
        whole = overall[rate][0] / overall[rate][1]
        sure = 1 - (1 - confidence) / len(judged)
        # Ends of intervals nearest to the rate of all rows, as distances into the bad side.
        near = {}
        for name in judged:
            interval = wilson_interval(*counts[name][rate], sure)
            near[name] = (interval.low if side > 0 else interval.high) * side - whole * side
        worst = max(judged, key=lambda name: near[name])
        found[rate] = worst if near[worst] > 0 else None
    return found
