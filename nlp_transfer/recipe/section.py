"""What every section of a recipe has in common."""

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["OpenShare", "PositiveFloat", "PositiveInt", "Section", "StrategySection"]

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
OpenShare = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """What every section has in common: unknown keys and wrong types are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class StrategySection(Section):
    """What the settings of every strategy have in common."""

    use_when: ClassVar[str] = ""
    """When to choose it, in one line."""

    kind: str
