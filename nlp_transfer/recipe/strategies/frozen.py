"""Settings of a frozen encoder."""

from typing import ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.section import TechniqueSection
from nlp_transfer.recipe.strategies.facts import LOSS, SCHEDULE, StrategyFacts

__all__ = ["FACTS", "FrozenConfig"]


class FrozenConfig(TechniqueSection):
    """Train the head only; the encoder is frozen."""

    use_when: ClassVar[str] = "few rows, little time, or one encoder that serves several tasks"

    kind: Literal["frozen"]
    cache_prefix: bool = Field(True, description="Run the frozen encoder once over the data, not once an epoch.")


FACTS = StrategyFacts(
    FrozenConfig,
    says="the head alone",
    trains="head",
    loads_with="transformers",
    learning_rate=1e-3,
    space=(*SCHEDULE, *LOSS),
)
