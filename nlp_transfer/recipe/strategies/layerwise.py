"""Settings of layer-wise fine-tuning."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.section import TechniqueSection
from nlp_transfer.recipe.strategies.facts import HEAD, LOSS, SCHEDULE, Gain, Knob, StrategyFacts

__all__ = ["FACTS", "LayerwiseConfig"]


class LayerwiseConfig(TechniqueSection):
    """Train some of the layers, or all of them at rates that fall from the top layer down."""

    use_when: ClassVar[str] = "hundreds of rows like the texts of its pretraining, or full is too slow"

    kind: Literal["layerwise"]
    freeze_embeddings: bool = Field(True, description="Freeze token and position embeddings.")
    freeze_layers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="How many layers to freeze, from the bottom; half of them where absent."
    )
    only: Literal["all", "biases", "norms"] = Field(
        "all", description="What to train of the open layers: all, biases (BitFit, Ben Zaken et al. 2021) or norms."
    )
    unfreeze: Literal["at_once", "gradual"] = Field(
        "at_once", description="gradual: one more layer each epoch, from the top (Howard and Ruder 2018)."
    )
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="Factor on the learning rate for each layer further down (Clark et al. 2020)."
    )
    reinit_layers: Annotated[int, Field(ge=0)] = Field(
        0, description="How many layers to reinitialize, from the top (Zhang et al. 2021)."
    )
    cache_prefix: bool = Field(True, description="Run the frozen layers once over the data, not once an epoch.")


FACTS = StrategyFacts(
    LayerwiseConfig,
    says="the upper half of the layers",
    trains="upper",
    loads_with="transformers",
    recipe="sentiment/layerwise",
    learning_rate=1e-4,
    space=(
        *SCHEDULE,
        *HEAD,
        *LOSS,
        Knob("strategy.layer_decay", choices=(0.7, 0.8, 0.9, 1.0)),
        Knob("strategy.reinit_layers", choices=(0, 1)),
    ),
    # Half of the layers run once and are cached; a step is forward and backward through the other half.
    once=0.5,
    step=1.5,
    rung=4,
    work=0.45,
    worth=0.9,
    gain=Gain((0.10, 0.16, -0.12, 0.05, 0.00), (0.113, 0.138, -0.107, 0.033, 0.009), 0.038),
)
