"""The facts about a method beside its settings; everything that lists methods derives from them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from nlp_transfer.contracts import TaskKind
from nlp_transfer.recipe.section import TechniqueSection, read_kind
from nlp_transfer.recipe.strategies.facts import Knob

__all__ = ["MethodFacts"]


@dataclass(frozen=True)
class MethodFacts:
    """One row of the table of methods.

    Attributes:
        section: Its settings; ``kind`` is its name, the docstring says what it does, ``use_when`` when to choose it.
        recipe: Shipped recipe.
        phase: Whether it comes before the fits, changes them (other windows, streams, losses), or goes around them.
        trains: Kinds of strategies it goes with, by what these move; see `StrategyFacts.trains`.
        tasks: Kinds of tasks.
        needs_texts: Whether it reads texts without labels.
        replaces_window: Whether it decides how an update's examples become gradients: two such do not go together.
        space: What a search may change.
        is_off: Whether settings leave the fit as it is: strength 0.
        find_conflicts: Given settings and the kind of the task, a sentence for everything that does not go together.
        technique: Module that does it; of the name of the kind where empty.
    """

    section: type[TechniqueSection]
    recipe: str
    phase: Literal["before", "change", "around"]
    trains: tuple[str, ...]
    tasks: tuple[TaskKind, ...]
    is_off: Callable[[Any], bool]
    space: tuple[Knob, ...] = ()
    needs_texts: bool = False
    replaces_window: bool = False
    find_conflicts: Callable[[Any, TaskKind], Iterable[str]] | None = None
    technique: str = ""

    @property
    def kind(self) -> str:
        """Its name in recipes."""
        return read_kind(self.section)
