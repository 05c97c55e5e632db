"""Attention with dropout for training on a CPU, a few texts at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from nlp_transfer.engine.fast.dropout import FORMATS, STEPS, draw_mask, find_threshold, keep_where

__all__ = ["Attended", "Attention", "attend", "attend_backward", "attend_in_parts", "hide"]

SCORES_PER_PART = 400_000
"""Attention weights that are worked on at once: few enough to stay in one processor's own cache; measured, see
RESULTS.md."""

SAFE_PEAK = 60.0
"""Attention scores up to this are raised without subtracting their largest: float32 and bf16 hold e to the 88th."""

SAFE_SUM = 1e-30
"""Sums of raised scores from this on divide without loss."""


class Attended(NamedTuple):
    """What the way back of an attention needs; B texts, H heads, Q queries, L keys, D a head's width.

    Attributes:
        query: Shape (B, H, Q, D).
        key: Shape (B, H, L, D).
        value: Shape (B, H, L, D).
        sums: Sums of the raised scores over keys, float32, shape (B * H, Q, 1).
        weights: Raised scores, part by part, shape (n, Q, L).
        masks: What ``draw_mask`` gave for them, likewise; empty without dropout.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    sums: Tensor
    weights: Sequence[Tensor]
    masks: Sequence[Tensor]


def hide(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a mask into what is added to scores.

    Args:
        mask: Boolean, true where a query may look.
        dtype: Number format of the scores.

    Returns:
        0 where a query may look, the lowest number elsewhere.

    Example:
        >>> hide(torch.tensor([True, False]), torch.float32).tolist()[0]
        0.0
    """
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, threshold: int, scale: float
) -> tuple[Tensor, Attended]:
    """Attend with dropout on the attention weights, a few texts or heads at a time.

    Weights are not normalized: what they give is divided by their sum, which is a smaller tensor.

    Args:
        query: Contiguous, shape (B, H, Q, D).
        key: Contiguous, shape (B, H, L, D).
        value: Contiguous, shape (B, H, L, D).
        bias: What ``hide`` gives, shape (B or 1, 1, Q or 1, L). None where all may look at all.
        threshold: Of dropout, as ``find_threshold`` gives it.
        scale: Factor on the products of queries and keys.

    Returns:
        Shape (B, H, Q, D), and what the way back needs.

    Example:
        >>> states = torch.randn(2, 1, 3, 4)
        >>> out, _ = attend(states, states, states, None, 0, 0.5)
        >>> torch.allclose(out, torch.nn.functional.scaled_dot_product_attention(states, states, states), atol=1e-6)
        True
    """
    out = torch.empty_like(query)
    flat_query, flat_key, flat_value, flat_out = (each.flatten(0, 1) for each in (query, key, value, out))
    sums = query.new_empty((*flat_query.shape[:2], 1), dtype=_widen(query.dtype))
    weights, masks = [], []
    for part, texts in _cut(query, key):
        hidden = None if bias is None else bias if len(bias) == 1 else bias[texts]
        own, sums[part] = _raise(flat_query[part], flat_key[part], hidden, scale)
        weights.append(own)
        if threshold:
            masks.append(draw_mask(own.shape, threshold, own.dtype))
            own = keep_where(own, masks[-1])
        torch.bmm(own, flat_value[part], out=flat_out[part])
    flat_out.div_(sums.mul(1 - threshold / STEPS).to(out.dtype))
    return out, Attended(query, key, value, sums, weights, masks)


def _cut(query: Tensor, key: Tensor) -> Iterator[tuple[slice, slice]]:
    """Parts of texts and heads taken together, and the texts they are of: whole texts, or heads of one."""
    num_texts, num_heads = query.shape[:2]
    size = max(1, SCORES_PER_PART // (query.shape[2] * key.shape[2]))
    if size >= num_heads:
        size -= size % num_heads
    else:
        size = max(each for each in range(1, size + 1) if num_heads % each == 0)
    for start in range(0, num_texts * num_heads, size):
        end = min(start + size, num_texts * num_heads)
        yield slice(start, end), slice(start // num_heads, (end - 1) // num_heads + 1)


def _raise(query: Tensor, key: Tensor, bias: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Raise e to the scores; their sums over keys beside them.

    Softmax subtracts each row's largest score first, which takes several times as long as all the rest for short
    rows. It is needed only where a score is large or a whole row is very small, which is looked at.
    """
    scores = _score(query, key, bias, scale)
    if float(scores.max()) < SAFE_PEAK:
        scores.exp_()
        # Summed in float32, and rounded: asked for float32 sums, torch would copy all scores to it first.
        sums = scores.sum(dim=-1, keepdim=True)
        if float(sums.min()) > SAFE_SUM:
            return scores, sums.to(_widen(scores.dtype))
        scores = _score(query, key, bias, scale)
    weights = torch.softmax(scores, dim=-1)
    return weights, torch.ones((*weights.shape[:2], 1), dtype=_widen(weights.dtype))


def _widen(dtype: torch.dtype) -> torch.dtype:
    """The number format of sums."""
    return torch.promote_types(dtype, torch.float32)


def _score(query: Tensor, key: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """Scores of queries and keys."""
    scores = torch.bmm(query, key.transpose(1, 2)).mul_(scale)
    if bias is not None:
        scores.view(len(bias), -1, *scores.shape[1:]).add_(bias)
    return scores


def attend_backward(
    held: Attended, gradient: Tensor, products: Tensor, threshold: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Go back through ``attend``.

    Args:
        held: What it gave.
        gradient: By its result, contiguous, shape (B, H, Q, D).
        products: Sums of gradient times result over D, shape (B, H, Q, 1): what the gradient of a weight is measured
            against, without a pass over all weights (Dao et al. 2022, https://arxiv.org/abs/2205.14135, appendix B).
        threshold: As it was given.
        scale: As it was given.

    Returns:
        Gradients by query, key and value.
    """
    sums, found = held.sums, [torch.empty_like(each) for each in held[:3]]
    query, key, value, gradient, to_query, to_key, to_value = (
        each.flatten(0, 1) for each in (*held[:3], gradient, *found)
    )
    products = (products.flatten(0, 1) / sums).to(gradient.dtype)
    gradient = gradient / sums.mul(1 - threshold / STEPS).to(gradient.dtype)
    for number, (part, _) in enumerate(_cut(held.query, held.key)):
        own = held.weights[number]
        kept = keep_where(own, held.masks[number]) if held.masks else own
        torch.bmm(kept.transpose(1, 2), gradient[part], out=to_value[part])
        inner = torch.bmm(gradient[part], value[part].transpose(1, 2))
        if held.masks:
            inner = keep_where(inner, held.masks[number])
        inner.sub_(products[part]).mul_(own)
        torch.bmm(inner, key[part], out=to_query[part])
        torch.bmm(inner.transpose(1, 2), query[part], out=to_key[part])
    return found[0].mul_(scale), found[1].mul_(scale), found[2]


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
