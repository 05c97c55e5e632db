"""Hidden states of a frozen encoder over a split, without padding, in bf16."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nlp_transfer.contracts import Prepared
from nlp_transfer.data.batches import TokenStore, plan_packed
from nlp_transfer.engine.predict.packed import PACKED_TOKENS, PackedEncoder, PackedRows
from nlp_transfer.models.blocks import Stack, find_stack

__all__ = ["FrozenReader", "States", "fetch_rows", "find_reader"]

LEAST_ROWS = 256
"""Rows from which bf16 is worth its copy of the weights; chosen."""


@dataclass(frozen=True)
class States:
    """States of some rows of a split.

    Attributes:
        rows: Their numbers, int64, shape (R,).
        packed: What was read.
        layers: Position among the hidden states, 0 for the embeddings, to states of shape (T, D), or (R, D) for the
            last one where only the first token of each row was wanted.
    """

    rows: np.ndarray
    packed: PackedRows
    layers: dict[int, Tensor]

    def find_runs(self, layer: int) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Give rows of one length at a time.

        Args:
            layer: One of ``layers``, of all tokens.

        Yields:
            Numbers of rows, shape (n,), and their states, float32, shape (n, L, D).
        """
        done, states_TD = 0, self.layers[layer]
        for start, count, length in self.packed.list_runs():
            own = states_TD[start : start + count * length].float()
            yield self.rows[done : done + count], own.view(count, length, -1)
            done += count


class FrozenReader:
    """Reads a split with the lower layers of an encoder.

    Args:
        stack: Its pieces.
        layers: Positions among the hidden states that are wanted.
        first_only: Whether the last of these is wanted for the first token of each row alone.
    """

    def __init__(self, stack: Stack, layers: Sequence[int], *, first_only: bool) -> None:
        self._stack, self._wanted, self.last = stack, set(layers), max(layers)
        self.first_only = first_only and self.last > 0

    def narrow(self, layers: Sequence[int]) -> "FrozenReader":
        """Want some of the layers only, of all tokens."""
        return FrozenReader(self._stack, layers, first_only=False)

    @torch.inference_mode()
    def read(self, prepared: Prepared, split: str) -> Iterator[States]:
        """Read every row of a split once, the longest first."""
        encoded = prepared.splits[split]
        encoder = PackedEncoder(self._stack, torch.bfloat16, self.last, first_only=self.first_only)
        store, lengths = TokenStore(encoded.rows), encoded.lengths.astype(np.int64)
        for rows in plan_packed(lengths, batch_size=len(lengths), max_tokens=PACKED_TOKENS):
            packed = fetch_rows(store, rows)
            found = {n: states for n, states in enumerate(encoder.run(packed)) if n in self._wanted}
            yield States(rows, packed, found)


def find_reader(
    model: nn.Module, prepared: Prepared, split: str, layers: Sequence[int], *, first_only: bool = False
) -> FrozenReader | None:
    """Find a way to read a split in bf16.

    Args:
        model: A classifier or an encoder that does not move meanwhile.
        prepared: Tokenized splits.
        split: Which one.
        layers: Positions among the hidden states that are wanted, 0 for the embeddings.
        first_only: Whether the last of these is wanted for the first token of each row alone.

    Returns:
        None where the model must be run as it is: on another device, of another build, with padding on the left, or
        for few rows.
    """
    few = len(prepared.splits[split].lengths) < LEAST_ROWS
    if few or prepared.padding_side == "left" or next(model.parameters()).device.type != "cpu":
        return None
    stack = find_stack(model)
    return None if stack is None else FrozenReader(stack, layers, first_only=first_only)


def fetch_rows(store: TokenStore, rows: np.ndarray) -> PackedRows:
    """Put stored rows behind each other.

    Args:
        store: Their tokens.
        rows: Numbers, longest first, int64, shape (R,).

    Returns:
        Tokens without padding.
    """
    tokens, lengths = store.gather("input_ids", rows)
    if "token_type_ids" in store.columns:
        types = store.gather("token_type_ids", rows)[0].astype(np.int64)
    else:
        types = np.zeros(len(tokens), dtype=np.int64)
    return PackedRows(tokens.astype(np.int64), types, lengths)
