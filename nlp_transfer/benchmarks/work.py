"""How many floating-point operations a job really needs, whoever does it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from nlp_transfer.recipe.schema import LayerwiseConfig, Recipe
from nlp_transfer.recipe.strategies.table import find_facts

__all__ = ["Sizes", "count_forward", "count_training", "read_sizes"]

DENSE = {
    "albert": "intermediate_size",
    "bert": "intermediate_size",
    "camembert": "intermediate_size",
    "distilbert": "hidden_dim",
    "electra": "intermediate_size",
    "mpnet": "intermediate_size",
    "roberta": "intermediate_size",
    "xlm-roberta": "intermediate_size",
}
"""Families whose layers are those of BERT, by what their configuration calls the inner size."""


@dataclass(frozen=True)
class Sizes:
    """What the count depends on.

    Attributes:
        hidden: D, size of a token's state.
        inner: F, size inside the feed-forward part.
        layers: Count of layers.
    """

    hidden: int
    inner: int
    layers: int


def read_sizes(config: Any) -> Sizes | None:
    """Read the sizes of an encoder.

    Args:
        config: A `PretrainedConfig`.

    Returns:
        None for a family whose layers are not those of BERT.

    Example:
        >>> from transformers import BertConfig
        >>> read_sizes(BertConfig())
        Sizes(hidden=768, inner=3072, layers=12)
    """
    if config.model_type not in DENSE:
        return None
    return Sizes(config.hidden_size, getattr(config, DENSE[config.model_type]), config.num_hidden_layers)


def count_forward(sizes: Sizes, lengths: np.ndarray) -> float:
    """Count the operations of one layer over texts.

    A token goes through four matrices of D x D (query, key, value, output) and two of D x F, two operations a weight;
    a text of L tokens takes 2 L^2 D for its scores and as many for the mean of the values. Not counted: padding, what
    is done element by element (norms, softmax, GELU, dropout), looking words up, and the head, which reads one state
    a text. Every layer counts in full, as in a dense encoder: leaving work out is a way to be fast, not less work.

    Args:
        sizes: Of the encoder.
        lengths: Real tokens a text, int, shape (N,), special tokens included.

    Returns:
        Floating-point operations, multiplications and additions alike.

    Example:
        >>> count_forward(Sizes(hidden=2, inner=8, layers=1), np.array([1, 3]))
        464.0
    """
    tokens = np.asarray(lengths, dtype=np.float64)
    matrices = 4 * sizes.hidden**2 + 2 * sizes.hidden * sizes.inner
    return float(2 * matrices * tokens.sum() + 4 * sizes.hidden * (tokens**2).sum())


def count_training(recipe: Recipe, sizes: Sizes, lengths: np.ndarray) -> float | None:
    """Count the operations of the forward and backward passes that training on texts needs.

    A backward pass takes as many for the gradients of states, and as many for those of weights. What no gradient has
    to reach is run once however many epochs there are: a frozen encoder, and the layers below the lowest that learns.
    Inside a frozen encoder (LoRA, adapters, prompts) the gradients of its weights are not needed, and what little is
    added there is not counted. Scoring, saving and updating are no part of it.

    Args:
        recipe: Strategy and epochs.
        sizes: Of the encoder.
        lengths: Real tokens a text of train, int, shape (N,).

    Returns:
        Floating-point operations; None where the strategy has no such count, or the number of steps is set apart.

    Example:
        >>> sizes, recipe = Sizes(hidden=2, inner=8, layers=1), Recipe.model_validate({"training": {"epochs": 2.0}})
        >>> count_training(recipe, sizes, np.array([1, 3])) == 2 * 3 * 464
        True
    """
    strategy, training = recipe.strategy, recipe.training
    if training.max_steps is not None:
        return None
    layer = count_forward(sizes, lengths)
    trains = find_facts(strategy).trains
    if trains == "head":
        return layer * sizes.layers
    if trains == "inside":
        return 2 * layer * sizes.layers * training.epochs
    if isinstance(strategy, LayerwiseConfig):
        if strategy.freeze_layers is None or strategy.unfreeze != "at_once" or strategy.only != "all":
            return None
        return layer * (strategy.freeze_layers + 3 * (sizes.layers - strategy.freeze_layers) * training.epochs)
    return 3 * layer * sizes.layers * training.epochs if trains == "all" else None
