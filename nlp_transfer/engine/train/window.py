"""The backward passes of one window: part by part where the loss adds up, jointly where examples bear on each other."""

import contextlib
from collections.abc import Callable, Iterable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from nlp_transfer.contracts import Objective
from nlp_transfer.engine.predict.forward import Microbatch, compute_logits
from nlp_transfer.engine.train.checkpoint import capture_random, restore_random

__all__ = ["run_joint_window", "run_window_by_parts"]

Count = Callable[[Microbatch, float], None]


def run_window_by_parts(
    model: nn.Module,
    batches: Iterable[Microbatch],
    num_batches: int,
    objective: Objective,
    accelerator: Accelerator,
    scale: float,
    count: Count,
) -> Tensor:
    """Add the gradients of a loss that is a sum over examples.

    Args:
        model: As accelerate wrapped it.
        batches: The parts of the window, each fed when it is needed.
        num_batches: How many there are.
        objective: Sums the loss of a part.
        accelerator: Runs the backward passes.
        scale: Factor on the loss: one over what the window holds.
        count: Told of every part that went through.

    Returns:
        The window's loss, a scalar without gradient.
    """
    total = torch.zeros((), device=accelerator.device)
    for number, batch in enumerate(batches):
        is_last = number == num_batches - 1
        with contextlib.nullcontext() if is_last else accelerator.no_sync(model):
            assert batch.labels is not None
            loss = objective(compute_logits(model, batch), batch.labels) * scale
            accelerator.backward(loss)
        total += loss.detach()
        count(batch, scale)
    return total


def run_joint_window(
    model: nn.Module,
    batches: Iterable[Microbatch],
    num_batches: int,
    objective: Objective,
    accelerator: Accelerator,
    scale: float,
    count: Count,
) -> Tensor:
    """Add the gradients of a loss that relates all examples of a window, however it is split.

    Where there are several parts, each runs twice: without gradients, to get the loss's gradient by what the model
    gives; then again with the same dropout, to carry that gradient back. Memory is that of one part.

    Args:
        model: As accelerate wrapped it.
        batches: The parts of the window.
        num_batches: How many there are.
        objective: Sums the loss over the examples of the whole window.
        accelerator: Runs the backward passes.
        scale: Factor on the loss: one over what the window holds.
        count: Told of every part that went through.

    Returns:
        The window's loss, a scalar without gradient.

    Source:
        Gao et al. 2021, gradient caching, https://arxiv.org/abs/2101.06983.
    """
    if num_batches == 1:
        return run_window_by_parts(model, batches, 1, objective, accelerator, scale, count)
    held = list(batches)
    states, parts = [], []
    with torch.no_grad():
        for batch in held:
            states.append(capture_random())
            parts.append(compute_logits(model, batch))
    after = capture_random()
    joined = torch.cat(parts).requires_grad_(True)
    labels = torch.cat([batch.labels for batch in held if batch.labels is not None])
    loss = objective(joined, labels) * scale
    (gradient,) = torch.autograd.grad(loss, joined)
    done = 0
    for number, (batch, state) in enumerate(zip(held, states, strict=True)):
        restore_random(state)
        with contextlib.nullcontext() if number == num_batches - 1 else accelerator.no_sync(model):
            out = compute_logits(model, batch)
            accelerator.backward((out * gradient[done : done + len(out)]).sum())
        done += len(out)
        count(batch, scale)
    restore_random(after)
    return loss.detach()
