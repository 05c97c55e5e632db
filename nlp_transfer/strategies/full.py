"""Full fine-tuning: every weight of the encoder and the head moves."""

from nlp_transfer.models.encoder import LoadedEncoder
from nlp_transfer.recipe.schema import FullConfig
from nlp_transfer.strategies.base import Adapted, Strategy

__all__ = ["STRATEGY", "adapt_full"]


def adapt_full(loaded: LoadedEncoder, config: FullConfig) -> Adapted:
    """Open every weight for training.

    Args:
        loaded: The encoder with its new head.
        config: The strategy's section; it has no settings of its own.

    Returns:
        The same model, all of it trainable.

    Source:
        Devlin et al. 2019, section 3.2, https://arxiv.org/abs/1810.04805. No departures.
    """
    loaded.model.requires_grad_(True)
    return Adapted(loaded.model, "transformers", new_parameters=frozenset(loaded.new_parameters))


STRATEGY = Strategy(kind="full", adapt=adapt_full)
