"""What every section of a recipe has in common."""

import operator
from collections.abc import Iterable
from functools import reduce
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "OpenShare",
    "PositiveFloat",
    "PositiveInt",
    "Section",
    "TechniqueSection",
    "join_sections",
    "read_kind",
]

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
OpenShare = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """Base of every section: refuses unknown keys and wrong types, and is immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class TechniqueSection(Section):
    """Base of the settings of every strategy and every method."""

    use_when: ClassVar[str] = ""
    """When to choose the technique, in one line."""

    kind: str


def read_kind(section: type[BaseModel]) -> str:
    """Read the name of a technique from its ``kind``.

    Args:
        section: A section whose ``kind`` is a literal of one choice.
    """
    return str(get_args(section.model_fields["kind"].annotation)[0])


def join_sections(sections: Iterable[type[TechniqueSection]]) -> Any:
    """Make the union type of several sections, with ``kind`` as the discriminator.

    Args:
        sections: At least two sections.
    """
    return Annotated[reduce(operator.or_, sections), Field(discriminator="kind")]
