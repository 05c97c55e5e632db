"""A forward pass over the real tokens of ragged rows, without padding, and only as far as the head reads."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, scaled_dot_product_attention

from nlp_transfer.models.blocks import Block, Stack

__all__ = ["PackedModel", "PackedRows"]


@dataclass(frozen=True)
class PackedRows:
    """Rows one behind the other; those of one length stand together.

    Attributes:
        tokens: Token ids, int64, shape (T,).
        types: Type ids, int64, shape (T,).
        lengths: Tokens of each row, int64, shape (R,), descending.
    """

    tokens: np.ndarray
    types: np.ndarray
    lengths: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """Where each row begins, int64, shape (R,)."""
        starts: np.ndarray = np.cumsum(self.lengths) - self.lengths
        return starts

    def count_places(self, padding_id: int | None) -> np.ndarray:
        """Number the tokens of each row as the encoder's embeddings do.

        Args:
            padding_id: As in `Stack`.

        Returns:
            Positions, int64, shape (T,).

        Example:
            >>> rows = PackedRows(np.array([5, 6, 1, 7, 8]), np.zeros(5, dtype=np.int64), np.array([3, 2]))
            >>> rows.count_places(None).tolist(), rows.count_places(1).tolist()
            ([0, 1, 2, 0, 1], [2, 3, 1, 2, 3])
        """
        places: np.ndarray
        if padding_id is None:
            places = np.arange(len(self.tokens)) - np.repeat(self.starts, self.lengths)
            return places
        # A text may spell the padding token out: it has the padding's position and moves those behind it up.
        is_real = self.tokens != padding_id
        counts = np.cumsum(is_real)
        before = counts[self.starts] - is_real[self.starts]
        places = (counts - np.repeat(before, self.lengths)) * is_real + padding_id
        return places

    def list_runs(self) -> list[tuple[int, int, int]]:
        """List rows of one length: where they begin, how many they are, and their length."""
        lengths, firsts, counts = np.unique(-self.lengths, return_index=True, return_counts=True)
        starts = self.starts[firsts]
        return list(zip(starts.tolist(), counts.tolist(), (-lengths).tolist(), strict=True))


PACKED_TOKENS = 2_048
"""Most tokens in one pass: enough that the passes' own cost is small, few enough for a processor's cache; measured."""

STEP_TOKENS = 256
"""In other formats than float32, tokens come in multiples of this: kernels are compiled for each count. Chosen."""

SHORT_LENGTH = 64
"""Tokens of a row up to which attention in bf16 goes through plain products, for which torch's fused one is slow with
many short rows; measured."""

MOST_SCORE = 60.0
"""Largest attention score whose power of e is safely finite, and whose row's sum is not 0, without a shift; chosen."""


class PackedModel:
    """A classifier's pieces, run over packed rows in one number format; the head always in its own.

    Linear layers see nothing but real tokens. Attention takes the rows of one length at a time. Of the last layer only
    keys and values are computed for every token, the rest for the first one, which is all that the head reads.

    Args:
        stack: From `find_stack`; weights are copied where the format is another, and those of queries, keys and values
            are joined.
        dtype: Format of the layers.
    """

    def __init__(self, stack: Stack, dtype: torch.dtype) -> None:
        self.stack, self.dtype = stack, dtype
        joined: dict[int, _Weights] = {}
        self._blocks = [
            joined.setdefault(id(block.up), _Weights(block, stack.num_heads, dtype)) for block in stack.blocks
        ]

    def __call__(self, rows: PackedRows) -> Tensor:
        """Run the model.

        Args:
            rows: What to read.

        Returns:
            Float32 logits, shape (R, C).
        """
        places = torch.from_numpy(rows.count_places(self.stack.padding_id))
        embedded_TD = self.stack.embed(torch.from_numpy(rows.tokens), torch.from_numpy(rows.types), places)
        num_tokens = len(rows.tokens)
        if self.dtype == torch.float32:
            states_TD = embedded_TD
        else:
            size = -(-num_tokens // STEP_TOKENS) * STEP_TOKENS
            states_TD = embedded_TD.new_zeros(size, embedded_TD.shape[1], dtype=self.dtype)
            states_TD[:num_tokens] = embedded_TD
        runs, starts_R = rows.list_runs(), torch.from_numpy(rows.starts)
        for block in self._blocks[:-1]:
            states_TD = block.run(states_TD, runs)
        first_RD = self._blocks[-1].run_first(states_TD, runs, starts_R)
        return self.stack.head(first_RD.to(embedded_TD.dtype)[:, None]).float()


def _attend(qkv_3RHLW: Tensor) -> Tensor:
    """Attend within each row; shape (R, H, L, W). Queries are scaled already."""
    if qkv_3RHLW.shape[3] > SHORT_LENGTH or qkv_3RHLW.dtype == torch.float32:
        query, key, value = qkv_3RHLW.unbind(0)
        return scaled_dot_product_attention(query, key, value, scale=1.0)
    query, key, value = qkv_3RHLW.flatten(1, 2).unbind(0)
    scores = torch.bmm(query, key.transpose(1, 2))
    low, high = scores.aminmax()
    if max(-float(low), float(high)) < MOST_SCORE:
        # A softmax over few numbers is slow in torch. Its shift by the largest one only guards against overflow.
        powers = scores.exp_()
        found = torch.bmm(powers, value).div_(powers.sum(-1, keepdim=True))
    else:
        found = torch.bmm(torch.softmax(scores, -1), value)
    return found.view(qkv_3RHLW.shape[1:])


class _Weights:
    """One layer's weights in one format."""

    def __init__(self, block: Block, num_heads: int, dtype: torch.dtype) -> None:
        self.num_heads, self.activation = num_heads, block.activation
        made = (block.query, block.key, block.value)
        # Queries are scaled once, here.
        scales = ((block.query.out_features / num_heads) ** -0.5, 1.0, 1.0)
        scaled = [(each.weight * scale, each.bias * scale) for each, scale in zip(made, scales, strict=True)]
        self.qkv, self.qkv_bias = (_convert(torch.cat(parts), dtype) for parts in zip(*scaled, strict=True))
        self.out, self.up, self.down = (_Linear(each, dtype) for each in (block.out, block.up, block.down))
        self.norm, self.last_norm = (_Norm(each, dtype) for each in (block.norm, block.last_norm))

    def run(self, states_TD: Tensor, runs: list[tuple[int, int, int]]) -> Tensor:
        """Run the layer for every token."""
        width = states_TD.shape[1]
        qkv_TE = linear(states_TD, self.qkv, self.qkv_bias)
        found_TD = torch.zeros_like(states_TD)
        for start, count, length in runs:
            own = slice(start, start + count * length)
            attended = _attend(self._split(qkv_TE[own], count, length))
            found_TD[own].view(count, length, width).copy_(attended.transpose(1, 2).flatten(2))
        return self._finish(found_TD, states_TD)

    def run_first(self, states_TD: Tensor, runs: list[tuple[int, int, int]], starts_R: Tensor) -> Tensor:
        """Run the layer for the first token of each row."""
        width = states_TD.shape[1]
        first_RD = states_TD[starts_R]
        query_RD = linear(first_RD, self.qkv[:width], self.qkv_bias[:width])
        kv_TE = linear(states_TD, self.qkv[width:], self.qkv_bias[width:])
        found_RD = torch.empty_like(first_RD)
        row = 0
        for start, count, length in runs:
            own = slice(start, start + count * length)
            key, value = self._split(kv_TE[own], count, length)
            (query,) = self._split(query_RD[row : row + count], count, 1)
            found_RD[row : row + count] = scaled_dot_product_attention(query, key, value, scale=1.0).flatten(1)
            row += count
        return self._finish(found_RD, first_RD)

    def _split(self, states: Tensor, count: int, length: int) -> Tensor:
        """Views of shape (rows, heads, length, width of a head) of what was joined."""
        num_parts = states.shape[1] // self.out.weight.shape[1]
        return states.view(count, length, num_parts, self.num_heads, -1).permute(2, 0, 3, 1, 4)

    def _finish(self, found: Tensor, states: Tensor) -> Tensor:
        """All that follows the attention, where every token goes its own way."""
        states = self.norm(self.out(found).add_(states))
        return self.last_norm(self.down(self.activation(self.up(states))).add_(states))


class _Linear:
    """A linear layer in one format."""

    def __init__(self, module: nn.Linear, dtype: torch.dtype) -> None:
        self.weight = _convert(module.weight, dtype)
        self.bias = None if module.bias is None else _convert(module.bias, dtype)

    def __call__(self, states: Tensor) -> Tensor:
        return linear(states, self.weight, self.bias)


class _Norm:
    """A layer norm in one format."""

    def __init__(self, module: nn.LayerNorm, dtype: torch.dtype) -> None:
        self.shape, self.eps = module.normalized_shape, module.eps
        self.weight, self.bias = _convert(module.weight, dtype), _convert(module.bias, dtype)

    def __call__(self, states: Tensor) -> Tensor:
        return layer_norm(states, self.shape, self.weight, self.bias, self.eps)


def _convert(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight without its history, in a format."""
    return weight.detach().to(dtype)
