"""Settings of learning from a handful of examples."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.section import PositiveFloat, TechniqueSection
from nlp_transfer.recipe.strategies.facts import LOSS, SCHEDULE, Gain, Knob, StrategyFacts

__all__ = ["FACTS", "FewShotConfig"]


class FewShotConfig(TechniqueSection):
    """Learn from a handful of examples a class: contrastive pairs then a head, cloze questions, or class means."""

    use_when: ClassVar[str] = "two to thirty-two examples a class"

    kind: Literal["few_shot"]
    method: Literal["contrastive", "cloze", "prototypes"] = Field(
        "contrastive",
        description="contrastive: pull the vectors of a class together, then fit a head (after SetFit, Tunstall et al. "
        "2022). cloze: score words at a mask (Schick and Schutze 2021). prototypes: nearest class mean (Snell et al. "
        "2017).",
    )
    pooling: Literal["mean", "first", "max"] = Field("mean", description="How a text's tokens become one vector.")
    temperature: PositiveFloat = Field(
        0.2,
        description="Contrastive: a lower value gives the hardest pairs more weight (Khosla et al. 2020); chosen on "
        "the validation splits of three data sets.",
    )
    examples_per_class: Annotated[int, Field(ge=2)] = Field(
        4, description="Contrastive: examples of one class that come together in a batch; chosen."
    )
    penalty: PositiveFloat = Field(
        1.0,
        description="Inverse penalty strength C of the logistic head for two classes; it grows with the number of "
        "classes, as each has a smaller share of the examples; chosen.",
    )
    pattern: str = Field("{text} It was {mask}.", description="Cloze: template with the places of text and mask.")
    verbalizers: dict[str, str] | None = Field(
        None, description="Cloze: the word of each label, a single token; the label's name where absent."
    )


FACTS = StrategyFacts(
    FewShotConfig,
    says="eight rows a class, contrastive",
    trains="pairs",
    loads_with="nlp_transfer",
    recipe="topic/few_shot",
    recipe_many="intent/few_shot",
    learning_rate=1e-4,
    space={
        "contrastive": (
            *SCHEDULE,
            Knob("training.weight_decay", choices=(0.0, 0.01, 0.1)),
            Knob("strategy.temperature", reach=4.0),
            Knob("strategy.penalty", reach=16.0),
            Knob("strategy.pooling", choices=("mean", "first", "max")),
        ),
        "cloze": (*SCHEDULE, *LOSS),
        "prototypes": (Knob("strategy.pooling", choices=("mean", "first", "max")),),
    },
    once=1.0,
    step=3.0,
    rung=3,
    work=2.0,
    worth=0.5,
    for_few=True,
    gain=Gain((0.15, -0.04, -0.12, 0.00, 0.00), (0.147, -0.042, -0.12, -0.016, -0.01), 0.047),
)
