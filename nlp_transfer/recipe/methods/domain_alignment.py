"""Settings of the alignment of domains."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.methods.facts import MethodFacts
from nlp_transfer.recipe.section import PositiveInt, TechniqueSection
from nlp_transfer.recipe.strategies.facts import Knob

__all__ = ["FACTS", "DomainAlignmentConfig"]


class DomainAlignmentConfig(TechniqueSection):
    """Learn features from which the domain of a text cannot be predicted (Ganin et al. 2016)."""

    use_when: ClassVar[str] = "labels of one domain and texts of another, with features that differ between the two"

    kind: Literal["domain_alignment"]
    loss: Literal["dann"] = Field(
        "dann", description="dann: a head predicts the domain, and the encoder gets its gradient reversed."
    )
    weight: Annotated[float, Field(ge=0)] = Field(
        0.1, description="Most that the reversed gradient counts; it grows from 0 over the training. 0 is off. Chosen."
    )
    steepness: Annotated[float, Field(gt=0)] = Field(
        10.0, description="How early the weight has grown (Ganin et al. 2016, section 5.2.2)."
    )
    hidden: PositiveInt = Field(100, description="Width of the head's hidden layer (Ganin et al. 2016).")


FACTS = MethodFacts(
    DomainAlignmentConfig,
    recipe="domain/dann",
    phase="change",
    trains=("all", "upper", "inside"),
    tasks=("classification", "ordinal", "multi_label", "regression"),
    space=(Knob("methods.domain_alignment.weight", reach=5.0),),
    is_off=lambda config: config.weight == 0,
    needs_texts=True,
    replaces_window=True,
)
