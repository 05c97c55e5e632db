"""Settings of a frozen encoder."""

from typing import ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.section import Section

__all__ = ["FrozenConfig"]


class FrozenConfig(Section):
    """Train the head only; the encoder stays as it was pretrained."""

    use_when: ClassVar[str] = "few rows, little time, or one encoder that serves several tasks"

    kind: Literal["frozen"]
    cache_prefix: bool = Field(True, description="Run the frozen encoder once over the data, not once an epoch.")
