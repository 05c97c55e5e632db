"""Settings of layer-wise fine-tuning."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.section import Section

__all__ = ["LayerwiseConfig"]


class LayerwiseConfig(Section):
    """Train some of the layers, or all at rates that fall from the top."""

    use_when: ClassVar[str] = "hundreds of rows like the encoder's own world, or full is too slow"

    kind: Literal["layerwise"]
    freeze_embeddings: bool = Field(True, description="Leave token and position embeddings as they are.")
    freeze_layers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Layers from the bottom that stay as they are; half of them where absent."
    )
    only: Literal["all", "biases", "norms"] = Field(
        "all", description="Of the open layers: everything, biases (BitFit, Ben Zaken et al. 2021) or norms."
    )
    unfreeze: Literal["at_once", "gradual"] = Field(
        "at_once", description="gradual: one layer more an epoch, from the top (Howard and Ruder 2018)."
    )
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="Factor on the learning rate for each layer further down (Clark et al. 2020)."
    )
    reinit_layers: Annotated[int, Field(ge=0)] = Field(
        0, description="Layers from the top that are drawn anew (Zhang et al. 2021)."
    )
    cache_prefix: bool = Field(True, description="Run the frozen layers once over the data, not once an epoch.")
