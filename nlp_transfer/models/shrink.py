"""Take layers out of an encoder."""

from collections.abc import Sequence

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from nlp_transfer.errors import RecipeError
from nlp_transfer.models.encoder_parts import find_parts

__all__ = ["choose_layers", "keep_layers"]


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
