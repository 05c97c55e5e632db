"""Settings of zero-shot classification."""

from typing import ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.section import PositiveFloat, TechniqueSection
from nlp_transfer.recipe.strategies.facts import StrategyFacts

__all__ = ["FACTS", "ZeroShotConfig"]


class ZeroShotConfig(TechniqueSection):
    """Train nothing: compare each text with words for the labels, or use the head of an earlier classifier."""

    use_when: ClassVar[str] = "no labelled rows yet, labels that words can describe, or a classifier of similar labels"

    kind: Literal["zero_shot"]
    method: Literal["label_embedding", "entailment", "reuse"] = Field(
        "label_embedding",
        description="label_embedding: cosine of text and label. entailment: encoder.name is a classifier of natural "
        "language inference (Yin et al. 2019). reuse: encoder.name is a classifier whose labels are mapped.",
    )
    template: str = Field(
        "This text is about {}.", description="Sentence around a label's words, which replace {} (label_embedding)."
    )
    hypothesis_template: str = Field(
        "This text is about {}.",
        description="Hypothesis about a text; a label's words replace {} (entailment).",
    )
    descriptions: dict[str, str] = Field(
        default_factory=dict, description="Words for a label by its name; the name itself where absent."
    )
    scale: PositiveFloat = Field(
        20.0, description="Factor on the cosine (label_embedding), as in the training of sentence encoders."
    )
    mapping: dict[str, str] = Field(
        default_factory=dict,
        description="Label of the earlier classifier to label of the data (reuse); equal names where absent.",
    )
    calibrate: Literal["none", "temperature"] = Field(
        "none", description="temperature: one number, fitted on the labels of validation (Guo et al. 2017)."
    )


FACTS = StrategyFacts(
    ZeroShotConfig,
    says="the names of the labels, no training",
    trains="nothing",
    loads_with="nlp_transfer",
    recipe="topic/zero_shot",
    step=0.0,
    rung=1,
    worth=0.6,
    is_seeded=False,
    for_few=True,
)
