"""Settings of domain alignment."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.methods.facts import MethodFacts
from nlp_transfer.recipe.section import PositiveInt, TechniqueSection

__all__ = ["FACTS", "DomainAlignmentConfig"]


class DomainAlignmentConfig(TechniqueSection):
    """Learn features that do not reveal whether a text is from the source or target domain (Ganin et al. 2016)."""

    use_when: ClassVar[str] = "labels of one domain, texts of another, and features that reveal the domain"

    kind: Literal["domain_alignment"]
    loss: Literal["dann"] = Field(
        "dann", description="dann: a head classifies the domain, and the encoder gets the head's gradient reversed."
    )
    weight: Annotated[float, Field(ge=0)] = Field(
        0.1, description="Final weight of the reversed gradient, which grows from 0 over training; 0 is off. Chosen."
    )
    steepness: Annotated[float, Field(gt=0)] = Field(
        10.0, description="How fast the weight grows (gamma of Ganin et al. 2016, section 5.2.2)."
    )
    hidden: PositiveInt = Field(100, description="Width of the head's hidden layer (Ganin et al. 2016).")


FACTS = MethodFacts(
    DomainAlignmentConfig,
    recipe="domain/dann",
    phase="change",
    trains=("all", "upper", "inside"),
    tasks=("classification", "ordinal", "multi_label", "regression"),
    is_off=lambda config: config.weight == 0,
    needs_texts=True,
    replaces_window=True,
)
