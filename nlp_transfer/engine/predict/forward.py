"""From example indices to logits, in training and without gradients."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from nlp_transfer.contracts import Encoded, Prepared, Track, track_nothing
from nlp_transfer.data.batches import Collator, TokenStore, plan_inference
from nlp_transfer.engine.fast.packing import Layout, Packing, make_layout
from nlp_transfer.engine.fast.prefix import Prefix, PrefixCache, PrefixStates, allocate_states
from nlp_transfer.engine.predict.hidden_states import FrozenReader

__all__ = ["Feeder", "Microbatch", "cache_prefix", "compute_logits", "iterate_rows", "join_windows"]


ROWS_PER_PASS, TOKENS_PER_PASS = 256, 8_192
"""Most rows and tokens in one pass of what is run once over a split; chosen."""


@dataclass(frozen=True)
class Microbatch:
    """What one forward pass reads.

    Attributes:
        inputs: Model inputs, each of shape (R, L), on the device.
        labels: Labels of the B examples, or None.
        columns: Further columns of the B examples, each of shape (B, ...).
        owners: For rows that are windows of longer texts, the position in the batch of each row's example, int64,
            shape (R,); None where every example is one row.
        num_examples: B.
        prefix: The frozen bottom whose states are given; None where the whole model runs.
        hidden: Those states, float32, shape (R, L, D).
        num_tokens: Real tokens.
        num_padded: Tokens that run through the layers: with padding, or rounded up where rows are packed.
        layout: Where the real tokens are; None where padding runs with them.
        packing: The way for packed rows, where there is a layout.
    """

    inputs: dict[str, Tensor]
    labels: Tensor | None
    owners: Tensor | None
    num_examples: int
    num_tokens: int
    num_padded: int
    prefix: Prefix | None = None
    hidden: Tensor | None = None
    layout: Layout | None = None
    packing: Packing | None = None
    columns: Mapping[str, Tensor] = field(default_factory=dict)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Microbatch":
        """The same with every tensor changed."""

        def maybe(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else change(tensor)

        return replace(
            self,
            inputs={name: change(tensor) for name, tensor in self.inputs.items()},
            labels=maybe(self.labels),
            columns={name: change(tensor) for name, tensor in self.columns.items()},
            owners=maybe(self.owners),
            hidden=maybe(self.hidden),
            layout=None if self.layout is None else self.layout.map(change),
        )


class Feeder:
    """Turns indices of one split's examples into tensors on a device.

    Args:
        prepared: Holds how to pad.
        split: Name of the split.
        device: Where tensors go.
        pad_to_multiple_of: Rounds lengths up; GPUs like 8.
        cache: States of a frozen prefix; splits that are not in it run whole.

    Attributes:
        packing: The way through the model for rows without padding; None where rows are padded.
    """

    def __init__(
        self,
        prepared: Prepared,
        split: str,
        device: torch.device,
        *,
        pad_to_multiple_of: int | None = None,
        cache: PrefixCache | None = None,
    ) -> None:
        self.encoded: Encoded = prepared.splits[split]
        self.device = device
        self.packing: Packing | None = None
        self._pad_id = prepared.pad["input_ids"]
        self._is_left = prepared.padding_side == "left"
        self._prefix = cache.prefix if cache is not None and split in cache.states else None
        self._states = cache.states[split] if cache is not None and split in cache.states else None
        self._collate = Collator(prepared.pad, prepared.padding_side, pad_to_multiple_of=pad_to_multiple_of)
        examples = self.encoded.examples
        self.has_windows = len(examples) != self.encoded.num_examples
        self._starts = np.searchsorted(examples, np.arange(self.encoded.num_examples + 1))
        self._labels = None if self.encoded.labels is None else _to_tensor(self.encoded.labels)
        self._columns = {name: _to_tensor(values) for name, values in self.encoded.columns.items()}

    @property
    def pads_left(self) -> bool:
        """Whether padding stands in front of a text."""
        return self._is_left

    @property
    def has_prefix(self) -> bool:
        """Whether the states of a frozen prefix are fed in place of what it would compute."""
        return self._prefix is not None

    @property
    def lengths(self) -> np.ndarray:
        """Tokens an example, all its windows together, int64, shape (N,)."""
        if not self.has_windows:
            return self.encoded.lengths.astype(np.int64)
        return np.add.reduceat(self.encoded.lengths.astype(np.int64), self._starts[:-1])

    def list_tokens(self) -> np.ndarray:
        """Every token id that this split can feed, the padding's too, int64, ascending, without repeats."""
        column = self.encoded.rows.with_format("arrow")[:].column("input_ids")
        held = pc.unique(pc.list_flatten(column)).to_numpy()
        return np.unique(np.append(held.astype(np.int64), self._pad_id))

    def can_pack(self) -> bool:
        """Whether rows may come without padding.

        That is on a CPU, where no layer has run before, and not where padding on the left moves tokens' positions.
        """
        return self.device.type == "cpu" and self._states is None and not self._is_left

    def open_store(self) -> TokenStore:
        """Give access to the split's tokens as they are stored, without padding."""
        return self._collate.open_store(self.encoded)

    def find_rows(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Find the rows of examples.

        Args:
            examples: Indices, int64, shape (B,).

        Returns:
            Numbers of rows, int64, shape (R,); and the place of each row's example among the B, int64, shape (R,), or
            None where every example is one row.
        """
        if not self.has_windows:
            return examples, None
        counts = self._starts[examples + 1] - self._starts[examples]
        owners = np.repeat(np.arange(len(examples)), counts)
        return np.concatenate([np.arange(self._starts[i], self._starts[i + 1]) for i in examples]), owners

    def pad_to_few_widths(self) -> None:
        """Round the lengths of batches up from now on, so that few kernels are compiled."""
        self._collate.has_few_widths = True

    def feed(self, examples: np.ndarray) -> Microbatch:
        """Collate examples.

        Args:
            examples: Indices, int64, shape (B,).

        Returns:
            Tensors on the device.
        """
        return self.place(self.collate(examples))

    def collate(self, examples: np.ndarray) -> Microbatch:
        """Collate examples on the CPU, where a thread beside the training can do it.

        Args:
            examples: Indices, int64, shape (B,).

        Returns:
            Tensors on the CPU, in memory that the GPU reads by itself where there is one.
        """
        rows, owners = self.find_rows(examples)
        batch = self._collate(self.encoded, rows)
        hidden = None
        if self._prefix is not None and self._states is not None:
            if self._prefix.first_only:
                batch = {name: tensor[:, :1] for name, tensor in batch.items()}
                batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
            hidden = self._states.gather(rows, batch["input_ids"].shape[1], left=self._is_left)
        counts_R = self.encoded.lengths[rows].astype(np.int64)
        packing = self.packing if hidden is None else None
        layout = None if packing is None else make_layout(counts_R, batch["input_ids"].shape[1])
        places = torch.from_numpy(examples)
        found = Microbatch(
            inputs=batch,
            labels=None if self._labels is None else self._labels[places],
            columns={name: values[places] for name, values in self._columns.items()},
            owners=None if owners is None else torch.from_numpy(owners),
            num_examples=len(examples),
            num_tokens=int(counts_R.sum()),
            num_padded=batch["input_ids"].numel() if layout is None else len(layout.places),
            prefix=self._prefix,
            hidden=hidden,
            layout=layout,
            packing=packing,
        )
        return found.map(Tensor.pin_memory) if self.device.type == "cuda" else found

    def place(self, batch: Microbatch) -> Microbatch:
        """Put what ``collate`` gave on the device; from pinned memory nothing waits for the copy."""
        if self.device.type == "cpu":
            return batch
        return batch.map(lambda tensor: tensor.to(self.device, non_blocking=True))


def _to_tensor(values: np.ndarray) -> Tensor:
    """A column of examples as a tensor; not every device has float64, and no loss is computed in it."""
    return torch.from_numpy(np.array(values, dtype=np.float32 if values.dtype == np.float64 else values.dtype))


def compute_logits(model: nn.Module, batch: Microbatch, *, max_tokens: int | None = None) -> Tensor:
    """Run the model; windows of one text share the mean of their logits.

    Args:
        model: Takes the inputs and returns an object with ``logits``.
        batch: B examples in R rows.
        max_tokens: Most tokens in one pass: the many windows of a long text go through in parts. No limit where
            absent.

    Returns:
        Float32 logits, shape (B, C).
    """
    num_rows, width = batch.inputs["input_ids"].shape
    most = num_rows if max_tokens is None else max(1, max_tokens // max(width, 1))
    parts = []
    for start in range(0, num_rows, most):
        skipped: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if batch.prefix is not None and batch.hidden is not None:
            skipped = batch.prefix.skip(batch.hidden[start : start + most])
        elif batch.packing is not None and batch.layout is not None and most >= num_rows:
            skipped = batch.packing.reading(batch.layout)
        with skipped:
            inputs = {name: tensor[start : start + most] for name, tensor in batch.inputs.items()}
            parts.append(model(**inputs).logits.float())
    logits_RC: Tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
    return logits_RC if batch.owners is None else join_windows(logits_RC, batch.owners, batch.num_examples)


def join_windows(logits: Tensor, owners: Tensor, num_examples: int) -> Tensor:
    """Give examples the mean of their rows' logits.

    Args:
        logits: Float, shape (R, C).
        owners: Which example a row belongs to, int64, shape (R,).
        num_examples: B.

    Returns:
        Float, shape (B, C).

    Example:
        >>> join_windows(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1]), 2).tolist()
        [[2.0], [5.0]]
    """
    # Not bincount: on a GPU the host would wait for it.
    counts_B = logits.new_zeros(num_examples).index_add_(0, owners, logits.new_ones(len(logits)))
    summed_BC = logits.new_zeros(num_examples, logits.shape[1]).index_add_(0, owners, logits)
    return summed_BC / counts_B[:, None]


def iterate_rows(
    prepared: Prepared, split: str, device: torch.device
) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
    """Go through a split once, each row by itself even where several are windows of one text.

    Args:
        prepared: Tokenized splits.
        split: Which one.
        device: Where tensors go.

    Yields:
        Numbers of rows, int64, shape (R,), longest first, and the model's inputs for them, each of shape (R, L).
    """
    encoded = prepared.splits[split]
    collate = Collator(prepared.pad, prepared.padding_side)
    lengths = encoded.lengths.astype(np.int64)
    for rows in plan_inference(lengths, batch_size=ROWS_PER_PASS, max_tokens=TOKENS_PER_PASS):
        yield rows, {name: tensor.to(device) for name, tensor in collate(encoded, rows).items()}


def cache_prefix(
    prefix: Prefix,
    prepared: Prepared,
    splits: Sequence[str],
    device: torch.device,
    track: Track = track_nothing,
    readers: Mapping[str, FrozenReader] = MappingProxyType({}),
) -> PrefixCache:
    """Run a frozen prefix once over some splits.

    Args:
        prefix: Of a model that is on the device.
        prepared: Tokenized splits.
        splits: Which of them.
        device: Where the model is.
        track: Shows how far it is.
        readers: By split, what reads it in the prefix's stead, up to the prefix's end.

    Returns:
        The states of every row.

    Raises:
        StorageError: There is no room on the disk for them.
    """
    cache = PrefixCache(prefix, {})
    total = sum(len(prepared.splits[split].lengths) for split in splits)
    with track("frozen layers, run once", total) as advance:
        for split in splits:
            reader = readers.get(split)
            if reader is None:
                cache.states[split] = _read_states(prefix, prepared, split, device, advance)
            else:
                cache.states[split] = _read_packed(reader, prepared, split, advance)
    return cache


def _read_states(
    prefix: Prefix, prepared: Prepared, split: str, device: torch.device, advance: Callable[[int], None]
) -> PrefixStates:
    """Run the prefix over one split."""
    lengths = prepared.splits[split].lengths.astype(np.int64)
    kept = np.ones_like(lengths) if prefix.first_only else lengths
    starts = np.concatenate([[0], np.cumsum(kept)])
    values: np.ndarray | None = None
    for rows, inputs in iterate_rows(prepared, split, device):
        hidden_RLD = prefix.encode(inputs).cpu()
        if values is None:
            values = allocate_states(int(starts[-1]), hidden_RLD.shape[2])
        width = int(inputs["input_ids"].shape[1])
        for number, row in enumerate(rows.tolist()):
            begin = width - int(kept[row]) if prepared.padding_side == "left" else 0
            own = hidden_RLD[number] if prefix.first_only else hidden_RLD[number, begin : begin + int(kept[row])]
            values[starts[row] : starts[row + 1]] = own.numpy()
        advance(len(rows))
    assert values is not None, "a split holds at least one row"
    return PrefixStates(values, starts)


def _read_packed(reader: FrozenReader, prepared: Prepared, split: str, advance: Callable[[int], None]) -> PrefixStates:
    """Read one split without padding."""
    lengths = prepared.splits[split].lengths.astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(np.ones_like(lengths) if reader.first_only else lengths)])
    values: np.ndarray | None = None
    for states in reader.read(prepared, split):
        found = states.layers[reader.last]
        if values is None:
            values = allocate_states(int(starts[-1]), found.shape[1])
        places = starts[states.rows]
        if not reader.first_only:
            packed = states.packed
            places = np.repeat(places - packed.starts, packed.lengths) + np.arange(len(packed.tokens))
        values[places] = found[: len(places)].float().numpy()
        advance(len(states.rows))
    assert values is not None, "a split holds at least one row"
    return PrefixStates(values, starts)
