"""Settings of continued masked-language pretraining."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.methods.facts import MethodFacts
from nlp_transfer.recipe.section import TechniqueSection
from nlp_transfer.recipe.strategies.facts import Knob

__all__ = ["FACTS", "DomainMlmConfig"]


class DomainMlmConfig(TechniqueSection):
    """Pretrain the encoder further on texts of the task, before it is fine-tuned (Gururangan et al. 2020)."""

    use_when: ClassVar[str] = (
        "many texts of the domain, with or without labels, in words that are rare in its pretraining"
    )

    kind: Literal["domain_mlm"]
    texts: Literal["all", "train"] = Field(
        "all", description="all: texts of train and texts without labels. train: those of train alone."
    )
    epochs: Annotated[float, Field(ge=0)] = Field(
        5.0, description="Passes over the texts; 0 is off. Gururangan et al. use 100 on a task's own texts. Chosen."
    )
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Peak rate; training.learning_rate where absent."
    )
    masked_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.15, description="Share of the words that are hidden (Devlin et al. 2019)."
    )
    whole_words: bool = Field(True, description="Hide all tokens of a word together.")
    held_out: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05, description="Share of the texts that are left out, to measure perplexity before and after. Chosen."
    )


FACTS = MethodFacts(
    DomainMlmConfig,
    recipe="domain/mlm",
    phase="before",
    trains=("all", "inside"),
    tasks=("classification", "ordinal", "multi_label", "regression"),
    space=(
        Knob("methods.domain_mlm.epochs", factors=(0.5, 1.0, 2.0)),
        Knob("methods.domain_mlm.masked_share", choices=(0.15, 0.3)),
    ),
    is_off=lambda config: config.epochs == 0,
)
"""What is known of a method beside its settings: everything that lists methods derives from it."""
