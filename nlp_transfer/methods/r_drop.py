"""R-Drop: every example runs twice under different dropout, and the two answers are held together."""

from dataclasses import replace

import torch
from torch import Tensor

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.engine.predict.forward import compute_logits
from nlp_transfer.engine.train.window import Window, WindowStep
from nlp_transfer.fitting.fit import Change
from nlp_transfer.methods.base import Method
from nlp_transfer.recipe.methods.r_drop import RDropConfig
from nlp_transfer.strategies.base import Adapted, Material, Stage

__all__ = ["METHOD", "run_twice", "sum_symmetric_divergence"]


def sum_symmetric_divergence(first: Tensor, second: Tensor, space: LabelSpace) -> Tensor:
    """Sum how far two answers to the same examples are from each other.

    Written as one product, of which both factors are 0 where the answers are equal: no rounding is left then.

    Args:
        first: Logits, float, shape (B, C).
        second: The same under other dropout.
        space: The label contract.

    Returns:
        A scalar sum over examples; lower is better. The mean of the two Kullback-Leibler divergences, in nats; the
        mean of that over labels where several may hold; the squared difference of a regression.

    Source:
        Wu et al. 2021, equation 2, https://arxiv.org/abs/2106.14448; its authors take the squared difference for
        regressions.

    Example:
        >>> space = LabelSpace("classification", ("no", "yes"))
        >>> round(sum_symmetric_divergence(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]), space).item(), 4)
        0.4621
    """
    if space.kind == "regression":
        return (first - second).square().sum()
    if space.kind == "multi_label":
        return 0.5 * ((first.sigmoid() - second.sigmoid()) * (first - second)).sum() / first.shape[-1]
    one, other = first.log_softmax(dim=-1), second.log_softmax(dim=-1)
    return 0.5 * ((one.exp() - other.exp()) * (one - other)).sum()


def run_twice(space: LabelSpace, alpha: float) -> Window:
    """Make the window of R-Drop.

    Args:
        space: The label contract.
        alpha: Weight of the divergence.

    Returns:
        A window whose loss is the mean of the task's over both passes, and the weighted divergence. Without dropout
        the weights are those of a plain training, bit for bit.
    """

    def run_window(step: WindowStep) -> Tensor:
        total = torch.zeros((), device=step.accelerator.device)
        for batch in step.iterate(step.rows):
            first, second = compute_logits(step.model, batch), compute_logits(step.model, batch)
            task = 0.5 * (step.objective(first, batch) + step.objective(second, batch))
            loss = (task + alpha * sum_symmetric_divergence(first, second, space)) * step.rows.scale
            step.accelerator.backward(loss)
            total += loss.detach()
        return total

    return run_window


def change_fit(config: RDropConfig) -> Change:
    """What R-Drop makes of a fit: another window.

    Args:
        config: Weight of the divergence.

    Source:
        Wu et al. 2021, algorithm 1. Departure: the two losses of the task are averaged, not added, so that learning
        rates found without it stay right.
    """

    def change(stage: Stage, adapted: Adapted, material: Material) -> Stage:  # noqa: ARG001
        return replace(stage, window=run_twice(material.prepared.labels, config.alpha))

    return change


METHOD = Method("r_drop", change=change_fit)
