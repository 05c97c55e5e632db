"""Strategies that leave the encoder as it is, or nearly so, and use what it knows."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.section import PositiveInt, Section

__all__ = ["FeaturesConfig", "FewShotConfig", "ZeroShotConfig"]

PositiveFloat = Annotated[float, Field(gt=0)]


class FeaturesConfig(Section):
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
        description="Inverse strengths C of the penalty that cross-validation chooses from (logistic and svm); chosen.",
    )
    folds: Annotated[int, Field(ge=2)] = Field(3, description="Folds of that cross-validation; chosen.")
    neighbors: PositiveInt = Field(10, description="How many neighbors vote (knn); chosen.")
    hidden: PositiveInt = Field(256, description="Width of the hidden layer (mlp); chosen.")


class FewShotConfig(Section):
    """Learn from a handful of examples a class: contrastive pairs then a head, cloze questions, or class means."""

    use_when: ClassVar[str] = "two to thirty-two examples a class"

    kind: Literal["few_shot"]
    method: Literal["contrastive", "cloze", "prototypes"] = Field(
        "contrastive",
        description="contrastive: pull a class together, then fit a head (after SetFit, Tunstall et al. 2022). cloze: "
        "score words in a gap (Schick and Schutze 2021). prototypes: nearest class mean (Snell et al. 2017).",
    )
    pooling: Literal["mean", "first", "max"] = Field("mean", description="How a text's tokens become one vector.")
    temperature: PositiveFloat = Field(
        0.2,
        description="Contrastive: the lower, the more the hardest pairs count (Khosla et al. 2020); chosen on the "
        "validation of three sets.",
    )
    examples_per_class: Annotated[int, Field(ge=2)] = Field(
        4, description="Contrastive: examples of one class that stand together in a window; chosen."
    )
    penalty: PositiveFloat = Field(
        1.0,
        description="Inverse strength C of the logistic head's penalty for two classes; grows with their count, as the "
        "examples of each become a smaller share of all; chosen.",
    )
    pattern: str = Field("{text} It was {mask}.", description="Cloze: where the text and the gap stand.")
    verbalizers: dict[str, str] | None = Field(
        None, description="Cloze: the word of each label, a single token; the label's own name where absent."
    )


class ZeroShotConfig(Section):
    """Train nothing: compare each text with words for the labels, or use the head of an earlier classifier."""

    use_when: ClassVar[str] = "no labelled rows yet, labels that words can describe, or a classifier of like labels"

    kind: Literal["zero_shot"]
    method: Literal["label_embedding", "entailment", "reuse"] = Field(
        "label_embedding",
        description="label_embedding: cosine of text and label. entailment: encoder.name is a classifier of natural "
        "language inference (Yin et al. 2019). reuse: encoder.name is a classifier whose labels are mapped.",
    )
    template: str = Field(
        "This text is about {}.", description="Sentence around a label's words; {} is their place (label_embedding)."
    )
    hypothesis_template: str = Field(
        "This text is about {}.",
        description="Hypothesis about a text; {} is the place of a label's words (entailment).",
    )
    descriptions: dict[str, str] = Field(
        default_factory=dict, description="Words for a label by its name; the name itself where absent."
    )
    scale: PositiveFloat = Field(
        20.0, description="Factor on the cosine (label_embedding); what sentence encoders are trained with."
    )
    mapping: dict[str, str] = Field(
        default_factory=dict,
        description="Label of the earlier classifier to label of the data (reuse); equal names where absent.",
    )
    calibrate: Literal["none", "temperature"] = Field(
        "none", description="temperature: one number, fitted to the labels of validation (Guo et al. 2017)."
    )
