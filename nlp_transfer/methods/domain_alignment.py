"""Alignment of domains: features that serve the labels and do not tell where a text comes from."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nlp_transfer.engine.predict.forward import Microbatch, compute_logits, join_windows
from nlp_transfer.engine.train.window import Window, WindowStep
from nlp_transfer.fitting.fit import Change
from nlp_transfer.methods.base import Method
from nlp_transfer.models.output_layer import find_classifier, find_output_layer
from nlp_transfer.recipe.methods.domain_alignment import DomainAlignmentConfig
from nlp_transfer.strategies.base import Adapted, Material, Stage

__all__ = ["METHOD", "ReverseGradient", "align_domains", "schedule_strength"]

STREAM, HEAD = "target_domain", "domain_head"


class ReverseGradient(torch.autograd.Function):
    """Gives its input as it is, and hands its gradient back reversed and scaled."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:
        """Keep the strength for the way back."""
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Reverse what comes from the domain head."""
        return -ctx.strength * gradients[0], None


def schedule_strength(step: int, num_steps: int, *, weight: float, steepness: float) -> float:
    """Say how much the reversed gradient counts: from 0 at the start to ``weight`` at the end.

    Args:
        step: Updates done.
        num_steps: Updates of the whole training.
        weight: Most that it counts.
        steepness: The larger, the earlier it has grown.

    Returns:
        A number in [0, weight).

    Source:
        Ganin et al. 2016, section 5.2.2, https://arxiv.org/abs/1505.07818.

    Example:
        >>> [round(schedule_strength(step, 100, weight=1.0, steepness=10.0), 2) for step in (0, 10, 50, 100)]
        [0.0, 0.46, 0.99, 1.0]
    """
    return weight * (2 / (1 + math.exp(-steepness * step / max(1, num_steps))) - 1)


def align_domains(layer: nn.Module, head: nn.Module, config: DomainAlignmentConfig) -> Window:
    """Make the window of domain-adversarial training.

    Args:
        layer: What turns features into logits; its input is what the domain head reads.
        head: Gives one logit an example: positive for the target domain.
        config: Weight and schedule.

    Returns:
        A window whose loss is the task's on source rows, and half of the domain head's on either side.
    """

    def run_window(step: WindowStep) -> Tensor:
        strength = schedule_strength(step.step, step.num_steps, weight=config.weight, steepness=config.steepness)
        total = torch.zeros((), device=step.accelerator.device)
        with _catching(layer) as caught:
            for batch in step.iterate(step.rows, is_last=False):
                task = step.objective(compute_logits(step.model, batch), batch)
                loss = (task + _sum_domain_loss(head, caught.pop(), batch, 0.0, strength)) * step.rows.scale
                step.accelerator.backward(loss)
                total += loss.detach()
            target = step.streams[STREAM]
            for batch in step.iterate(target):
                logits = compute_logits(step.model, batch)
                # Every parameter takes part in the pass behind which processes exchange gradients.
                loss = (_sum_domain_loss(head, caught.pop(), batch, 1.0, strength) + 0 * logits.sum()) * target.scale
                step.accelerator.backward(loss)
                total += loss.detach()
        return total

    return run_window


def _sum_domain_loss(head: nn.Module, features: Tensor, batch: Microbatch, domain: float, strength: float) -> Tensor:
    """Half of the domain head's loss, summed over examples; windows of one text share its weight."""
    kind = next(head.parameters()).dtype
    reversed_RD: Any = ReverseGradient.apply(features.to(kind), strength)
    logits_R1 = head(reversed_RD).float()
    truth_R1 = torch.full_like(logits_R1, domain)
    losses_R1 = functional.binary_cross_entropy_with_logits(logits_R1, truth_R1, reduction="none")
    if batch.owners is not None:
        losses_R1 = join_windows(losses_R1, batch.owners, batch.num_examples)
    return 0.5 * losses_R1.sum()


@contextmanager
def _catching(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a layer reads."""
    caught: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    try:
        yield caught
    finally:
        handle.remove()


def change_fit(config: DomainAlignmentConfig) -> Change:
    """What alignment makes of a fit: a head that tells domains apart, a stream of the other domain, another window.

    The head is trained with the model and dropped behind the training.

    Args:
        config: Loss, weight, schedule and the head's width.

    Source:
        Ganin et al. 2016, algorithm 1 (``dann``). Departures: the head reads what the last linear layer reads, and
        has one hidden layer whatever the encoder; both sides count alike.
    """

    def change(stage: Stage, adapted: Adapted, material: Material) -> Stage:
        texts = material.prepared.unlabelled
        assert texts is not None, "a recipe without texts is refused"
        layer = find_output_layer(find_classifier(adapted.model))
        head = nn.Sequential(nn.Linear(layer.in_features, config.hidden), nn.ReLU(), nn.Linear(config.hidden, 1))
        return replace(
            stage,
            window=align_domains(layer, head, config),
            streams={**stage.streams, STREAM: (texts, material.recipe.training.batch_size)},
            modules={**stage.modules, HEAD: head},
        )

    return change


METHOD = Method("domain_alignment", change=change_fit)
