"""Settings of prompts."""

from typing import ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.section import PositiveInt, TechniqueSection
from nlp_transfer.recipe.strategies.facts import LOSS, SCHEDULE, Knob, StrategyFacts

__all__ = ["FACTS", "PromptsConfig"]


class PromptsConfig(TechniqueSection):
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
