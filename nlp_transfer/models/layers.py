"""The parts of an encoder, by name, from the bottom up: embeddings, layers, and the linear layers inside them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from nlp_transfer.errors import EncoderError, RecipeError
from nlp_transfer.models.heads import find_head_modules

__all__ = [
    "ATTENTION_TARGETS",
    "EncoderParts",
    "choose_layers",
    "find_lora_targets",
    "find_parts",
    "find_word_embeddings",
    "keep_layers",
    "list_biases",
    "list_linear_layers",
    "list_norms",
]

CARRIERS = ("embeddings", "embeddings_project", "encoder.embedding_hidden_mapping_in")
"""Modules that turn token ids into the first layer's input, in the order they run."""

POSITION_TABLES = ("encoder.rel_embeddings", "encoder.LayerNorm", "encoder.relative_attention_bias")
"""Embeddings of relative positions, which every layer reads (DeBERTa, MPNet)."""

BESIDE_FIRST_LAYER = ("encoder.conv",)
"""A convolution that DeBERTa-v2 adds to what its first layer gives."""


@dataclass(frozen=True)
class EncoderParts:
    """Where things are in a sequence classifier; names are those of ``named_modules``.

    Attributes:
        carriers: Modules between token ids and the first layer, in the order they run.
        tables: Embeddings of relative positions.
        layers: Transformer blocks from the bottom up; ALBERT's shared block stands there once.
        beside: Modules that run between the first layer and the second.
        is_shared: Whether one block is run several times.
    """

    carriers: tuple[str, ...]
    tables: tuple[str, ...]
    layers: tuple[str, ...]
    beside: tuple[str, ...]
    is_shared: bool

    @property
    def embeddings(self) -> tuple[str, ...]:
        """Everything that is frozen when the embeddings are."""
        return self.carriers + self.tables

    def list_prefix(self, num_layers: int) -> tuple[str, ...]:
        """Name the modules of the embeddings and the first layers.

        Args:
            num_layers: Layers that belong to the prefix, 0 to ``len(layers)``.

        Returns:
            Module names.
        """
        return self.embeddings + self.layers[:num_layers] + (self.beside if num_layers else ())


def find_parts(model: PreTrainedModel) -> EncoderParts:
    """Find embeddings and layers of an encoder.

    Args:
        model: The family's own sequence-classification class.

    Returns:
        Their names.

    Raises:
        EncoderError: The encoder has no list of layers.
    """
    prefix = model.base_model_prefix
    encoder = getattr(model, prefix)
    num_layers = model.config.num_hidden_layers
    lists = [(name, module) for name, module in encoder.named_modules() if isinstance(module, nn.ModuleList)]
    full = [(name, module) for name, module in lists if len(module) == num_layers and "." not in name[-2:]]
    is_shared = hasattr(model.config, "num_hidden_groups")
    if is_shared:
        full = lists[:1]
    if not full:
        raise EncoderError(
            f"encoder.name: {model.config.model_type}: expected a list of {num_layers} layers, found none. "
            "Use strategy.kind full, lora or frozen."
        )
    name, blocks = full[0]

    def keep(names: tuple[str, ...]) -> tuple[str, ...]:
        known = dict(encoder.named_modules())
        return tuple(f"{prefix}.{each}" for each in names if each in known)

    return EncoderParts(
        carriers=keep(CARRIERS),
        tables=keep(POSITION_TABLES),
        layers=tuple(f"{prefix}.{name}.{index}" for index in range(len(blocks))),
        beside=keep(BESIDE_FIRST_LAYER),
        is_shared=is_shared and len(blocks) < num_layers,
    )


def list_biases(model: PreTrainedModel) -> list[str]:
    """Name the bias terms of the encoder, head excluded (BitFit: Ben Zaken et al. 2021)."""
    heads = tuple(f"{name}." for name in find_head_modules(model))
    return [n for n, _ in model.named_parameters() if n.rpartition(".")[2] == "bias" and not n.startswith(heads)]


def list_norms(model: PreTrainedModel) -> list[str]:
    """Name the weights and biases of the encoder's normalisation layers, head excluded."""
    heads = tuple(f"{name}." for name in find_head_modules(model))
    return [
        f"{name}.{key}"
        for name, module in model.named_modules()
        if type(module).__name__.endswith(("LayerNorm", "RMSNorm")) and not f"{name}.".startswith(heads)
        for key, _ in module.named_parameters(recurse=False)
    ]


def find_word_embeddings(model: nn.Module) -> nn.Module | None:
    """Find the module that turns token ids into vectors, inside of any classifier of this package.

    Args:
        model: A family's own classifier, one wrapped by peft, or a custom one.

    Returns:
        The module; None where the model is no torch model, as an export is.
    """
    inner = next((module for module in model.modules() if isinstance(module, PreTrainedModel)), None)
    return None if inner is None else inner.get_input_embeddings()


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


def choose_layers(wanted: int | Sequence[int], total: int) -> list[int]:
    """Turn a count of layers, or their numbers, into places from the bottom.

    Args:
        wanted: How many, evenly spread from the first layer to the last; or which, 1 the first.
        total: Layers there are.

    Returns:
        Places, ascending, each in [0, total).

    Raises:
        RecipeError: There are not so many.

    Example:
        >>> choose_layers(3, 6), choose_layers([1, 4], 6), choose_layers(1, 6)
        ([0, 2, 5], [0, 3], [0])
    """
    most = wanted if isinstance(wanted, int) else max(wanted)
    if most > total:
        raise RecipeError(f"strategy.keep_layers: expected at most {total}, as the encoder has, got {most}.")
    if isinstance(wanted, int):
        return [int(place) for place in np.linspace(0, total - 1, wanted).round()]
    return [number - 1 for number in wanted]


def keep_layers(model: PreTrainedModel, wanted: int | Sequence[int]) -> None:
    """Leave out all layers of an encoder but some; model and config change in place.

    What is left is an ordinary model of its family with fewer layers, so `from_pretrained` loads what it saves.

    Args:
        model: The family's own sequence-classification class.
        wanted: As for `choose_layers`.

    Raises:
        RecipeError: The encoder has fewer layers, shares one among all, or needs its first.
    """
    parts, family = find_parts(model), model.config.model_type
    if parts.is_shared:
        raise RecipeError(
            f"strategy.keep_layers: the layers of {family} share their weights: none can be left out. Remove it."
        )
    places = choose_layers(wanted, len(parts.layers))
    if places[0] and family == "modernbert":
        raise RecipeError(
            f"strategy.keep_layers: the first layer of {family} is unlike the others and must stay. Begin with 1."
        )
    name = parts.layers[0].rpartition(".")[0]
    parent, _, last = name.rpartition(".")
    layers = model.get_submodule(name)
    assert isinstance(layers, nn.ModuleList)
    setattr(model.get_submodule(parent), last, nn.ModuleList([layers[place] for place in places]))
    types = getattr(model.config, "layer_types", None)
    if types is not None:
        model.config.layer_types = [types[place] for place in places]
    model.config.num_hidden_layers = len(places)
