"""Settings of R-Drop."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.methods.facts import MethodFacts
from nlp_transfer.recipe.section import TechniqueSection

__all__ = ["FACTS", "RDropConfig"]


class RDropConfig(TechniqueSection):
    """Run every example twice under different dropout and penalize different outputs (Wu et al. 2021)."""

    use_when: ClassVar[str] = "a little more accuracy for twice the time, above all with few rows"

    kind: Literal["r_drop"]
    alpha: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Weight of the divergence between the two outputs; 0 is off. Wu et al. use 0.1 to 1 on GLUE."
    )


FACTS = MethodFacts(
    RDropConfig,
    recipe="sentiment/r_drop",
    phase="change",
    trains=("all", "upper", "inside", "head"),
    tasks=("classification", "ordinal", "multi_label", "regression"),
    is_off=lambda config: config.alpha == 0,
    replaces_window=True,
)
