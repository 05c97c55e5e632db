"""Strategies that add something small to an encoder and train that."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.section import OpenShare, PositiveInt, Section

__all__ = ["AdaptersConfig", "PromptsConfig"]


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


class PromptsConfig(Section):
    """Train vectors that stand in front of every text, and the head (Lester et al. 2021)."""

    use_when: ClassVar[str] = "the smallest file a task, on a large encoder; LoRA is more accurate on small ones"

    kind: Literal["prompts"]
    variant: Literal["prefix", "prompt", "p_tuning"] = Field(
        "prompt",
        description="prompt: word vectors (Lester et al. 2021). p_tuning: word vectors that a network makes (Liu et "
        "al. 2021). prefix: keys and values for every layer (Li and Liang 2021), for BERT, RoBERTa, XLM-R and "
        "ELECTRA only; stronger on small encoders.",
    )
    tokens: PositiveInt = Field(20, description="Prompts in front of a text; the encoder can read that many fewer.")
    init: Literal["vocabulary", "random"] = Field(
        "vocabulary", description="What prompt begins with: the vectors of words that are drawn, or noise."
    )
    project: bool = Field(False, description="Make the keys and values of prefix by a network while training.")
