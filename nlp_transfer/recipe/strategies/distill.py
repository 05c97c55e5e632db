"""Settings of distillation."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.section import PositiveInt, TechniqueSection
from nlp_transfer.recipe.strategies.facts import SCHEDULE, Knob, StrategyFacts

__all__ = ["FACTS", "DistillConfig"]


class DistillConfig(TechniqueSection):
    """Train a smaller encoder on the predictions of a fine-tuned classifier (Hinton et al. 2015)."""

    use_when: ClassVar[str] = "a good classifier that is too slow, and many texts, labelled or not"

    kind: Literal["distill"]
    teacher: str = Field(min_length=1, description="Fine-tuned classifier with the same labels: run, folder or Hub id.")
    temperature: Annotated[float, Field(gt=0)] = Field(
        2.0, description="Divides the logits of teacher and student before they are compared; unused in a regression."
    )
    alpha: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.7, description="Weight of the teacher in the loss; the labels have the rest. Chosen."
    )
    unlabelled: str | None = Field(None, min_length=1, description="Table of further texts that the teacher labels.")
    keep_layers: PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)] | None = Field(
        None,
        description="Layers that the student keeps: a count, evenly spread, or a list, 1 the first; all if absent.",
    )


FACTS = StrategyFacts(
    DistillConfig,
    says="a student of an earlier classifier",
    trains="student",
    loads_with="transformers",
    learning_rate=1e-4,
    space=(
        *SCHEDULE,
        Knob("training.weight_decay", choices=(0.0, 0.01, 0.1)),
        Knob("strategy.temperature", choices=(1.0, 2.0, 4.0)),
        Knob("strategy.alpha", choices=(0.3, 0.5, 0.7, 0.9)),
    ),
    needs_pretraining=False,
)
