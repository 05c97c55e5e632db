"""Settings of fixed features."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.section import PositiveFloat, PositiveInt, TechniqueSection
from nlp_transfer.recipe.strategies.facts import Knob, StrategyFacts

__all__ = ["FACTS", "FeaturesConfig"]


class FeaturesConfig(TechniqueSection):
    """Run the encoder once and fit a small classifier on its vectors, without gradients through the encoder."""

    use_when: ClassVar[str] = "an answer in a minute, few rows, or many classifiers on one encoder"

    kind: Literal["features"]
    head: Literal["logistic", "svm", "knn", "mlp"] = Field(
        "logistic", description="Logistic (ridge for regression), linear support vectors, nearest neighbors, or an MLP."
    )
    layers: Annotated[list[int], Field(min_length=1)] = Field(
        default_factory=lambda: [-1], description="Layers to read: 0 is the embeddings, 1 the first, -1 the last."
    )
    combine: Literal["mean", "concat"] = Field("mean", description="How several layers become one vector.")
    pooling: Literal["mean", "first", "max"] = Field("mean", description="How a text's tokens become one vector.")
    normalize: bool = Field(True, description="Scale every vector to length 1, as sentence encoders are trained.")
    penalties: Annotated[list[PositiveFloat], Field(min_length=1)] = Field(
        default_factory=lambda: [1.0, 4.0, 16.0, 64.0],
        description="Inverse penalty strengths C for cross-validation to choose from (logistic and svm); chosen.",
    )
    folds: Annotated[int, Field(ge=2)] = Field(3, description="Folds of that cross-validation; chosen.")
    neighbors: PositiveInt = Field(10, description="How many neighbors vote (knn); chosen.")
    hidden: PositiveInt = Field(256, description="Width of the hidden layer (mlp); chosen.")


FACTS = StrategyFacts(
    FeaturesConfig,
    says="vectors of the encoder, logistic regression",
    trains="head",
    loads_with="nlp_transfer",
    recipe="intent/features",
    space=(
        Knob("strategy.head", choices=("logistic", "svm")),
        Knob("strategy.pooling", choices=("mean", "first", "max")),
        Knob("strategy.layers", choices=([-1], [-2], [-1, -2], [-1, -2, -3, -4])),
        Knob("strategy.combine", choices=("mean", "concat")),
        Knob("strategy.normalize", choices=(True, False)),
        # The first token's vectors hardly differ between texts; only a weak penalty can use such small differences.
        Knob("strategy.penalties", choices=([1.0, 4.0, 16.0, 64.0], [1e2, 1e3, 1e4, 1e5])),
    ),
    once=1.0,
    step=0.0,
    rung=2,
    worth=0.8,
)
