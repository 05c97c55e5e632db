"""Write a linear head on the first token into a family's own classification head, where that changes nothing."""

import torch
from torch import nn
from transformers import PreTrainedModel

__all__ = ["FOLDABLE", "can_fold", "fold_linear"]

FOLDABLE: dict[str, tuple[str, str]] = {
    "deberta": ("pooler.dense", "classifier"),
    "deberta-v2": ("pooler.dense", "classifier"),
    "distilbert": ("pre_classifier", "classifier"),
    "electra": ("classifier.dense", "classifier.out_proj"),
}
"""Families whose head is a linear layer, ReLU or GELU, and a linear layer, on the first token. A tanh in between (BERT,
RoBERTa, MPNet, ALBERT) or a norm (ModernBERT) cannot be undone."""


def can_fold(model: PreTrainedModel, num_outputs: int) -> bool:
    """Tell whether a family's own head can hold a linear one.

    Args:
        model: The family's own sequence-classification class.
        num_outputs: C.

    Returns:
        Whether ``fold_linear`` is exact for it.
    """
    names = FOLDABLE.get(model.config.model_type)
    if names is None or getattr(model.config, "pooler_hidden_act", "gelu") not in ("gelu", "relu", "gelu_new"):
        return False
    first, last = (model.get_submodule(name) for name in names)
    return isinstance(first, nn.Linear) and isinstance(last, nn.Linear) and 2 * num_outputs <= first.out_features


def fold_linear(model: PreTrainedModel, head: nn.Linear) -> None:
    """Put a linear head into a family's own.

    The first layer gives every logit and its negative; f(z) - f(-z) = z for ReLU and GELU, so the last layer takes
    differences.

    Args:
        model: For which ``can_fold`` holds; its head is changed in place.
        head: On the state of the first token, D inputs and C outputs.
    """
    first, last = (model.get_submodule(name) for name in FOLDABLE[model.config.model_type])
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    count = head.out_features
    with torch.no_grad():
        for layer in (first, last):
            layer.weight.zero_()
            layer.bias.zero_()
        first.weight[: 2 * count] = torch.cat([head.weight, -head.weight])
        first.bias[: 2 * count] = torch.cat([head.bias, -head.bias])
        last.weight[:, : 2 * count] = torch.cat([torch.eye(count), -torch.eye(count)], dim=1)
