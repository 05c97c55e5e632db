"""Settings of full fine-tuning."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.section import OpenShare, PositiveInt, TechniqueSection
from nlp_transfer.recipe.strategies.facts import HEAD, LOSS, SCHEDULE, Gain, Knob, StrategyFacts

__all__ = ["FACTS", "FullConfig"]


class FullConfig(TechniqueSection):
    """Train every weight."""

    use_when: ClassVar[str] = "thousands of rows, or texts unlike those the encoder was pretrained on"

    kind: Literal["full"]
    l2_sp: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Weight of the pull towards the pretrained weights (L2-SP, Li et al. 2018); 0 is off."
    )
    mixout: OpenShare = Field(
        0.0, description="Share of weights swapped for the pretrained ones in each step (Lee et al. 2020); 0 is off."
    )
    head_init: Literal["random", "probe"] = Field(
        "random", description="probe: the head is fitted on frozen features first (LP-FT, Kumar et al. 2022)."
    )
    probe_epochs: PositiveInt = Field(20, description="Passes over the cached features for head_init probe; chosen.")
    probe_learning_rate: Annotated[float, Field(gt=0)] = Field(1e-3, description="Peak rate of the probe; chosen.")


FACTS = StrategyFacts(
    FullConfig,
    says="every weight",
    trains="all",
    loads_with="transformers",
    recipe="sentiment/full",
    recipe_many="intent/full",
    learning_rate=5e-5,  # BERT's upper choice (Devlin et al. 2019)
    space=(
        *SCHEDULE,
        *HEAD,
        *LOSS,
        Knob("strategy.l2_sp", choices=(0.0, 0.001, 0.01)),
        Knob("strategy.head_init", choices=("random", "probe")),
    ),
    step=3.0,  # a backward pass takes two forward passes' work
    rung=5,
    work=1.0,
    worth=1.5,
    needs_pretraining=False,
    gain=Gain((0.08, 0.20, -0.12, 0.05, 0.05), (0.093, 0.162, -0.093, 0.032, 0.06), 0.044),
)
