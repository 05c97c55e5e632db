"""Which weights of a sequence classifier are its head, how a head starts anew, and how a linear one goes into it."""

from collections.abc import Iterable

import torch
from torch import nn
from transformers import PreTrainedModel

__all__ = [
    "FOLDABLE",
    "can_fold",
    "draw_anew",
    "find_head_modules",
    "find_new_modules",
    "fold_linear",
    "list_head_parameters",
    "reinitialize_head",
]

POOLERS = ("pooler",)
"""Child of an encoder that serves the head only, in the families that have one (BERT, ALBERT)."""


def find_head_modules(model: PreTrainedModel) -> list[str]:
    """Name the modules of a sequence classifier that are not the encoder.

    That is every child beside the encoder, and the encoder's pooler, which no other layer reads.

    Args:
        model: The family's own sequence-classification class.

    Returns:
        Module names as ``named_modules`` has them, such as ``["bert.pooler", "classifier"]``.
    """
    prefix = model.base_model_prefix
    encoder = getattr(model, prefix)
    inner = [f"{prefix}.{name}" for name in POOLERS if getattr(encoder, name, None) is not None]
    outer = [
        name
        for name, child in model.named_children()
        if name != prefix and any(True for _ in child.parameters(recurse=True))
    ]
    return inner + outer


def list_head_parameters(model: PreTrainedModel) -> list[str]:
    """Name every parameter of the head, pooler included."""
    modules = find_head_modules(model)
    return [name for name, _ in model.named_parameters() if any(name.startswith(f"{module}.") for module in modules)]


def find_new_modules(model: nn.Module, new_parameters: Iterable[str]) -> list[str]:
    """Find the outermost modules that hold nothing but newly initialised weights.

    peft must save exactly these beside its update, or a reload draws them again.

    Args:
        model: The loaded classifier.
        new_parameters: Parameter names that ``from_pretrained`` reported as newly initialised.

    Returns:
        Module names in the order of the model, none inside another.
    """
    new = set(new_parameters)
    found: list[str] = []
    for name, module in model.named_modules():
        own = [f"{name}.{key}" for key, _ in module.named_parameters()]
        if not name or not own or not new.issuperset(own):
            continue
        if not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
    return found


def reinitialize_head(model: PreTrainedModel) -> list[str]:
    """Draw the classification modules anew, as the family initialises them; the pooler transfers and stays.

    Args:
        model: A classifier whose head belongs to another task.

    Returns:
        Names of the parameters that were drawn.
    """
    prefix = f"{model.base_model_prefix}."
    outer = [name for name in find_head_modules(model) if not name.startswith(prefix)]
    return [parameter for name in outer for parameter in draw_anew(model, name)]


def draw_anew(model: PreTrainedModel, module_name: str) -> list[str]:
    """Draw the weights of one module again, as the family initialises them.

    Args:
        model: The model the module belongs to; it is changed.
        module_name: As in ``named_modules``.

    Returns:
        Names of the parameters that were drawn.
    """
    module = model.get_submodule(module_name)
    for child in module.modules():
        # transformers marks loaded tensors and its initialisers pass over those.
        for parameter in child.parameters(recurse=False):
            parameter.__dict__.pop("_is_hf_initialized", None)
        child.__dict__.pop("_is_hf_initialized", None)
    with torch.no_grad():
        for child in module.modules():
            model._init_weights(child)
    return [f"{module_name}.{key}" for key, _ in module.named_parameters()]


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
