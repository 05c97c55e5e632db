"""Which examples go into which step, and how their tokens become tensors."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset

from nlp_transfer.contracts import Encoded
from nlp_transfer.errors import ShapeError

__all__ = ["Collator", "TokenStore", "plan_epoch", "plan_inference", "plan_packed", "round_width", "split_window"]

WINDOWS_PER_GROUP = 50
"""Windows whose examples are sorted together: enough for little padding, few enough to stay shuffled; chosen."""


def plan_epoch(
    lengths: np.ndarray, *, batch_size: int, seed: int, epoch: int, group_by_length: bool = True
) -> list[np.ndarray]:
    """Plan one pass over the examples, in windows of one optimizer step each.

    Every example is in exactly one window. The plan depends on the arguments alone, not on how many processes share
    the work. Grouped windows hold examples of similar length; a short window, drawn from all lengths, comes last.
    The first epoch starts with the longest window, so that memory runs out at once or never.

    Args:
        lengths: Tokens an example, shape (N,).
        batch_size: Examples in a window, over all processes.
        seed: Seed of the order.
        epoch: Number of the pass, from 0.
        group_by_length: Whether windows hold examples of similar length.

    Returns:
        Example indices, int64, shape (batch_size,) each; the last one may be shorter.

    Example:
        >>> windows = plan_epoch(np.array([5, 90, 6, 80, 7]), batch_size=2, seed=0, epoch=0)
        >>> [len(window) for window in windows], sorted(int(i) for window in windows for i in window)
        ([2, 2, 1], [0, 1, 2, 3, 4])
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths)).astype(np.int64)
    num_full = len(order) // batch_size
    full, rest = order[: num_full * batch_size], order[num_full * batch_size :]
    numbers = np.arange(num_full)
    if group_by_length and num_full:
        groups = np.arange(len(full)) // (batch_size * WINDOWS_PER_GROUP)
        full = full[np.lexsort((lengths[full], groups))]
        numbers = generator.permutation(num_full)
    windows_WB = full.reshape(num_full, batch_size)
    if epoch == 0 and num_full:
        longest = int(np.argmax(lengths[windows_WB].max(axis=1)[numbers]))
        numbers[[0, longest]] = numbers[[longest, 0]]
    windows = list(windows_WB[numbers])
    return [*windows, rest] if len(rest) else windows


def split_window(
    window: np.ndarray,
    lengths: np.ndarray,
    *,
    num_processes: int = 1,
    rank: int = 0,
    microbatch_size: int | None = None,
    max_tokens: int | None = None,
) -> list[np.ndarray]:
    """Choose the microbatches of one process for one window.

    Examples are dealt out by length, so that every process gets nearly as many examples and tokens as the others;
    inside a process neighbours in length stay together. All processes' microbatches together are the window.

    Args:
        window: Example indices, int64, shape (B,).
        lengths: Tokens an example, shape (N,), for all N examples of the split.
        num_processes: Count of processes that share the window.
        rank: Number of this process, from 0.
        microbatch_size: Most examples in a microbatch; no limit where absent.
        max_tokens: Most tokens in a microbatch, padding included; a longer example stands alone. No limit if absent.

    Returns:
        Example indices of each microbatch, longest first; nothing where the window has too few examples.

    Example:
        >>> lengths = np.array([3, 9, 4, 8])
        >>> [part.tolist() for part in split_window(np.arange(4), lengths, microbatch_size=2)]
        [[1, 3], [2, 0]]
    """
    ordered = window[np.argsort(-lengths[window].astype(np.int64), kind="stable")]
    # There and back again: 0 1 2 2 1 0 0 1 2 ...; plain turns would give rank 0 the longest of every round.
    turns = np.arange(len(ordered)) % (2 * num_processes)
    own = ordered[np.minimum(turns, 2 * num_processes - 1 - turns) == rank]
    if not len(own):
        return []
    if max_tokens is None:
        return np.array_split(own, -(-len(own) // (microbatch_size or len(own))))
    return _cut_by_tokens(own, lengths, microbatch_size or len(own), max_tokens)


def plan_inference(lengths: np.ndarray, *, batch_size: int, max_tokens: int | None = None) -> list[np.ndarray]:
    """Plan batches without gradients: longest first, neighbours in length together.

    Args:
        lengths: Tokens a row, shape (W,).
        batch_size: Most rows in a batch.
        max_tokens: Most tokens in a batch, padding included; a longer row stands alone. No limit where absent.

    Returns:
        Row indices of each batch, int64; together every row once.

    Example:
        >>> [batch.tolist() for batch in plan_inference(np.array([3, 9, 4, 8]), batch_size=3)]
        [[1, 3, 2], [0]]
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    if max_tokens is not None:
        return _cut_by_tokens(order, lengths, batch_size, max_tokens)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def plan_packed(lengths: np.ndarray, *, batch_size: int, max_tokens: int) -> list[np.ndarray]:
    """Plan batches without gradients and without padding: longest first, as many as fit.

    Args:
        lengths: Tokens a row, shape (W,).
        batch_size: Most rows in a batch.
        max_tokens: Most tokens in a batch; a longer row stands alone.

    Returns:
        Row indices of each batch, int64; together every row once.

    Example:
        >>> [batch.tolist() for batch in plan_packed(np.array([3, 9, 4, 8]), batch_size=3, max_tokens=12)]
        [[1], [3, 2], [0]]
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    parts, start, held = [], 0, 0
    for place, size in enumerate(lengths[order].tolist()):
        if place > start and (place - start == batch_size or held + size > max_tokens):
            parts.append(order[start:place])
            start, held = place, 0
        held += size
    return [*parts, order[start:]] if len(order) else []


def _cut_by_tokens(ordered: np.ndarray, lengths: np.ndarray, max_rows: int, max_tokens: int) -> list[np.ndarray]:
    """Cut indices that are sorted longest first; the first of each part says how wide the part is."""
    parts, start = [], 0
    while start < len(ordered):
        widest = max(int(lengths[ordered[start]]), 1)
        num_rows = max(1, min(max_rows, max_tokens // widest))
        parts.append(ordered[start : start + num_rows])
        start += num_rows
    return parts


class TokenStore:
    """Random access to the tokens of memory-mapped rows, without a copy of them.

    Args:
        rows: Table of list columns, such as ``input_ids``.

    Example:
        >>> store = TokenStore(Dataset.from_dict({"input_ids": [[1, 2], [3], [4, 5, 6]]}))
        >>> flat, counts = store.gather("input_ids", [2, 0])
        >>> flat.tolist(), counts.tolist()
        ([4, 5, 6, 1, 2], [3, 2])
    """

    def __init__(self, rows: Dataset) -> None:
        table: pa.Table = rows.with_format("arrow")[:]
        self.columns = tuple(table.column_names)
        self.num_rows = table.num_rows
        self._chunks = {name: [_view_lists(chunk) for chunk in table.column(name).chunks] for name in self.columns}
        self._starts = {
            name: np.cumsum([0, *(len(offsets) - 1 for _, offsets in chunks)]) for name, chunks in self._chunks.items()
        }

    def gather(self, column: str, row_indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fetch the lists of some rows.

        Args:
            column: One of ``columns``.
            row_indices: Which rows, in [0, num_rows), shape (R,).

        Returns:
            All values one after the other, and how many belong to each row, int64, shape (R,).

        Raises:
            ShapeError: A row does not exist.
        """
        rows = np.asarray(row_indices, dtype=np.int64)
        if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < self.num_rows):
            raise ShapeError(f"rows: expected numbers from 0 to {self.num_rows - 1}, got {rows.min()} to {rows.max()}.")
        starts, chunks = self._starts[column], self._chunks[column]
        homes = np.searchsorted(starts, rows, side="right") - 1
        lists = []
        for home, row in zip(homes.tolist(), (rows - starts[homes]).tolist(), strict=True):
            values, offsets = chunks[home]
            lists.append(values[offsets[row] : offsets[row + 1]])
        counts = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
        return np.concatenate(lists) if lists else np.empty(0, dtype=np.int64), counts


def _view_lists(chunk: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """See a list array as its flat values and offsets; nothing is copied."""
    return chunk.values.to_numpy(zero_copy_only=True), chunk.offsets.to_numpy(zero_copy_only=True)


def round_width(width: int) -> int:
    """Round a batch's length up, so that there are few different ones.

    A processor's bf16 kernels are compiled for each shape, which takes a third of a step and half a megabyte for every
    matrix product, and they are kept.

    Args:
        width: Tokens of the longest row.

    Returns:
        At most an eighth more; up to 16 tokens the same.

    Example:
        >>> [round_width(width) for width in (7, 15, 17, 33, 100, 256)]
        [7, 15, 18, 36, 104, 256]
    """
    step = max(1, 1 << width.bit_length() >> 4)
    return -(-width // step) * step


class Collator:
    """Pads rows to one length, as the tokenizer does.

    Args:
        pad: Column name to the value that pads it.
        padding_side: ``"right"`` or ``"left"``.
        pad_to_multiple_of: Rounds the length up; None keeps the longest row's.

    Attributes:
        has_few_widths: Whether lengths are rounded up by `round_width`, to no more than the longest row of the split.

    Example:
        >>> rows = Dataset.from_dict({"input_ids": [[1, 2], [3]]})
        >>> encoded = Encoded(rows, np.array([2, 1]), np.arange(2), None, num_examples=2, truncated=0)
        >>> Collator({"input_ids": 0}, "right")(encoded, [0, 1])["input_ids"].tolist()
        [[1, 2], [3, 0]]
    """

    def __init__(self, pad: Mapping[str, int], padding_side: str, *, pad_to_multiple_of: int | None = None) -> None:
        self.pad = dict(pad)
        self.padding_side = padding_side
        self.pad_to_multiple_of = pad_to_multiple_of
        self.has_few_widths = False
        self._store: TokenStore | None = None
        self._stored: Dataset | None = None

    def open_store(self, encoded: Encoded) -> TokenStore:
        """Give access to the tokens of a split; the last one's is kept.

        Args:
            encoded: The tokenized split.

        Returns:
            Its tokens.
        """
        if self._store is None or self._stored is not encoded.rows:
            self._store, self._stored = TokenStore(encoded.rows), encoded.rows
        return self._store

    def __call__(self, encoded: Encoded, row_indices: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
        """Collate rows.

        Args:
            encoded: The tokenized split.
            row_indices: Which of its rows, in the order wanted, shape (R,).

        Returns:
            ``input_ids``, ``attention_mask`` and, where the rows have them, ``token_type_ids``: int64, shape (R, L).

        Raises:
            ShapeError: There are no rows, or one does not exist.
        """
        if len(row_indices) == 0:
            raise ShapeError("batch: expected at least one row, got none.")
        store = self.open_store(encoded)
        names = [name for name in self.pad if name in store.columns]
        flat, counts_R = store.gather(names[0], row_indices)
        width = int(counts_R.max())
        if self.pad_to_multiple_of:
            width = -(-width // self.pad_to_multiple_of) * self.pad_to_multiple_of
        elif self.has_few_widths:
            width = min(round_width(width), int(encoded.lengths.max()))
        places_L = np.arange(width)
        if self.padding_side == "left":
            is_real_RL = places_L >= (width - counts_R)[:, None]
        else:
            is_real_RL = places_L < counts_R[:, None]
        batch = {}
        for name in names:
            values = flat if name == names[0] else store.gather(name, row_indices)[0]
            padded_RL = np.full(is_real_RL.shape, self.pad[name], dtype=np.int64)
            padded_RL[is_real_RL] = values
            batch[name] = torch.from_numpy(padded_RL)
        batch["attention_mask"] = torch.from_numpy(is_real_RL.astype(np.int64))
        return batch
