"""Settings of prompts."""

from typing import ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.section import PositiveInt, TechniqueSection
from nlp_transfer.recipe.strategies.facts import LOSS, SCHEDULE, Knob, StrategyFacts

__all__ = ["FACTS", "PromptsConfig"]


class PromptsConfig(TechniqueSection):
    """Train vectors in front of every text, and the head (Lester et al. 2021)."""

    use_when: ClassVar[str] = "the smallest file for each task, on a large encoder; LoRA is more accurate on small ones"

    kind: Literal["prompts"]
    variant: Literal["prefix", "prompt", "p_tuning"] = Field(
        "prompt",
        description="prompt: word vectors (Lester et al. 2021). p_tuning: word vectors made by a network (Liu et "
        "al. 2021). prefix: keys and values for every layer (Li and Liang 2021), for BERT, RoBERTa, XLM-R and "
        "ELECTRA only; stronger on small encoders.",
    )
    tokens: PositiveInt = Field(20, description="Vectors in front of a text; the encoder reads that many fewer tokens.")
    init: Literal["vocabulary", "random"] = Field(
        "vocabulary", description="Initial values of prompt: the vectors of randomly drawn words, or noise."
    )
    project: bool = Field(False, description="Compute the keys and values of prefix with a network during training.")


FACTS = StrategyFacts(
    PromptsConfig,
    says="vectors in front of the text",
    trains="inside",
    loads_with="peft",
    learning_rate=1e-1,
    variant_rates={"p_tuning": 1e-2, "prefix": 3e-2},  # tried on 1,500 rows of TREC
    space=(*SCHEDULE, *LOSS, Knob("strategy.tokens", choices=(5, 10, 20, 50))),
    reserves="tokens",
)
