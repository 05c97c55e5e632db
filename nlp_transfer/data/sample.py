"""Which rows are drawn: missing splits, `data.limit`, `data.shots`."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from nlp_transfer.errors import DataError

__all__ = ["draw_splits", "select_limit", "select_shots"]


def select_limit(num_rows: int, limit: int) -> np.ndarray:
    """Choose the first rows of ``train.shuffle(seed=0)``, as `datasets` shuffles.

    Args:
        num_rows: Rows of train.
        limit: How many to take; all where there are fewer.

    Returns:
        Row indices in the shuffled order, int64, shape (min(num_rows, limit),).

    Example:
        >>> from datasets import Dataset
        >>> shuffled = Dataset.from_dict({"row": range(9)}).shuffle(seed=0)
        >>> select_limit(9, 4).tolist() == shuffled["row"][:4]
        True
    """
    return np.random.default_rng(0).permutation(num_rows)[:limit]


def select_shots(labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Choose K rows of every class, those that setfit's ``sample_dataset`` draws, in its order.

    Args:
        labels: Class ids, int64, shape (N,).
        shots: Rows a class; all of a class that has fewer.
        seed: ``training.seed``.

    Returns:
        Row indices, int64.

    Source:
        setfit 1.2.0, data.py, sample_dataset: shuffle, first K of each class, shuffle again with the same seed.

    Example:
        >>> chosen = select_shots(np.array([0, 0, 0, 1, 1]), shots=2, seed=0)
        >>> np.array([0, 0, 0, 1, 1])[chosen].tolist().count(0)
        2
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    ranks = pd.Series(labels[shuffled]).groupby(labels[shuffled]).cumcount().to_numpy()
    chosen = shuffled[ranks < shots]
    return chosen[np.random.default_rng(seed).permutation(len(chosen))]


def draw_splits(
    groups: np.ndarray, strata: np.ndarray, shares: Mapping[str, float], *, seed: int, where: str
) -> tuple[dict[str, np.ndarray], list[int]]:
    """Draw splits from train, with equal shares of every class, and equal texts on one side.

    Every split takes its share of each class (largest remainders fill it up); rows of one group, which is one text,
    stay together. At least one group of every class stays in train.

    Args:
        groups: One number a text, uint64, shape (N,).
        strata: Class ids, int64, shape (N,); all the same where there are no classes.
        shares: Split to draw to its share of the rows, in (0, 1).
        seed: ``data.seed``.
        where: The source, for messages.

    Returns:
        Split name, ``train`` included, to row indices in ascending order; and the classes of one text, whose rows all
        had to stay in train.

    Raises:
        DataError: There are too few rows, or too few different texts.

    Example:
        >>> labels = np.arange(20) % 2
        >>> drawn, _ = draw_splits(np.arange(20, dtype=np.uint64), labels, {"test": 0.2}, seed=0, where="data")
        >>> {name: len(rows) for name, rows in drawn.items()}, labels[drawn["test"]].tolist().count(0)
        ({'train': 16, 'test': 4}, 2)
    """
    num_rows = len(groups)
    if sum(shares.values()) >= 1:
        raise DataError(
            "data.validation_share, data.test_share: expected shares that add up to less than 1, came "
            f"{sum(shares.values()):g}. Lower one."
        )
    _, first, group_of, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    # A text with several labels counts for the class of its first row.
    group_strata = strata[first]
    order = np.random.default_rng(seed).permutation(len(first))
    order = order[np.argsort(group_strata[order], kind="stable")]
    classes, starts = np.unique(group_strata[order], return_index=True)
    members = dict(zip(classes.tolist(), np.split(order, starts[1:]), strict=True))
    counts = {stratum: int(sizes[groups_].sum()) for stratum, groups_ in members.items()}
    side = np.full(len(first), "train", dtype=object)
    for split, share in shares.items():
        for stratum, target in _share_out(counts, share).items():
            free = members[stratum][:-1]
            free = free[side[free] == "train"]
            for group in free:
                if sizes[group] <= target:
                    side[group] = split
                    target -= int(sizes[group])
                if not target:
                    break
    rows_side = side[group_of]
    drawn = {split: np.flatnonzero(rows_side == split) for split in ("train", *shares)}
    bare = [stratum for stratum, groups_ in members.items() if len(groups_) == 1]
    for split in shares:
        if not len(drawn[split]) and len(bare) == len(members) > 1:
            raise DataError(
                f"{where}: expected classes of several texts to draw a {split} split, came {len(bare)} classes of one "
                f"text each. Add rows, name another column with data.label, or add a {split} file."
            )
        if not len(drawn[split]):
            raise DataError(
                f"{where}: expected enough texts to draw a {split} split of share {shares[split]:g}, came "
                f"{_count_texts(num_rows, len(first))}. Add rows, or a {split} file."
            )
    return drawn, bare


def _count_texts(num_rows: int, num_texts: int) -> str:
    """How many rows there are to draw from, and how many texts where some are equal."""
    if num_texts == num_rows:
        return f"{num_rows} {'row' if num_rows == 1 else 'rows'}"
    texts = "one text" if num_texts == 1 else f"{num_texts} different texts"
    return f"{num_rows} rows of {texts} (rows with the same text stay in one split)"


def _share_out(counts: Mapping[int, int], share: float) -> dict[int, int]:
    """How many rows of each class make up a share of all; largest remainders first."""
    quotas = {stratum: count * share for stratum, count in counts.items()}
    targets = {stratum: int(quota) for stratum, quota in quotas.items()}
    # 1e-9: 0.1 * 30 is a little more than 3 in binary, and 0.3 * 10 a little less.
    wanted = max(1, int(sum(counts.values()) * share + 0.5 + 1e-9))
    by_remainder = sorted(quotas, key=lambda stratum: targets[stratum] - quotas[stratum])
    open_rows = wanted - sum(targets.values())
    for stratum in by_remainder:
        if open_rows <= 0:
            break
        if counts[stratum] > targets[stratum] + 1:
            targets[stratum] += 1
            open_rows -= 1
    return targets
