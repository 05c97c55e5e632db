"""Settings of distillation."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.section import PositiveInt, Section

__all__ = ["DistillConfig"]


class DistillConfig(Section):
    """Train a smaller encoder on what a fine-tuned classifier says of the texts (Hinton et al. 2015)."""

    use_when: ClassVar[str] = "a good classifier that is too slow, and many texts, labelled or not"

    kind: Literal["distill"]
    teacher: str = Field(min_length=1, description="Fine-tuned classifier of the same labels: run, folder or Hub id.")
    temperature: Annotated[float, Field(gt=0)] = Field(
        2.0, description="Softens what teacher and student say before the two are compared; no matter in a regression."
    )
    alpha: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.7, description="Weight of the teacher in the loss; the rest is that of the label. Chosen."
    )
    unlabelled: str | None = Field(None, min_length=1, description="Table of further texts, which the teacher labels.")
    keep_layers: PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)] | None = Field(
        None,
        description="Layers that the student keeps: how many, evenly spread, or which, 1 the first; all if absent.",
    )
