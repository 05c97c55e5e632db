"""Bottleneck adapters: small networks in every layer are trained, and the head; the rest of the encoder stays."""

from nlp_transfer.models.bottleneck import AdapterClassifier
from nlp_transfer.models.encoder import LoadedEncoder
from nlp_transfer.models.heads import find_head_modules
from nlp_transfer.models.layers import list_norms
from nlp_transfer.recipe.schema import AdaptersConfig
from nlp_transfer.strategies.base import Adapted, Strategy

__all__ = ["STRATEGY", "adapt_adapters"]


def adapt_adapters(loaded: LoadedEncoder, config: AdaptersConfig) -> Adapted:
    """Put adapters into the layers of an encoder and close the encoder itself.

    Args:
        loaded: The encoder with its new head.
        config: Where the adapters go, and their shape.

    Returns:
        A classifier that starts with the encoder's own logits, bit for bit.

    Raises:
        RecipeError: The family is not known, or its layers are narrower than the reduction.

    Source:
        Houlsby et al. 2019, section 2.1, https://arxiv.org/abs/1902.00751; Pfeiffer et al. 2021,
        https://arxiv.org/abs/2005.00247; He et al. 2022 (parallel, scaled), section 3.3,
        https://arxiv.org/abs/2110.04366. Departures: the projection up starts at zero rather than near it; a family's
        own dropout on a sublayer's output follows the adapter; the norms stay closed unless ``norms`` says otherwise.
    """
    model = loaded.model
    prefix = f"{model.base_model_prefix}."
    heads = tuple(f"{name}." for name in find_head_modules(model) if not name.startswith(prefix))
    new = set(loaded.new_parameters)
    norms = set(list_norms(model)) if config.norms else set()
    trained = [name for name, _ in model.named_parameters() if name in new | norms or name.startswith(heads)]
    model.requires_grad_(False)
    for name in trained:
        model.get_parameter(name).requires_grad_(True)
    wrapped = AdapterClassifier(
        model,
        loaded.labels,
        variant=config.variant,
        reduction=config.reduction,
        activation=config.activation,
        dropout=config.dropout,
        scale=config.scale,
        input_norm=config.input_norm,
        trained=trained,
    )
    return Adapted(wrapped, "nlp_transfer", new_parameters=frozenset(f"encoder.{name}" for name in new))


STRATEGY = Strategy(kind="adapters", adapt=adapt_adapters)
