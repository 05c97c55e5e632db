"""The table of methods: a row each, and what recipes derive from it."""

import operator
from collections.abc import Sequence
from functools import reduce
from types import ModuleType
from typing import Annotated, Any

from pydantic import Field

from nlp_transfer.recipe.methods import domain_alignment, r_drop, self_training
from nlp_transfer.recipe.methods.facts import MethodFacts, MethodSection

__all__ = ["METHODS", "find_facts", "join_sections", "list_active"]

MODULES: tuple[ModuleType, ...] = (r_drop, self_training, domain_alignment)
"""Every method's settings, in the order of lists."""

METHODS: dict[str, MethodFacts] = {module.FACTS.kind: module.FACTS for module in MODULES}
"""Every method by its name in recipes."""


def join_sections() -> Any:
    """The type of an entry of a recipe's ``methods``: any section of the table, told apart by ``kind``."""
    return Annotated[reduce(operator.or_, (facts.section for facts in METHODS.values())), Field(discriminator="kind")]


def find_facts(method: MethodSection) -> MethodFacts:
    """The row of a method.

    Args:
        method: Its entry in a recipe.

    Example:
        >>> find_facts(r_drop.RDropConfig(kind="r_drop")).phase
        'change'
    """
    return METHODS[method.kind]


def list_active(methods: Sequence[MethodSection]) -> list[MethodSection]:
    """Give the methods that do something: those of strength 0 leave a run as it is.

    Args:
        methods: Of a recipe.

    Returns:
        What changes a fit before what goes around it, however they were listed.

    Example:
        >>> list_active([r_drop.RDropConfig(kind="r_drop", alpha=0)])
        []
    """
    active = [method for method in methods if not find_facts(method).is_off(method)]
    return sorted(active, key=lambda method: find_facts(method).phase == "around")
