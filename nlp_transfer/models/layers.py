"""The linear layers of an encoder that low-rank updates go on."""

from torch import nn
from transformers import PreTrainedModel

from nlp_transfer.errors import RecipeError
from nlp_transfer.models.heads import find_head_modules

__all__ = ["ATTENTION_TARGETS", "find_lora_targets", "list_linear_layers"]

ATTENTION_TARGETS: dict[str, tuple[str, ...]] = {
    "albert": ("query", "value"),
    "bert": ("query", "value"),
    "camembert": ("query", "value"),
    "deberta": ("in_proj",),
    "deberta-v2": ("query_proj", "value_proj"),
    "distilbert": ("q_lin", "v_lin"),
    "electra": ("query", "value"),
    "modernbert": ("Wqkv",),
    "mpnet": ("q", "v"),
    "roberta": ("query", "value"),
    "xlm-roberta": ("query", "value"),
}
"""Query and value projections per family (the fused projection where there is one): the choice of Hu et al. 2021."""


def list_linear_layers(model: PreTrainedModel) -> list[str]:
    """Name every linear layer of the encoder, head excluded, by its last name, each once.

    Args:
        model: The family's own sequence-classification class.

    Returns:
        Names such as ``["query", "key", "value", "dense"]`` in the order of the model.
    """
    heads = tuple(f"{name}." for name in find_head_modules(model))
    names = [
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not f"{name}.".startswith(heads)
    ]
    return list(dict.fromkeys(names))


def find_lora_targets(model: PreTrainedModel, wanted: list[str] | None) -> list[str]:
    """Choose the layers that a low-rank update goes on and check that they exist.

    Args:
        model: The family's own sequence-classification class.
        wanted: Last names of linear layers; None for the attention's query and value; ``["all-linear"]`` for all.

    Returns:
        Full names of the layers, so that nothing of the same last name in the head is hit.

    Raises:
        RecipeError: A wanted name is not a linear layer of this encoder.
    """
    available = list_linear_layers(model)
    if wanted is None:
        names = list(ATTENTION_TARGETS.get(model.config.model_type, ())) or available
    elif wanted == ["all-linear"]:
        names = available
    else:
        names = wanted
    unknown = [name for name in names if name not in available]
    if unknown:
        raise RecipeError(
            f"strategy.targets: {unknown[0]!r} is not a linear layer of this encoder ({model.config.model_type}). "
            f"It has: {', '.join(available)}."
        )
    heads = tuple(f"{name}." for name in find_head_modules(model))
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in names and not f"{name}.".startswith(heads)
    ]
