"""Frozen encoder: only the head moves, on features that stay as they were pretrained."""

from nlp_transfer.models.encoder import LoadedEncoder
from nlp_transfer.models.heads import list_head_parameters
from nlp_transfer.recipe.schema import FrozenConfig
from nlp_transfer.strategies.base import Adapted, Strategy

__all__ = ["STRATEGY", "adapt_frozen"]


def adapt_frozen(loaded: LoadedEncoder, config: FrozenConfig) -> Adapted:
    """Close the encoder and leave the head, pooler included, open.

    The encoder also stays in evaluation mode, so that a text always has the same features.

    Args:
        loaded: The encoder with its new head.
        config: The strategy's section; it has no settings of its own.

    Returns:
        The same model with a frozen encoder.

    Source:
        Peters et al. 2019, https://arxiv.org/abs/1903.05987, "feature extraction". The pooler belongs to the head
        here: no layer of the encoder reads it.
    """
    head = set(list_head_parameters(loaded.model))
    for name, parameter in loaded.model.named_parameters():
        parameter.requires_grad_(name in head)
    prefix = loaded.model.base_model_prefix
    return Adapted(loaded.model, "transformers", still=(prefix,), new_parameters=frozenset(loaded.new_parameters))


STRATEGY = Strategy(kind="frozen", adapt=adapt_frozen)
