"""Settings of full fine-tuning."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.section import OpenShare, PositiveInt, Section

__all__ = ["FullConfig"]


class FullConfig(Section):
    """Train every weight."""

    use_when: ClassVar[str] = "thousands of rows, or texts unlike those the encoder was pretrained on"

    kind: Literal["full"]
    l2_sp: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Pull towards the pretrained weights (L2-SP, Li et al. 2018); 0 is off."
    )
    mixout: OpenShare = Field(
        0.0, description="Share of weights swapped for the pretrained ones in each step (Lee et al. 2020); 0 is off."
    )
    head_init: Literal["random", "probe"] = Field(
        "random", description="probe: the head is fitted on frozen features first (LP-FT, Kumar et al. 2022)."
    )
    probe_epochs: PositiveInt = Field(20, description="Passes over the cached features for head_init probe; chosen.")
    probe_learning_rate: Annotated[float, Field(gt=0)] = Field(1e-3, description="Peak rate of the probe; chosen.")
