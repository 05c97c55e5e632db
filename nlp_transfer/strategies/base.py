"""What every strategy hands to the engine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from nlp_transfer.models.encoder import LoadedEncoder

__all__ = ["Adapted", "Strategy"]


@dataclass
class Adapted:
    """An encoder that a strategy has made ready to train.

    Attributes:
        model: What is trained; parameters with ``requires_grad`` are the ones that move.
        format: How the artefact is saved: a plain ``transformers`` folder or a ``peft`` adapter folder.
        still: Names of modules that stay in evaluation mode while training, because they are frozen.
        new_parameters: Names, in ``model``, of the newly initialised parameters: they take the head's learning rate.
        merge: Whether the update is folded into the encoder before saving.
    """

    model: nn.Module
    format: Literal["transformers", "peft"]
    still: tuple[str, ...] = ()
    new_parameters: frozenset[str] = field(default_factory=frozenset)
    merge: bool = False

    @property
    def num_parameters(self) -> int:
        """Count of weights in the whole model."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def num_trainable(self) -> int:
        """Count of weights that training moves."""
        return sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)


@dataclass(frozen=True)
class Strategy:
    """One row of the table of strategies.

    Attributes:
        kind: The name in recipes.
        adapt: Makes a loaded encoder ready to train. Takes the encoder and the strategy's section of the recipe.
    """

    kind: str
    adapt: Callable[[LoadedEncoder, Any], Adapted]
