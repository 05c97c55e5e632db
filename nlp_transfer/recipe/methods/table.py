"""The table of methods, one row for each, and what recipes derive from it."""

from collections.abc import Sequence
from types import ModuleType

from nlp_transfer.recipe.methods import domain_alignment, domain_mlm, mixed_mlm, r_drop, self_training
from nlp_transfer.recipe.methods.facts import MethodFacts
from nlp_transfer.recipe.section import TechniqueSection

__all__ = ["METHODS", "list_active"]

MODULES: tuple[ModuleType, ...] = (r_drop, self_training, domain_alignment, domain_mlm, mixed_mlm)
"""Every method's settings, in the order of lists."""

PHASES = ("before", "change", "around")

METHODS: dict[str, MethodFacts] = {module.FACTS.kind: module.FACTS for module in MODULES}
"""Every method by its name in recipes."""


def list_active(methods: Sequence[TechniqueSection]) -> list[TechniqueSection]:
    """List the methods that are not turned off by their settings.

    Args:
        methods: The methods of a recipe.

    Returns:
        What comes before the fits, then what changes them, then what goes around them, however they were listed.

    Example:
        >>> list_active([r_drop.RDropConfig(kind="r_drop", alpha=0)])
        []
    """
    active = [method for method in methods if not METHODS[method.kind].is_off(method)]
    return sorted(active, key=lambda method: PHASES.index(METHODS[method.kind].phase))
