"""Fold an adapter into its encoder."""

import sys
from typing import TYPE_CHECKING, TypeGuard

from torch import nn

from nlp_transfer.errors import EncoderError

if TYPE_CHECKING:
    from peft import PeftModel

__all__ = ["is_adapter", "merge_adapter"]


def is_adapter(model: nn.Module) -> "TypeGuard[PeftModel]":
    """Say whether peft wraps a model, without importing peft for it: what nobody imported has wrapped nothing.

    Example:
        >>> is_adapter(nn.Linear(2, 2))
        False
    """
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(model, peft.PeftModel)


def merge_adapter(model: "PeftModel") -> nn.Module:
    """Fold the update of a peft model into its encoder, and put the trained head in place.

    peft's own ``merge_and_unload`` fails for tuners other than LoRA where a saved module, such as BERT's pooler, has no
    weight of its own.

    Args:
        model: A wrapped model with one adapter; it is taken apart.

    Returns:
        The plain model.

    Raises:
        EncoderError: The adapter cannot be folded in; prompts never can.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    if model.active_peft_config.is_prompt_learning:
        base = model.active_peft_config.base_model_name_or_path
        raise EncoderError(
            f"encoder.name: an artefact of strategy.kind prompts cannot be folded into its encoder. Name that: {base}"
        )
    plain: nn.Module = model.get_base_model()
    adapter = str(model.active_adapter)
    for name, module in list(plain.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            _put(plain, name, module.modules_to_save[adapter])
        elif isinstance(module, BaseTunerLayer):
            try:
                module.merge(adapter_names=[adapter])
            except (NotImplementedError, ValueError) as error:
                raise EncoderError(
                    f"strategy.merge: this adapter cannot be folded into its encoder: {error}"
                ) from error
            _put(plain, name, module.get_base_layer())
    for mark in ("peft_config", "_hf_peft_config_loaded"):
        plain.__dict__.pop(mark, None)
    return plain


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of another."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
