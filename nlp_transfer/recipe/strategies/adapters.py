"""Settings of bottleneck adapters."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.section import OpenShare, PositiveInt, Section

__all__ = ["AdaptersConfig"]


class AdaptersConfig(Section):
    """Train small bottleneck networks inside the layers, and the head (Houlsby et al. 2019)."""

    use_when: ClassVar[str] = "many tasks on one encoder that stays as it is, each with a small file of its own"

    kind: Literal["adapters"]
    variant: Literal["houlsby", "pfeiffer", "parallel"] = Field(
        "pfeiffer",
        description="houlsby: after attention and feed-forward. pfeiffer: after the feed-forward (Pfeiffer et al. "
        "2021). parallel: beside the feed-forward (He et al. 2022).",
    )
    reduction: PositiveInt = Field(16, description="Width of the encoder over that of the bottleneck.")
    activation: Literal["relu", "gelu", "silu"] = Field("relu", description="Between the projections down and up.")
    dropout: OpenShare = Field(0.0, description="Dropout inside the bottleneck.")
    scale: Annotated[float, Field(gt=0)] = Field(
        1.0, description="Factor on what the adapters give; He et al. 2022 use 4 with parallel."
    )
    input_norm: bool = Field(
        False,
        description="A layer norm of its own on what each adapter reads: sublayers of small encoders give little.",
    )
    norms: bool = Field(False, description="Train the encoder's layer norms too, as Houlsby et al. 2019 do.")
