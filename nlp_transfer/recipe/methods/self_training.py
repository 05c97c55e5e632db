"""Settings of self-training."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.methods.facts import MethodFacts
from nlp_transfer.recipe.section import TechniqueSection
from nlp_transfer.recipe.strategies.facts import Knob

__all__ = ["FACTS", "SelfTrainingConfig"]


class SelfTrainingConfig(TechniqueSection):
    """Train a model, predict unlabelled texts, and train again on both, in rounds (Scudder 1965)."""

    use_when: ClassVar[str] = "many unlabelled texts, of this domain or of a domain that you have no labels for"

    kind: Literal["self_training"]
    rounds: Annotated[int, Field(ge=0)] = Field(3, description="Rounds after the first fit; 0 is off. Chosen.")
    share: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.5,
        description="Share of the texts added in the last round, by confidence; it grows from round to round. Chosen.",
    )
    min_confidence: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.6, description="Calibrated probability below which no text is added. Chosen."
    )
    balance: bool = Field(
        True, description="Add texts of each class in proportion to its share of train (Zou et al. 2018)."
    )
    targets: Literal["hard", "soft"] = Field(
        "hard", description="hard: the most probable label. soft: the calibrated probabilities."
    )
    weight: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="Weight of a text with a predicted label, relative to a labelled one."
    )
    teacher: Literal["last", "mean"] = Field(
        "last", description="mean: probabilities are averaged over the rounds so far (as Laine and Aila 2017 do)."
    )
    settled: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.01, description="Share of changed labels below which no further round follows. Chosen."
    )


FACTS = MethodFacts(
    SelfTrainingConfig,
    recipe="domain/self_training",
    phase="around",
    trains=("all", "upper", "inside", "head", "pairs"),
    tasks=("classification", "ordinal"),
    space=(
        Knob("methods.self_training.share", choices=(0.25, 0.5, 1.0)),
        Knob("methods.self_training.min_confidence", choices=(0.0, 0.6, 0.8, 0.9)),
    ),
    is_off=lambda config: config.rounds == 0,
    needs_texts=True,
)
