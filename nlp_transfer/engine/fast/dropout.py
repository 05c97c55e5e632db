"""Dropout whose masks cost a CPU little."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["FORMATS", "STEPS", "cheap_dropout", "draw_mask", "drop", "find_threshold", "keep_where"]

FORMATS = {torch.bfloat16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64}
"""Number formats that are dropped from here, and integers of the same size, whose bits are their masks."""

LARGEST = int(np.iinfo(np.uint64).max)

STEPS = 65_536
"""A mask is drawn with 16 random bits an element, so that rates are multiples of one over this."""


@contextmanager
def cheap_dropout(model: nn.Module) -> Iterator[None]:
    """Let every dropout module of a model on the CPU draw its masks with ``drop``.

    On other devices, and in evaluation mode, nothing is changed.

    Args:
        model: Its modules of the class ``nn.Dropout`` have another ``forward`` meanwhile.

    Example:
        >>> layer = nn.Dropout(0.5)
        >>> with cheap_dropout(layer):
        ...     sorted(set(layer(torch.ones(100)).tolist()))
        [0.0, 2.0]
    """
    modules = [module for module in model.modules() if type(module) is nn.Dropout]
    for module in modules:
        module.forward = partial(_forward, module)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def _forward(module: nn.Dropout, values: Tensor) -> Tensor:
    """Take the place of ``nn.Dropout.forward``."""
    is_ours = module.training and module.p < 1.0 and values.device.type == "cpu" and values.dtype in FORMATS
    return drop(values, module.p) if is_ours else functional.dropout(values, module.p, module.training)


def drop(values: Tensor, rate: float) -> Tensor:
    """Set elements to zero at random and scale the others, so that the expected value stays.

    Torch draws a mask on a CPU with a random number of its own for each element, which took a fifth of a training
    step; here one 64-bit number serves four.

    Args:
        values: Float32 or bf16, any shape.
        rate: Share of zeros, at least 0 and below 1, rounded to a multiple of 1/65,536; the scale fits what is drawn.

    Returns:
        The same shape. Gradients pass through the same mask.

    Source:
        Srivastava et al. 2014.
    """
    threshold = find_threshold(rate)
    return values if threshold == 0 else _Drop.apply(values, threshold)


def find_threshold(rate: float) -> int:
    """How many of 65,536 random numbers set an element to zero.

    Example:
        >>> find_threshold(0.5), find_threshold(0.1)
        (32768, 6554)
    """
    return min(round(rate * STEPS), STEPS - 1)


def draw_mask(shape: torch.Size, threshold: int, dtype: torch.dtype) -> Tensor:
    """Draw which elements are kept.

    The bits come from a generator that is seeded by torch's own: it is several times as fast, and a run that is
    resumed draws the same masks.

    Args:
        shape: Of the values.
        threshold: What ``find_threshold`` gives.
        dtype: Number format of the values, one of ``FORMATS``.

    Returns:
        Integers as wide as the values: all bits ones where an element is kept, zeros where it is dropped.

    Example:
        >>> sorted(set(draw_mask(torch.Size([100]), STEPS // 2, torch.float32).tolist()))
        [-1, 0]
    """
    count = math.prod(shape)
    bits = _draw_bits(-(-count // 4))
    # Sixteen bits are a number from -32,768 to 32,767; those below the edge are dropped.
    edge = threshold - STEPS // 2
    numbers = torch.from_numpy(bits.view(np.int16)[:count]).view(shape)
    return numbers.clamp_(edge - 1, edge).sub_(edge - 1).neg_().to(FORMATS[dtype])


def _draw_bits(count: int) -> np.ndarray:
    """Draw 64-bit numbers, on one thread: what others would save, they cost while torch's own wait for work."""
    seed = int(torch.empty((), dtype=torch.int64).random_())
    generator = np.random.Generator(np.random.SFC64(seed))
    return generator.integers(0, LARGEST, size=count, dtype=np.uint64, endpoint=True)


def keep_where(values: Tensor, mask: Tensor) -> Tensor:
    """Set dropped elements to zero: on a CPU, bits are masked several times as fast as numbers are multiplied.

    Args:
        values: Of one of the ``FORMATS``.
        mask: What ``draw_mask`` gives for them.

    Returns:
        New values, not scaled.
    """
    return values.view(mask.dtype).bitwise_and(mask).view(values.dtype)


class _Drop(torch.autograd.Function):
    """Apply a mask, there and back."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, threshold: int) -> Tensor:
        """Draw the mask and apply it."""
        mask = draw_mask(values.shape, threshold, values.dtype)
        ctx.save_for_backward(mask)
        ctx.scale = STEPS / (STEPS - threshold)
        return keep_where(values, mask).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Apply it to the gradient."""
        (mask,) = ctx.saved_tensors
        return keep_where(gradient, mask).mul_(ctx.scale), None
