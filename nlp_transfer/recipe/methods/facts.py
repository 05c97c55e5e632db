"""The facts about a method beside its settings; everything that lists methods derives from them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from nlp_transfer.contracts import TaskKind
from nlp_transfer.recipe.section import TechniqueSection, read_kind

__all__ = ["MethodFacts"]


@dataclass(frozen=True)
class MethodFacts:
    """One row of the table of methods.

    Attributes:
        section: Its settings; ``kind`` is its name, the docstring says what it does, ``use_when`` when to choose it.
        recipe: Shipped recipe.
        phase: ``change`` for a method that changes one fit (its windows, streams or losses), ``around`` for a method
            that runs one or several fits.
        trains: Strategies it goes with, by the weights that they train; see `StrategyFacts.trains`.
        tasks: Kinds of tasks.
        needs_texts: Whether it needs unlabelled texts.
        replaces_window: Whether it decides how the examples of a step become gradients; only one such method can be
            active.
        is_off: Says whether settings turn the method off, such as a weight of 0.
        technique: Module that implements it; named like ``kind`` where empty.
    """

    section: type[TechniqueSection]
    recipe: str
    phase: Literal["change", "around"]
    trains: tuple[str, ...]
    tasks: tuple[TaskKind, ...]
    is_off: Callable[[Any], bool]
    needs_texts: bool = False
    replaces_window: bool = False
    technique: str = ""

    @property
    def kind(self) -> str:
        """Its name in recipes."""
        return read_kind(self.section)
