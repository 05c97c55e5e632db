"""What all techniques of peft share: what is trained and saved beside the update, and under which names."""

from typing import Any

from peft import PeftModel, TaskType, get_peft_model
from torch import nn

from nlp_transfer.models.encoder import LoadedEncoder, quiet_loading
from nlp_transfer.models.heads import find_head_modules, find_new_modules

__all__ = ["ADAPTER", "describe_saved", "list_opened", "strip_name", "wrap_encoder"]

ADAPTER = "default"
"""The name that peft gives to the only adapter of a model."""


def describe_saved(loaded: LoadedEncoder) -> dict[str, Any]:
    """Lay out what every config of peft is told.

    Every module that the checkpoint did not hold is trained and saved beside the update: peft keeps only what it is
    told to, and a randomly drawn pooler would otherwise be drawn again at the next load.

    Args:
        loaded: The encoder with its new head.

    Returns:
        Arguments by name.
    """
    model = loaded.model
    prefix = f"{model.base_model_prefix}."
    heads = [name for name in find_head_modules(model) if not name.startswith(prefix)]
    return {
        "task_type": TaskType.SEQ_CLS,
        "modules_to_save": list(dict.fromkeys([*heads, *find_new_modules(model, loaded.new_parameters)])),
        "base_model_name_or_path": loaded.source.location,
        "revision": loaded.source.revision,
    }


def wrap_encoder(model: nn.Module, settings: Any) -> PeftModel:
    """Wrap a classifier as a config of peft says; the encoder itself is closed.

    Args:
        model: The family's own sequence-classification class; it becomes part of what is returned.
        settings: A config of peft.

    Returns:
        The wrapped model.
    """
    with quiet_loading():
        wrapped = get_peft_model(model, settings)
    assert isinstance(wrapped, PeftModel)
    return wrapped


def list_opened(wrapped: PeftModel, loaded: LoadedEncoder) -> frozenset[str]:
    """Name, in a wrapped model, the trained parameters that the checkpoint did not hold."""
    new = set(loaded.new_parameters)
    return frozenset(
        name
        for name, parameter in wrapped.named_parameters()
        if parameter.requires_grad and ".modules_to_save." in name and strip_name(wrapped, name) in new
    )


def strip_name(wrapped: PeftModel, name: str) -> str:
    """Turn a parameter's name inside peft's wrapper into its name in the plain model."""
    # Prompts leave the model as it is; every other technique puts a wrapper around it.
    outer = "base_model." if wrapped.active_peft_config.is_prompt_learning else "base_model.model."
    return name.removeprefix(outer).replace(".modules_to_save.default", "")
