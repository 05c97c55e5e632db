"""Settings of self-training."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.methods.facts import MethodFacts
from nlp_transfer.recipe.section import TechniqueSection

__all__ = ["FACTS", "SelfTrainingConfig"]


class SelfTrainingConfig(TechniqueSection):
    """Train, predict labels of unlabelled texts, and train on both, in rounds (Scudder 1965)."""

    use_when: ClassVar[str] = "many unlabelled texts, of this domain or of a domain that you have no labels for"

    kind: Literal["self_training"]
    rounds: Annotated[int, Field(ge=0)] = Field(3, description="Rounds after the first fit; 0 is off. Chosen.")
    share: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.5,
        description="Share of the texts used in the last round, most confident first; it grows by round. Chosen.",
    )
    min_confidence: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.6, description="Calibrated probability below which no text is used. Chosen."
    )
    balance: bool = Field(True, description="Keep the class shares of train among the texts used (Zou et al. 2018).")
    targets: Literal["hard", "soft"] = Field(
        "hard", description="hard: the likeliest label. soft: the calibrated probabilities, as a distribution."
    )
    weight: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="Weight in the loss of a text with a predicted label; a labelled row has 1."
    )
    teacher: Literal["last", "mean"] = Field(
        "last", description="mean: probabilities are averaged over the rounds so far (as Laine and Aila 2017 do)."
    )
    settled: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.01, description="No further round follows once at most this share of the predicted labels changes. Chosen."
    )


FACTS = MethodFacts(
    SelfTrainingConfig,
    recipe="domain/self_training",
    phase="around",
    trains=("all", "upper", "inside", "head", "pairs"),
    tasks=("classification", "ordinal"),
    is_off=lambda config: config.rounds == 0,
    needs_texts=True,
)
