"""Which weights of a sequence classifier are its head, and how a head starts anew."""

from collections.abc import Iterable

import torch
from torch import nn
from transformers import PreTrainedModel

__all__ = ["draw_anew", "find_head_modules", "find_new_modules", "list_head_parameters", "reinitialize_head"]

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
