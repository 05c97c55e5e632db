"""What every strategy hands to the engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from nlp_transfer.contracts import Encoded, Guide, Loader, Prepared, Splits, Track
from nlp_transfer.data.target_scale import TargetScale
from nlp_transfer.engine.precision import choose_precision
from nlp_transfer.engine.predict.forward import Feeder
from nlp_transfer.engine.predict.logits import predict_logits
from nlp_transfer.engine.train.objectives import Objective
from nlp_transfer.engine.train.window import Window, run_window_by_parts
from nlp_transfer.models.encoder import LoadedEncoder
from nlp_transfer.models.layers import EncoderParts
from nlp_transfer.recipe.schema import Recipe

__all__ = ["Adapted", "Material", "PrefixPlan", "Probe", "Stage", "Strategy"]


@dataclass(frozen=True)
class PrefixPlan:
    """The bottom of an encoder that does not move, so that it need run only once.

    Attributes:
        parts: Where embeddings and layers are.
        num_layers: Layers of the prefix, from the bottom.
    """

    parts: EncoderParts
    num_layers: int


@dataclass(frozen=True)
class Probe:
    """A stage before the training: the head alone, on what the pretrained encoder gives.

    Attributes:
        prefix: The whole encoder.
        epochs: Passes over train.
        learning_rate: Peak rate.
    """

    prefix: PrefixPlan
    epochs: int
    learning_rate: float


@dataclass(frozen=True)
class Material:
    """What a strategy is given to fit with, beyond what the loop does.

    Attributes:
        splits: Texts, labels and their names.
        prepared: The same, tokenized.
        recipe: Resolved; its ``training.seed`` is that of this fit.
        device: Where the model is.
        track: Shows work that takes long.
        target: Unit of a regression's target, in which texts and other models speak; ``prepared`` holds standard
            deviations from its mean. Of other tasks it changes nothing.
    """

    splits: Splits
    prepared: Prepared
    recipe: Recipe
    device: torch.device
    track: Track
    target: TargetScale = field(default_factory=TargetScale)

    @property
    def is_half(self) -> bool:
        """Whether what does not move may be run in bf16."""
        return choose_precision(self.recipe.training.precision, self.device.type).format == "bf16"

    def predict(self, model: nn.Module, prepared: Prepared, split: str, label: str) -> np.ndarray:
        """Score a split as the recipe's evaluation does.

        Args:
            model: On ``device``; not always the one that is fitted.
            prepared: Tokenized splits, as that model reads them.
            split: Which one.
            label: Name of the work where it is shown.

        Returns:
            Logits, float32, shape (N, C).
        """
        settings = self.recipe.evaluation
        feeder = Feeder(prepared, split, self.device)
        with self.track(label, feeder.encoded.num_examples) as advance:
            return predict_logits(
                model, feeder, batch_size=settings.batch_size, max_tokens=settings.max_tokens, progress=advance
            )


@dataclass(frozen=True)
class Stage:
    """What the loop does in place of fitting the logits of every example to its label.

    Attributes:
        prepared: Tokenized splits, where train is another than the recipe's: more rows, or other targets.
        objective: The loss; the task's own where absent.
        window: Turns the examples of an update into gradients.
        plan: Gives the windows of an epoch, in place of the recipe's own order.
        streams: Further rows that every update reads, by name, and how many of them.
        modules: What is trained beside the model and dropped behind the training, by name.
        guides: Steer weights and gradients, beside those of the strategy.
        evaluates: Whether validation is scored between epochs.
        evaluate: Scores it, in place of the model's own logits.
        reads_tokens: Whether a loss reads the hidden states of every token, so that none is left out of the last layer.
    """

    prepared: Prepared | None = None
    objective: Objective | None = None
    window: Window = run_window_by_parts
    plan: Callable[[int], Sequence[np.ndarray]] | None = None
    streams: Mapping[str, tuple[Encoded, int]] = field(default_factory=dict)
    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    guides: tuple[Guide, ...] = ()
    evaluates: bool = True
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None
    reads_tokens: bool = False


@dataclass
class Adapted:
    """An encoder that a strategy has made ready to train.

    Attributes:
        model: What is trained; parameters with ``requires_grad`` are the ones that move.
        format: How the artefact is saved: a plain ``transformers`` folder, a ``peft`` adapter folder, or one in a form
            of this package's own. Where nothing has ``requires_grad``, the loop is left out.
        eval_modules: Names of modules that stay in evaluation mode while training, because they are frozen.
        new_parameters: Names, in ``model``, of the newly initialised parameters: they take the head's learning rate.
        prefix: What need run only once; None where nothing at the bottom is frozen, or caching is off.
        probe: The stage that fits the head first; None for none.
        rates: Factor on the peak learning rate by parameter name; 1 where absent.
        guides: Steer weights and gradients while training.
        plan_stage: Given the data, says what the loop does otherwise than usual; None for nothing.
        fit_head: Fits what is not trained by gradients, after the loop, or in its place; None for nothing.
        to_artifact: Puts the trained model into the form that is saved; None where it has that form.
        merge: Whether the update is folded into the encoder before saving.
    """

    model: nn.Module
    format: Loader
    eval_modules: tuple[str, ...] = ()
    new_parameters: frozenset[str] = field(default_factory=frozenset)
    prefix: PrefixPlan | None = None
    probe: Probe | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    guides: tuple[Guide, ...] = ()
    plan_stage: Callable[[Material], Stage] | None = None
    fit_head: Callable[[Material], None] | None = None
    to_artifact: Callable[[nn.Module], nn.Module] | None = None
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
