"""Settings of the mix of a task's loss and masked-language modeling."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.methods.facts import MethodFacts
from nlp_transfer.recipe.section import TechniqueSection
from nlp_transfer.recipe.strategies.facts import Knob

__all__ = ["FACTS", "MixedMlmConfig"]


class MixedMlmConfig(TechniqueSection):
    """Fine-tune and train masked-language modeling on unlabelled texts at the same time (Karouzos et al. 2021)."""

    use_when: ClassVar[str] = "labels of one domain and texts of another, best after `domain_mlm`"

    kind: Literal["mixed_mlm"]
    weight: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="Share of masked-language modeling in the loss; 0 is off. Where absent, the share of the texts "
        "without labels among all (Karouzos et al. 2021).",
    )
    masked_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.15, description="Share of the words that are hidden (Devlin et al. 2019)."
    )
    whole_words: bool = Field(True, description="Hide all tokens of a word together.")


FACTS = MethodFacts(
    MixedMlmConfig,
    recipe="domain/mixed_mlm",
    phase="change",
    trains=("all", "inside"),
    tasks=("classification", "ordinal", "multi_label", "regression"),
    space=(Knob("methods.mixed_mlm.weight", choices=(0.25, 0.5, 0.75)),),
    is_off=lambda config: config.weight == 0,
    needs_texts=True,
    replaces_window=True,
)
"""What is known of a method beside its settings: everything that lists methods derives from it."""
