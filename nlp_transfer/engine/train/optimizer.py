"""Optimizer, parameter groups and learning-rate schedule."""

import math
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from nlp_transfer.engine.train.masters import HalfAdamW, Masters
from nlp_transfer.recipe.schema import TrainingConfig

__all__ = ["build_optimizer", "build_schedule", "group_parameters"]


def group_parameters(
    model: nn.Module,
    training: TrainingConfig,
    new_parameters: Collection[str],
    rates: Mapping[str, float] = MappingProxyType({}),
    stand_ins: Mapping[str, nn.Parameter] = MappingProxyType({}),
) -> list[dict[str, object]]:
    """Sort trainable parameters into groups by decay and by rate.

    Biases and the weights of normalisation layers are not decayed; everything of one dimension is one of those.

    Args:
        model: The model to train.
        training: Rates and decay.
        new_parameters: Names that take the head's learning rate.
        rates: Factor on the peak rate by parameter name; 1 where absent.
        stand_ins: What is updated in a parameter's stead, by its name.

    Returns:
        Groups as torch optimizers take them, each with a ``names`` list beside ``params``; empty groups are left out.
    """
    rate = training.learning_rate
    assert rate is not None, "the recipe fills it in"
    head_rate = training.head_learning_rate or rate
    groups: dict[tuple[bool, bool, float], dict[str, object]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        key = (name in new_parameters, parameter.ndim > 1, rates.get(name, 1.0))
        group = groups.setdefault(
            key,
            {
                "params": [],
                "names": [],
                "lr": (head_rate if key[0] else rate) * key[2],
                "weight_decay": training.weight_decay if key[1] else 0.0,
            },
        )
        group["params"].append(stand_ins.get(name, parameter))  # type: ignore[attr-defined]
        group["names"].append(name)  # type: ignore[attr-defined]
    return [groups[key] for key in sorted(groups)]


def build_optimizer(
    model: nn.Module,
    training: TrainingConfig,
    new_parameters: Collection[str] = (),
    rates: Mapping[str, float] = MappingProxyType({}),
    masters: Masters | None = None,
) -> torch.optim.Optimizer:
    """Build the optimizer of a recipe.

    Args:
        model: The model to train.
        training: The recipe's training section.
        new_parameters: Names that take the head's learning rate.
        rates: Factor on the peak rate by parameter name; 1 where absent.
        masters: Float32 weights that are updated in the stead of the model's own, which are bf16.

    Returns:
        A fused AdamW (Loshchilov and Hutter 2019), or plain SGD. With float32 weights beside a model on the CPU it is a
        ``HalfAdamW``, which clips gradients and hands the weights down by itself.
    """
    stand_ins = {} if masters is None else masters.trained
    groups = group_parameters(model, training, new_parameters, rates, stand_ins)
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups)
    betas = (training.beta_1, training.beta_2)
    if masters is not None and all(weight.device.type == "cpu" for weight in stand_ins.values()):
        lower = masters.lower
        return HalfAdamW(groups, lower, betas=betas, eps=training.epsilon, max_norm=training.max_grad_norm)
    return torch.optim.AdamW(groups, betas=betas, eps=training.epsilon, fused=True)


def build_schedule(optimizer: torch.optim.Optimizer, training: TrainingConfig, num_steps: int) -> LambdaLR:
    """Build the schedule: a linear warm-up, then down to zero along a line or a cosine, or constant.

    The factors are those of transformers' schedules of the same names.

    Args:
        optimizer: Its groups' rates are the peaks.
        training: Schedule and share of warm-up.
        num_steps: Updates of the whole run.

    Returns:
        A scheduler to step once an update.
    """
    return LambdaLR(optimizer, scale_rate(training, num_steps))


def scale_rate(training: TrainingConfig, num_steps: int) -> Callable[[int], float]:
    """Give the factor on the peak rate as a function of the updates done so far."""
    warmup = math.ceil(training.warmup_share * num_steps)
    kind = training.schedule

    def factor(step: int) -> float:
        if step < warmup:
            return step / max(1, warmup)
        if kind == "constant":
            return 1.0
        progress = (step - warmup) / max(1, num_steps - warmup)
        return max(0.0, 0.5 * (1 + math.cos(math.pi * progress)) if kind == "cosine" else 1 - progress)

    return factor
