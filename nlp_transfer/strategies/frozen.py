"""Frozen encoder: only the head moves, on features that stay as they were pretrained."""

from nlp_transfer.models.encoder import LoadedEncoder
from nlp_transfer.models.heads import list_head_parameters
from nlp_transfer.models.layers import find_parts
from nlp_transfer.recipe.schema import FrozenConfig
from nlp_transfer.strategies.base import Adapted, PrefixPlan, Strategy

__all__ = ["STRATEGY", "adapt_frozen"]


def adapt_frozen(loaded: LoadedEncoder, config: FrozenConfig) -> Adapted:
    """Close the encoder and leave the head, pooler included, open.

    The encoder also stays in evaluation mode, so that a text always has the same features.

    Args:
        loaded: The encoder with its new head.
        config: Whether the encoder runs once over the data, or once an epoch.

    Returns:
        The same model with a frozen encoder.

    Source:
        Peters et al. 2019, https://arxiv.org/abs/1903.05987, "feature extraction". The pooler belongs to the head
        here: no layer of the encoder reads it.
    """
    head = set(list_head_parameters(loaded.model))
    for name, parameter in loaded.model.named_parameters():
        parameter.requires_grad_(name in head)
    parts = find_parts(loaded.model)
    return Adapted(
        loaded.model,
        "transformers",
        eval_modules=(loaded.model.base_model_prefix,),
        new_parameters=frozenset(loaded.new_parameters),
        prefix=PrefixPlan(parts, len(parts.layers)) if config.cache_prefix else None,
    )


STRATEGY = Strategy(kind="frozen", adapt=adapt_frozen)
