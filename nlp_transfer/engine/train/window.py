"""How the examples of one update become gradients: part by part where the loss adds up, jointly where it does not.

A window is whatever a `WindowStep` is handed to. The loop calls the one that it is given and knows none by name: two
passes over every part, perturbed inputs or several streams of rows are windows like these.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from nlp_transfer.engine.predict.forward import Microbatch, compute_logits
from nlp_transfer.engine.train.checkpoint import capture_random, restore_random
from nlp_transfer.engine.train.objectives import Objective

__all__ = ["Rows", "Window", "WindowStep", "join_parts", "run_joint_window", "run_window_by_parts"]

Count = Callable[[Microbatch, float], None]


@dataclass(frozen=True)
class Rows:
    """Some examples of one update, in parts.

    Attributes:
        batches: The parts, each fed when it is needed.
        num_batches: How many there are.
        scale: Factor on a sum over the examples that makes it their mean: one over how many there are, over all
            processes; 0 in a process that got none and runs one for company.
    """

    batches: Iterable[Microbatch]
    num_batches: int
    scale: float


@dataclass(frozen=True)
class WindowStep:
    """What a window is given: one update's examples, and what turns them into gradients.

    Attributes:
        model: As accelerate wrapped it.
        rows: The training examples.
        objective: Sums the loss of a part.
        accelerator: Runs the backward passes.
        count: Told of every part that went through, with the scale of its rows.
        step: Updates done before this one.
        num_steps: Updates of the whole run.
        streams: Further rows of this update, by name.
    """

    model: nn.Module
    rows: Rows
    objective: Objective
    accelerator: Accelerator
    count: Count
    step: int = 0
    num_steps: int = 1
    streams: Mapping[str, Rows] = field(default_factory=dict)

    def iterate(self, rows: Rows, *, is_last: bool = True) -> Iterator[Microbatch]:
        """Go through the parts of some rows; processes exchange gradients once an update, behind its last part.

        Args:
            rows: Training examples, or a stream.
            is_last: Whether no other backward pass follows in this update.
        """
        for number, batch in enumerate(rows.batches):
            ends = is_last and number == rows.num_batches - 1
            with contextlib.nullcontext() if ends else self.accelerator.no_sync(self.model):
                yield batch
            self.count(batch, rows.scale)


Window = Callable[[WindowStep], Tensor]
"""Adds the gradients of one update and gives its loss, a scalar without gradient."""


def run_window_by_parts(step: WindowStep) -> Tensor:
    """Add the gradients of a loss that is a sum over examples.

    Args:
        step: The update.

    Returns:
        The window's loss, a scalar without gradient.
    """
    total = torch.zeros((), device=step.accelerator.device)
    for batch in step.iterate(step.rows):
        loss = step.objective(compute_logits(step.model, batch), batch) * step.rows.scale
        step.accelerator.backward(loss)
        total += loss.detach()
    return total


def join_parts(batches: list[Microbatch]) -> Microbatch:
    """Put the labels and columns of several parts one behind the other; what a model reads is left out.

    Args:
        batches: At least one.

    Returns:
        What a loss over the whole window reads.
    """
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return Microbatch(
        inputs={},
        labels=torch.cat(labels) if labels else None,
        owners=None,
        num_examples=sum(batch.num_examples for batch in batches),
        num_tokens=0,
        num_padded=0,
        columns={name: torch.cat([batch.columns[name] for batch in batches]) for name in batches[0].columns},
    )


def run_joint_window(step: WindowStep) -> Tensor:
    """Add the gradients of a loss that relates all examples of a window, however it is split.

    Where there are several parts, each runs twice: without gradients, to get the loss's gradient by what the model
    gives; then again with the same dropout, to carry that gradient back. Memory is that of one part.

    Args:
        step: The update; its objective sums the loss over the examples of the whole window.

    Returns:
        The window's loss, a scalar without gradient.

    Source:
        Gao et al. 2021, gradient caching, https://arxiv.org/abs/2101.06983.
    """
    if step.rows.num_batches == 1:
        return run_window_by_parts(step)
    held = list(step.rows.batches)
    states, parts = [], []
    with torch.no_grad():
        for batch in held:
            states.append(capture_random())
            parts.append(compute_logits(step.model, batch))
    after = capture_random()
    joined = torch.cat(parts).requires_grad_(True)
    loss = step.objective(joined, join_parts(held)) * step.rows.scale
    (gradient,) = torch.autograd.grad(loss, joined)
    done = 0
    again = Rows(held, len(held), step.rows.scale)
    for batch, state in zip(step.iterate(again), states, strict=True):
        restore_random(state)
        out = compute_logits(step.model, batch)
        step.accelerator.backward((out * gradient[done : done + len(out)]).sum())
        done += len(out)
    restore_random(after)
    return loss.detach()
