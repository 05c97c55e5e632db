"""A forward pass over the real tokens of ragged rows, without padding, and only as far as the head reads."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention
from transformers.activations import GELUActivation

from nlp_transfer.models.blocks import Block, Stack

__all__ = ["PackedEncoder", "PackedModel", "PackedRows", "has_fused_linear", "keep_memory"]


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
many short rows; measured. Longer ones go where this processor is faster, see `is_plain_faster`."""

LONG_STEP = 32
"""Longer rows are read as if they had a multiple of so many tokens: kernels are compiled for each length. Chosen."""

MOST_SCORE = 60.0
"""Largest attention score whose power of e is safely finite, and whose row's sum is not 0, without a shift; chosen."""

LARGEST_KEPT = 31 << 20
"""Bytes, less than the 32 MB that glibc's mallopt(3) names as the most for M_MMAP_THRESHOLD to grow by itself."""


class PackedEncoder:
    """An encoder's pieces, run over packed rows in one number format.

    Linear layers see nothing but real tokens. Attention takes the rows of one length at a time.

    Args:
        stack: From `find_stack`; weights are copied where the format is another, and those of queries, keys and values
            are joined.
        dtype: Format of the layers.
        num_layers: How many of them run, from the bottom.
        first_only: Whether the last of these is run for the first token of each row alone, but for keys and values.
    """

    def __init__(self, stack: Stack, dtype: torch.dtype, num_layers: int, *, first_only: bool) -> None:
        self.stack, self.dtype = stack, dtype
        keep_memory()
        run = stack.blocks[:num_layers]
        whole = run[:-1] if first_only else run
        # ALBERT's layers share their weights, so they share what is made of them.
        shared = {id(block.up): block for block in whole}
        layers = {key: _Layer(block, stack.num_heads, dtype) for key, block in shared.items()}
        self._layers = [layers[id(block.up)] for block in whole]
        self._last = _Layer(run[-1], stack.num_heads, dtype, is_last=True) if first_only and run else None

    def run(self, rows: PackedRows) -> Iterator[Tensor]:
        """Run the encoder, layer by layer.

        Args:
            rows: What to read.

        Yields:
            The embeddings, float32, shape (T, D); then the states behind each layer, in its format, with rows of no
            meaning behind the T; behind the last one shape (R, D) where that was asked for.
        """
        places = torch.from_numpy(rows.count_places(self.stack.padding_id))
        embedded_TD = self.stack.embed(torch.from_numpy(rows.tokens), torch.from_numpy(rows.types), places)
        yield embedded_TD
        num_tokens = len(rows.tokens)
        if self.dtype == torch.float32:
            states_TD = embedded_TD
        else:
            size = -(-num_tokens // STEP_TOKENS) * STEP_TOKENS
            states_TD = embedded_TD.new_zeros(size, embedded_TD.shape[1], dtype=self.dtype)
            states_TD[:num_tokens] = embedded_TD
        runs, starts_R = rows.list_runs(), torch.from_numpy(rows.starts)
        for layer in self._layers:
            states_TD = layer.run(states_TD, runs)
            yield states_TD
        if self._last is not None:
            yield self._last.run_first(states_TD, runs, starts_R)


class PackedModel:
    """A classifier's pieces, run over packed rows in one number format; the head always in its own.

    Of the last layer only keys and values are computed for every token, the rest for the first one, which is all that
    the head reads.

    Args:
        stack: From `find_stack`, of a classifier.
        dtype: Format of the layers.
    """

    def __init__(self, stack: Stack, dtype: torch.dtype) -> None:
        self.stack, self.dtype = stack, dtype
        self._encoder = PackedEncoder(stack, dtype, len(stack.blocks), first_only=True)

    def __call__(self, rows: PackedRows) -> Tensor:
        """Run the model.

        Args:
            rows: What to read.

        Returns:
            Float32 logits, shape (R, C).
        """
        states = self._encoder.run(rows)
        found = embedded_TD = next(states)
        for found in states:  # noqa: B007 - the last one is read
            pass
        return self.stack.head(found.to(embedded_TD.dtype)[:, None]).float()


def _attend(qkv_3RHLW: Tensor) -> Tensor:
    """Attend within each row; shape (R, H, L, W). Queries are scaled already."""
    if qkv_3RHLW.shape[3] > SHORT_LENGTH or qkv_3RHLW.dtype == torch.float32:
        return _fuse_attention(qkv_3RHLW)
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


def _fuse_attention(qkv_3RHLW: Tensor) -> Tensor:
    """Attend through torch's own kernel."""
    query, key, value = qkv_3RHLW.unbind(0)
    return scaled_dot_product_attention(query, key, value, scale=1.0)


def attend_long(qkv_TE: Tensor, start: int, count: int, length: int, num_heads: int) -> Tensor:
    """Attend within rows of one length, read together with some of the tokens behind them, whose weight is 0.

    Args:
        qkv_TE: Queries, scaled, keys and values of all tokens side by side, contiguous, shape (T, 3 * D).
        start: Where the first row begins.
        count: Rows, R.
        length: Tokens of each, L.
        num_heads: H.

    Returns:
        Shape (R, H, L, D / H).
    """
    total, width = qkv_TE.shape[0], qkv_TE.shape[1] // 3
    wide = -(-length // LONG_STEP) * LONG_STEP
    if start + (count - 1) * length + wide > total:
        wide = length
    size, step = width // num_heads, 3 * width
    shape, strides = (3, count, num_heads, wide, size), (width, length * step, size, step, 1)
    query, key, value = qkv_TE.as_strided(shape, strides, start * step).flatten(1, 2).unbind(0)
    scores = torch.bmm(query, key.transpose(1, 2))
    low, high = scores[:, :length, :length].aminmax()
    if max(-float(low), float(high)) < MOST_SCORE:
        powers = scores.exp_()
        powers[:, :, length:] = 0.0
        found = torch.bmm(powers, value).div_(powers.sum(-1, keepdim=True))
    else:
        scores[:, :, length:] = float("-inf")
        found = torch.bmm(torch.softmax(scores, -1), value)
    return found.view(count, num_heads, wide, size)[:, :, :length]


@functools.cache
def is_plain_faster() -> bool:
    """Try whether attention of long rows in bf16 is faster through plain products than through torch's fused kernel.

    Where matrices are multiplied by units of their own, the fused one is; elsewhere it takes up to three times as long.
    """
    qkv_TE = torch.zeros(512, 3 * 384, dtype=torch.bfloat16)
    plain = functools.partial(attend_long, qkv_TE, 0, 2, 256, 12)
    fused = functools.partial(_fuse_attention, qkv_TE.view(2, 256, 3, 12, 32).permute(2, 0, 3, 1, 4))
    times = []
    with torch.inference_mode():
        for way in (plain, fused):
            way()
            tries = []
            for _ in range(3):
                began = time.perf_counter()
                way()
                tries.append(time.perf_counter() - began)
            times.append(min(tries))
    return times[0] < times[1]


class _Layer:
    """One layer in one format; the last one keeps queries apart from keys and values."""

    def __init__(self, block: Block, num_heads: int, dtype: torch.dtype, *, is_last: bool = False) -> None:
        self.num_heads, self.width, self.activation = num_heads, block.query.out_features, block.activation
        made = (block.query, block.key, block.value)
        # Queries are scaled once, here.
        scales = ((self.width / num_heads) ** -0.5, 1.0, 1.0)
        scaled = [(each.weight * scale, each.bias * scale) for each, scale in zip(made, scales, strict=True)]
        weight, bias = (torch.cat(parts) for parts in zip(*scaled, strict=True))
        ends = (0, self.width, 3 * self.width) if is_last else (0, 3 * self.width)
        self.made = [_Linear(weight[start:end], bias[start:end], dtype) for start, end in pairwise(ends)]
        self.out, self.up, self.down = (
            _Linear(each.weight, each.bias, dtype) for each in (block.out, block.up, block.down)
        )
        self.norm, self.last_norm = (_Norm(each, dtype) for each in (block.norm, block.last_norm))

    def run(self, states_TD: Tensor, runs: list[tuple[int, int, int]]) -> Tensor:
        """Run the layer for every token."""
        (make_all,) = self.made
        qkv_TE = make_all(states_TD)
        found_TD = torch.zeros_like(states_TD)
        for start, count, length in runs:
            own = slice(start, start + count * length)
            if length > SHORT_LENGTH and qkv_TE.dtype == torch.bfloat16 and is_plain_faster():
                attended = attend_long(qkv_TE, start, count, length, self.num_heads)
            else:
                attended = _attend(self._split(qkv_TE[own], count, length))
            found_TD[own].view(count, length, self.num_heads, -1).copy_(attended.transpose(1, 2))
        return self._finish(found_TD, states_TD)

    def run_first(self, states_TD: Tensor, runs: list[tuple[int, int, int]], starts_R: Tensor) -> Tensor:
        """Run the layer for the first token of each row."""
        make_query, make_rest = self.made
        first_RD = states_TD[starts_R]
        query_RD, kv_TE = make_query(first_RD), make_rest(states_TD)
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
        return states.view(count, length, states.shape[1] // self.width, self.num_heads, -1).permute(2, 0, 3, 1, 4)

    def _finish(self, found: Tensor, states: Tensor) -> Tensor:
        """All that follows the attention, where every token goes its own way."""
        states = self.norm(self.out.add(found, states))
        return self.last_norm(self.down.add(self.up.activate(states, self.activation), states))


class _Linear:
    """A linear layer in one format, with what follows it where one kernel can do both."""

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        self.weight, self.bias = _convert(weight, dtype), _convert(bias, dtype)
        self.is_fused = dtype == torch.bfloat16 and has_fused_linear()
        if self.is_fused:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, PACKED_TOKENS)

    def __call__(self, states: Tensor) -> Tensor:
        return self._fuse(states, "none") if self.is_fused else linear(states, self.weight, self.bias)

    def activate(self, states: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        """Let an activation follow."""
        is_gelu = isinstance(activation, GELUActivation) and activation.act is gelu
        return self._fuse(states, "gelu") if self.is_fused and is_gelu else activation(self(states))

    def add(self, states: Tensor, other: Tensor) -> Tensor:
        """Add what came in further below."""
        if self.is_fused:
            added: Tensor = torch.ops.mkldnn._linear_pointwise.binary(states, other, self.weight, self.bias, "add")
            return added
        return self(states).add_(other)

    def _fuse(self, states: Tensor, name: str) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(states, self.weight, self.bias, name, [], "none")
        return found


@functools.cache
def has_fused_linear() -> bool:
    """Say whether torch has, for bf16 on this CPU, the kernels of its own compiler for a linear layer and what follows.

    They are no part of torch's public interface, so they are tried out and compared before they are relied on.

    Returns:
        True where they are there and right.
    """
    with torch.inference_mode(), contextlib.suppress(RuntimeError, AttributeError, TypeError):
        weight = torch.linspace(-1, 1, 64 * 32).sin().view(64, 32).bfloat16()
        states, bias = weight[:48].clone(), weight[:, 0].clone()
        ops, packed = torch.ops.mkldnn, torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_TOKENS)
        plain = linear(states.float(), weight.float(), bias.float())
        pairs = (
            (ops._linear_pointwise(states, packed, bias, "none", [], "none"), plain),
            (ops._linear_pointwise(states, packed, bias, "gelu", [], "none"), gelu(plain)),
            (ops._linear_pointwise.binary(states, plain.bfloat16(), packed, bias, "add"), plain + plain),
        )
        return all(torch.allclose(found.float(), expected, rtol=0.02, atol=0.02) for found, expected in pairs)
    return False


class _Norm:
    """A layer norm in one format."""

    def __init__(self, module: nn.LayerNorm, dtype: torch.dtype) -> None:
        self.shape, self.eps = module.normalized_shape, module.eps
        self.weight, self.bias = _convert(module.weight, dtype), _convert(module.bias, dtype)

    def __call__(self, states: Tensor) -> Tensor:
        return layer_norm(states, self.shape, self.weight, self.bias, self.eps)


@functools.cache
def keep_memory() -> None:
    """Let the C library keep what a pass frees for the next one, rather than fetch it page by page from the system.

    glibc raises the size from which it does that to the largest piece that was freed, up to 32 MB: a piece of nearly
    that size, which nobody touches, is enough. Elsewhere it does nothing.
    """
    torch.empty(LARGEST_KEPT, dtype=torch.uint8)


def _convert(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight without its history, in a format."""
    return weight.detach().to(dtype)
