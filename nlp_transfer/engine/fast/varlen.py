"""Attention over rows that lie one behind the other, without padding between them."""

import inspect
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

__all__ = ["HALVES", "KERNEL", "PACKED", "attend_rows", "watch_calls"]

PACKED = "nlp_transfer_packed"
"""What the function is called among those of transformers."""

HALVES = (torch.bfloat16, torch.float16)
"""Number formats that the kernel takes."""

_rates: list[float] | None = None
"""Where the dropout rates of packed calls are written down; None where nobody watches."""


@contextmanager
def watch_calls() -> Iterator[list[float]]:
    """Write down the attention dropout rate of every call on packed rows, one number a call.

    Which families ask transformers for their attention is found out so, and not from a list that grows stale.
    """
    global _rates
    before, _rates = _rates, []
    try:
        yield _rates
    finally:
        _rates = before


def _find_kernel() -> Callable[..., Any] | None:
    """Find torch's kernel; None where this torch has none that takes a scale and a window."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if {"scale", "window_size"} <= set(inspect.signature(varlen_attn).parameters) else None


KERNEL = _find_kernel()
"""Torch's attention without padding, forth and back, for GPUs; None where it has none."""


def attend_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    longest: int,
    *,
    scale: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Attend inside each of several rows that lie one behind the other.

    On a GPU, in bf16 or fp16, torch's kernel does all rows at once. Elsewhere each row is a call of its own: slow, and
    what the kernel is held against.

    Args:
        query: Shape (T, H, D).
        key: Shape (T, H, D).
        value: Shape (T, H, D).
        starts: Where each row begins, and where the last one ends, int32, shape (R + 1,).
        longest: At least as many tokens as the longest row has.
        scale: Factor on the products of queries and keys; one over the root of D where absent.
        window: Tokens further away than this are not looked at; all are where absent.

    Returns:
        Shape (T, H, D).

    Example:
        >>> states = torch.randn(5, 1, 4)
        >>> out = attend_rows(states, states, states, torch.tensor([0, 3, 5], dtype=torch.int32), 3)
        >>> alone = attend_rows(states[3:], states[3:], states[3:], torch.tensor([0, 2], dtype=torch.int32), 2)
        >>> torch.allclose(out[3:], alone)
        True
    """
    if KERNEL is not None and query.is_cuda and query.dtype in HALVES:
        size = (-1, -1) if window is None else (window, window)
        out: Tensor = KERNEL(query, key, value, starts, starts, longest, longest, scale=scale, window_size=size)
        return out
    alone: Tensor = _attend_each(query, key, value, starts, scale, window)
    return alone


# It reads how long the rows are, which the compiler cannot do.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend_each(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, scale: float | None, window: int | None
) -> Tensor:
    """The same, row by row."""
    heads_first = [each.transpose(0, 1)[None] for each in (query, key, value)]
    parts = []
    for start, end in itertools.pairwise(starts.tolist()):
        if start == end:
            continue
        own_query, own_key, own_value = (each[:, :, start:end] for each in heads_first)
        places = torch.arange(end - start, device=query.device)
        near = None if window is None else (places[:, None] - places).abs() <= window
        out = scaled_dot_product_attention(own_query, own_key, own_value, attn_mask=near, scale=scale)
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts)


def _forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """What transformers calls: packed rows where a layer was told of them, torch's own way otherwise.

    Dropout of attention weights is left out for packed rows, as the kernel has none.
    """
    starts = rest.get("cu_seq_lens_q")
    if starts is None:
        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest
        )
        return out, None
    if _rates is not None:
        _rates.append(dropout)
    # What flash attention is told counts the token itself; see the attention of ModernBERT.
    window = None if sliding_window is None else sliding_window - 1
    tokens_first = [each[0].transpose(0, 1) for each in (query, key, value)]
    own_query, own_key, own_value = tokens_first
    longest: int = rest["max_length_q"]
    return attend_rows(own_query, own_key, own_value, starts, longest, scale=scaling, window=window)[None], None


def _make_mask(**given: Any) -> Tensor | None:
    """What transformers asks for a mask: none for packed rows, whose shape is not that of the padded mask.

    Where rows are padded, transformers looks whether they all are full, and does without a mask then. On a GPU that
    look makes the host wait for it once a pass, and batches of full rows are rare: there is always a mask.
    """
    padded, length = given.get("attention_mask"), given.get("q_length")
    # Its early fifth releases gave positions in place of a length.
    length = len(given["cache_position"]) if length is None else length
    if padded is not None and tuple(padded.shape) != (given["batch_size"], length):
        return None
    if padded is not None and padded.is_cuda:
        given["allow_is_bidirectional_skip"] = False
    mask: Tensor | None = sdpa_mask(**given)
    return mask


AttentionInterface.register(PACKED, _forward)
AttentionMaskInterface.register(PACKED, _make_mask)
