"""Settings of bottleneck adapters."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.section import OpenShare, PositiveInt, TechniqueSection
from nlp_transfer.recipe.strategies.facts import LOSS, SCHEDULE, SLOW_START, Knob, StrategyFacts

__all__ = ["FACTS", "AdaptersConfig"]


class AdaptersConfig(TechniqueSection):
    """Train small bottleneck networks inside the layers, and the head (Houlsby et al. 2019)."""

    use_when: ClassVar[str] = "many tasks on one unchanged encoder, each with a small file of its own"

    kind: Literal["adapters"]
    variant: Literal["houlsby", "pfeiffer", "parallel"] = Field(
        "pfeiffer",
        description="houlsby: after attention and feed-forward. pfeiffer: after the feed-forward (Pfeiffer et al. "
        "2021). parallel: beside the feed-forward (He et al. 2022).",
    )
    reduction: PositiveInt = Field(16, description="Width of the encoder divided by the width of the bottleneck.")
    activation: Literal["relu", "gelu", "silu"] = Field("relu", description="Between the projections down and up.")
    dropout: OpenShare = Field(0.0, description="Dropout inside the bottleneck.")
    scale: Annotated[float, Field(gt=0)] = Field(
        1.0, description="Factor on the outputs of the adapters; He et al. 2022 use 4 with parallel."
    )
    input_norm: bool = Field(
        False,
        description="Add a layer norm to the input of each adapter, as sublayer outputs of small encoders are small.",
    )
    norms: bool = Field(False, description="Train the encoder's layer norms too, as Houlsby et al. 2019 do.")


FACTS = StrategyFacts(
    AdaptersConfig,
    says="bottlenecks in every layer",
    trains="inside",
    loads_with="nlp_transfer",
    recipe="sentiment/adapters",
    recipe_many="intent/adapters",
    learning_rate=3e-3,
    variant_rates={"houlsby": 1e-3, "parallel": 1e-3},  # tried on 1,500 rows of TREC
    space=(
        *SCHEDULE,
        *LOSS,
        Knob("strategy.reduction", choices=(4, 8, 16, 32)),
        Knob("strategy.dropout", choices=(0.0, 0.1)),
        Knob("strategy.scale", choices=(1.0, 2.0, 4.0)),
    ),
    rung=7,
    work=1.2,
    stretch=SLOW_START,
    worth=0.5,
)
