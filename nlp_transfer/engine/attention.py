"""Attention with dropout for training on a CPU, a few texts at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from nlp_transfer.engine.attend import Attended, attend, attend_backward, hide
from nlp_transfer.engine.dropout import FORMATS, find_threshold

__all__ = ["Attention", "attend_in_parts"]

NAME = "nlp_transfer_parts"
"""What the function is called among those of transformers."""


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


class Attention(torch.autograd.Function):
    """``attend``, as autograd takes it."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, threshold: int, scale: float
    ) -> Tensor:
        """Attend; arguments as for ``attend``, contiguous or not."""
        out, held = attend(query.contiguous(), key.contiguous(), value.contiguous(), bias, threshold, scale)
        ctx.save_for_backward(out, *held[:4], *held.weights, *held.masks)
        ctx.num_parts, ctx.threshold, ctx.scale = len(held.weights), threshold, scale
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Go back."""
        out, query, key, value, sums, *parts = ctx.saved_tensors
        held = Attended(query, key, value, sums, parts[: ctx.num_parts], parts[ctx.num_parts :])
        products = (gradient * out).sum(dim=-1, keepdim=True, dtype=sums.dtype)
        found = attend_backward(held, gradient.contiguous(), products, ctx.threshold, ctx.scale)
        return (*found, None, None, None)


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
        and query.dtype in FORMATS
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
    if attention_mask is not None and not attention_mask.stride(2):
        attention_mask = attention_mask[:, :, :1]  # one row for all queries
    bias = None if attention_mask is None else hide(attention_mask, query.dtype)
    found: Tensor = Attention.apply(query, key, value, bias, find_threshold(dropout), scale)
    return found.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _forward)
AttentionMaskInterface.register(NAME, sdpa_mask)
