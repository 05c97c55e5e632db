"""The embeddings and the layers of an encoder, by name, from the bottom up."""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from nlp_transfer.errors import EncoderError
from nlp_transfer.models.heads import find_head_modules

__all__ = ["EncoderParts", "find_parts", "find_word_embeddings", "list_biases", "list_norms"]

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
