"""The variants of ``lora`` beyond low-rank matrices: each a config of peft."""

from collections.abc import Callable
from typing import Any

from peft import FourierFTConfig, IA3Config, LoHaConfig, LoKrConfig, MissConfig, OFTConfig
from torch import nn
from transformers import PreTrainedModel

from nlp_transfer.errors import RecipeError
from nlp_transfer.models.bottleneck import ADAPTER_PLACES, OUTER, find_places
from nlp_transfer.recipe.schema import LoraConfig

__all__ = ["TUNERS", "choose_tuner"]

Common = dict[str, Any]


def choose_tuner(model: PreTrainedModel, config: LoraConfig, common: Common) -> Any:
    """Lay out peft's own settings for a variant that is not one of low-rank matrices.

    Args:
        model: The family's own sequence-classification class.
        config: A section whose variant is in ``TUNERS``.
        common: What every config of peft is told.

    Returns:
        A config of peft whose update starts at nothing.

    Raises:
        RecipeError: A layer is of a width that the variant cannot divide, or smaller than the update.
    """
    return TUNERS[config.variant](model, config, common)


def _choose_ia3(model: PreTrainedModel, config: LoraConfig, common: Common) -> IA3Config:
    """Scale query and value, and what the feed-forward's last layer reads.

    The scores of attention are the same whether the query is scaled or, as in the paper, the key.
    """
    inner: list[str] = []
    if config.targets is None and model.config.model_type in ADAPTER_PLACES:
        inner = find_places(model)[OUTER]
    return IA3Config(**{**common, "target_modules": [*common["target_modules"], *inner]}, feedforward_modules=inner)


def _choose_oft(model: PreTrainedModel, config: LoraConfig, common: Common) -> OFTConfig:
    """Rotate the inputs of each matrix in blocks."""
    for name in common["target_modules"]:
        width = _get_linear(model, name).in_features
        if width % config.rank:
            raise RecipeError(
                [f"strategy.rank: the blocks of oft must divide the width of {name}, {width}, got {config.rank}."]
            )
    return OFTConfig(r=0, oft_block_size=config.rank, **common)


def _choose_fourierft(model: PreTrainedModel, config: LoraConfig, common: Common) -> FourierFTConfig:
    """Learn a few frequencies of the change of each matrix."""
    most = min(_get_linear(model, name).weight.numel() for name in common["target_modules"])
    if config.frequencies > most:
        raise RecipeError(
            [f"strategy.frequencies: expected at most {most}, the figures of a matrix, got {config.frequencies}."]
        )
    return FourierFTConfig(n_frequency=config.frequencies, init_weights=True, **common)


def _get_linear(model: PreTrainedModel, name: str) -> nn.Linear:
    """Find a linear layer by its name."""
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer


TUNERS: dict[str, Callable[[PreTrainedModel, LoraConfig, Common], Any]] = {
    "ia3": _choose_ia3,
    "oft": _choose_oft,
    "fourierft": _choose_fourierft,
    "loha": lambda _, config, common: LoHaConfig(r=config.rank, alpha=config.alpha, **common),
    "lokr": lambda _, config, common: LoKrConfig(r=config.rank, alpha=config.alpha, **common),
    "miss": lambda _, config, common: MissConfig(r=config.rank, miss_dropout=config.dropout, **common),
}
"""What lays out each variant's settings."""
