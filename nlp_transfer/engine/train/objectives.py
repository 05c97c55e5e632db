"""Losses that add up over examples, so that a batch can be split anywhere."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.engine.predict.forward import Microbatch
from nlp_transfer.errors import RecipeError
from nlp_transfer.recipe.schema import TrainingConfig

__all__ = [
    "Objective",
    "build_objective",
    "compute_class_weights",
    "read_labels",
    "sum_cross_entropy",
    "sum_ordinal_loss",
]

Objective = Callable[[Tensor, Microbatch], Tensor]
"""Sums the loss over the examples of a microbatch: given logits, float (B, C), and the batch with its labels and
further columns, it gives a scalar. The sum, not the mean, so that any split of a batch adds up to the same gradient."""


def build_objective(space: LabelSpace, training: TrainingConfig, counts: dict[str, int]) -> Objective:
    """Choose the loss of a task.

    Args:
        space: The label contract.
        training: Class weights, label smoothing and focal exponent.
        counts: Examples per label name in train; read for balanced weights.

    Returns:
        The loss.

    Raises:
        RecipeError: ``training.class_weights`` names other labels than the data has.
    """
    is_single = space.is_categorical
    weights = compute_class_weights(space, training, counts) if is_single else None
    gamma, smoothing = training.focal_gamma, training.label_smoothing

    def sum_loss(logits: Tensor, batch: Microbatch) -> Tensor:
        labels = read_labels(batch)
        if space.kind == "regression":
            return sum_squared_error(logits, labels)
        if space.kind == "multi_label":
            return sum_binary_cross_entropy(logits, labels, smoothing=smoothing)
        placed = None if weights is None else weights.to(logits)
        if space.kind == "ordinal":
            return sum_ordinal_loss(logits, labels, weights=placed, smoothing=smoothing)
        return sum_cross_entropy(logits, labels, weights=placed, smoothing=smoothing, gamma=gamma)

    return sum_loss


def read_labels(batch: Microbatch) -> Tensor:
    """The labels of a microbatch that is trained on, which always has some."""
    assert batch.labels is not None, "what is trained on has labels"
    return batch.labels


def compute_class_weights(space: LabelSpace, training: TrainingConfig, counts: dict[str, int]) -> Tensor | None:
    """Turn ``training.class_weights`` into one weight a class.

    Balanced weights are N / (C * count), scikit-learn's definition: their mean over the examples is 1.

    Args:
        space: The label contract.
        training: The recipe's training section.
        counts: Examples per label name in train.

    Returns:
        Float tensor of shape (C,), or None where no weights are asked for.

    Raises:
        RecipeError: Names that the data does not have, or names left out.

    Example:
        >>> from nlp_transfer.recipe.schema import TrainingConfig
        >>> space = LabelSpace("classification", ("no", "yes"))
        >>> compute_class_weights(space, TrainingConfig(class_weights="balanced"), {"no": 30, "yes": 10})
        tensor([0.6667, 2.0000])
    """
    wanted = training.class_weights
    if wanted is None:
        return None
    if wanted == "balanced":
        total = sum(counts.get(name, 0) for name in space.names)
        return torch.tensor([total / (space.num_outputs * max(counts.get(name, 0), 1)) for name in space.names])
    unknown = sorted(set(wanted) - set(space.names))
    absent = sorted(set(space.names) - set(wanted))
    if unknown or absent:
        said = f"unknown: {', '.join(unknown)}" if unknown else f"left out: {', '.join(absent)}"
        raise RecipeError(f"training.class_weights: expected one weight for each of {', '.join(space.names)}; {said}.")
    return torch.tensor([float(wanted[name]) for name in space.names])


def sum_cross_entropy(
    logits: Tensor, labels: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0, gamma: float = 0.0
) -> Tensor:
    """Sum the cross-entropy over examples, weighted, smoothed or focal.

    Args:
        logits: Float, shape (B, C).
        labels: Class ids, int64, shape (B,).
        weights: One weight a class, shape (C,), or None.
        smoothing: Share of each target spread over all classes, in [0, 1).
        gamma: Focal exponent; 0 is plain cross-entropy.

    Returns:
        A scalar sum; lower is better.

    Source:
        Focal loss: Lin et al. 2017, equation 4, https://arxiv.org/abs/1708.02002.

    Example:
        >>> round(sum_cross_entropy(torch.zeros(3, 2), torch.tensor([0, 1, 1])).item() / 3, 4)
        0.6931
    """
    if gamma == 0.0:
        return functional.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing, reduction="sum")
    log_probs_BC = logits.log_softmax(dim=-1)
    picked_B = log_probs_BC.gather(1, labels[:, None]).squeeze(1)
    loss_B = -((1 - picked_B.exp()) ** gamma) * picked_B
    return (loss_B if weights is None else loss_B * weights[labels]).sum()


def sum_ordinal_loss(
    logits: Tensor, labels: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Sum cross-entropy plus the squared earth mover's distance over ordered classes.

    A mistake costs more the further it lies from the true class, and the logits stay those of a plain classifier.

    Args:
        logits: Float, shape (B, C), columns ordered low to high.
        labels: Class ids, int64, shape (B,).
        weights: One weight a class, shape (C,), or None.
        smoothing: Label smoothing of the cross-entropy part.

    Returns:
        A scalar sum; lower is better.

    Source:
        Hou et al. 2016, equation 10, https://arxiv.org/abs/1611.05916. Departure: cross-entropy is added with weight
        1 (chosen), because the distance alone trains slowly from a new head.
    """
    entropy = sum_cross_entropy(logits, labels, weights=weights, smoothing=smoothing)
    target_BC = functional.one_hot(labels, logits.shape[-1]).to(logits)
    gap_BC = (logits.softmax(dim=-1) - target_BC).cumsum(dim=-1)
    distance_B = gap_BC.square().sum(dim=-1)
    return entropy + (distance_B if weights is None else distance_B * weights[labels]).sum()


def sum_binary_cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Sum over examples the mean over classes of the binary cross-entropy; labels are 0 or 1, shape (B, C)."""
    target_BC = labels.to(logits) * (1 - smoothing) + smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits, target_BC, reduction="sum") / logits.shape[-1]


def sum_squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum the squared error of a regression; logits (B, 1), labels (B,)."""
    return (logits.squeeze(-1) - labels.to(logits)).square().sum()
