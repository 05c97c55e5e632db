"""Attention with dropout for training on a CPU, a few texts at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from nlp_transfer.engine.dropout import STEPS, draw_kept, find_threshold

__all__ = ["attend", "attend_in_parts"]

NAME = "nlp_transfer_parts"
"""What the function is called among those of transformers."""

SCORES_PER_PART = 1_500_000
"""Attention weights that are worked on at once: few enough to stay in a processor's cache; measured, see RESULTS.md."""


@contextmanager
def attend_in_parts(model: nn.Module) -> Iterator[None]:
    """Let a model that calls torch's fused attention compute it here while dropout is on.

    Torch's own has no fused way with dropout on a CPU: it takes all texts at once, and a random number for each
    attention weight. Without dropout, on other devices and for families that do not ask transformers for their
    attention, nothing is changed.

    Args:
        model: Its configuration names another implementation meanwhile.
    """
    changed = [
        each
        for each in model.modules()
        if isinstance(each, PreTrainedModel) and each.config._attn_implementation == "sdpa"
    ]
    configs = {id(each.config): each.config for each in changed}.values()
    for config in configs:
        config._attn_implementation = NAME
    try:
        yield
    finally:
        for config in configs:
            config._attn_implementation = "sdpa"


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rate: float, scale: float) -> Tensor:
    """Attend with dropout on the attention weights.

    Args:
        query: Shape (B, H, L, D).
        key: Shape (B, H, M, D).
        value: Shape (B, H, M, D).
        mask: Boolean, true where a query may look, broadcast to (B, 1, L, M); None where all may look at all.
        rate: Share of attention weights that are set to zero.
        scale: Factor on the products of queries and keys.

    Returns:
        Shape (B, H, L, D).

    Example:
        >>> states = torch.randn(2, 1, 3, 4)
        >>> expected = nn.functional.scaled_dot_product_attention(states, states, states)
        >>> torch.allclose(attend(states, states, states, None, 0.0, 0.5), expected, atol=1e-6)
        True
    """
    hidden = None if mask is None else ~mask
    out: Tensor = _Attention.apply(query, key, value, hidden, find_threshold(rate), scale)
    return out


class _Attention(torch.autograd.Function):
    """Softmax attention, forth and back, over parts of the batch.

    One matrix of weights a part is kept for the way back: the sign of a weight says whether it was dropped.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None, threshold: int, scale: float
    ) -> Tensor:
        """Attend, part by part."""
        num_texts, num_heads, length, _ = query.shape
        size = max(1, SCORES_PER_PART // (num_heads * length * key.shape[2]))
        out = torch.empty_like(query)
        kept_share = 1 - threshold / STEPS
        signed = []
        for start in range(0, num_texts, size):
            part = slice(start, start + size)
            weights = torch.matmul(query[part] * scale, key[part].transpose(2, 3))
            if hidden is not None:
                weights.masked_fill_(hidden[part] if len(hidden) > 1 else hidden, torch.finfo(weights.dtype).min)
            weights = torch.softmax(weights, dim=-1)
            if threshold:
                # 1 where a weight is kept, -1 where it is dropped.
                weights.mul_(draw_kept(weights.shape, threshold, weights.dtype).mul_(2).sub_(1))
            torch.matmul(weights.clamp_min(0), value[part], out=out[part])
            signed.append(weights)
        out.div_(kept_share)
        ctx.save_for_backward(query, key, value, out, *signed)
        ctx.size, ctx.scale, ctx.kept_share = size, scale, kept_share
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Go back, part by part."""
        query, key, value, out, *signed = ctx.saved_tensors
        to_query, to_key, to_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        # The sum over keys of a weight times its gradient, without a pass over all weights (Dao et al. 2022).
        sums = (gradient * out).sum(dim=-1, keepdim=True)
        gradient = gradient / ctx.kept_share
        for number, weights in enumerate(signed):
            part = slice(number * ctx.size, (number + 1) * ctx.size)
            kept = weights.clamp_min(0)
            torch.matmul(kept.transpose(2, 3), gradient[part], out=to_value[part])
            inner = torch.matmul(gradient[part], value[part].transpose(2, 3)).mul_(kept)
            inner.sub_(torch.mul(weights.abs(), sums[part])).mul_(ctx.scale)
            torch.matmul(inner, key[part], out=to_query[part])
            torch.matmul(inner.transpose(2, 3), query[part], out=to_key[part])
        return to_query, to_key, to_value, None, None, None


def _forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """What transformers calls: here while dropout is on and the case is plain, torch's own otherwise."""
    is_plain = (
        query.device.type == "cpu"
        and 0.0 < dropout < 1.0
        and query.shape[:2] == key.shape[:2]
        and (attention_mask is None or attention_mask.dtype == torch.bool)
        and not any(rest.get(name) is not None for name in ("position_bias", "cache", "softcap"))
        and not rest.get("is_causal", getattr(module, "is_causal", False))
    )
    if not is_plain:
        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest
        )
        return out, None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attend(query, key, value, attention_mask, dropout, scale).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _forward)
AttentionMaskInterface.register(NAME, sdpa_mask)
