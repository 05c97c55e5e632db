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
    """What every section has in common: unknown keys and wrong types are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class TechniqueSection(Section):
    """What the settings of every strategy and every method have in common."""

    use_when: ClassVar[str] = ""
    """When to choose it, in one line."""

    kind: str


def read_kind(section: type[BaseModel]) -> str:
    """The name that a section of several kinds goes by, from its only choice.

    Args:
        section: Its ``kind`` is a literal.
    """
    return str(get_args(section.model_fields["kind"].annotation)[0])


def join_sections(sections: Iterable[type[TechniqueSection]]) -> Any:
    """The type of a place where any of some sections may stand, told apart by ``kind``.

    Args:
        sections: At least two.
    """
    return Annotated[reduce(operator.or_, sections), Field(discriminator="kind")]
