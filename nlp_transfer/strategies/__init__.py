"""How a pretrained encoder becomes a classifier: one strategy, one file."""

from collections.abc import Mapping

from nlp_transfer.recipe.strategies.table import STRATEGIES as TABLE
from nlp_transfer.strategies.base import Adapted, Material, PrefixPlan, Probe, Stage, Strategy
from nlp_transfer.strategies.techniques import Techniques

__all__ = ["STRATEGIES", "Adapted", "Material", "PrefixPlan", "Probe", "Stage", "Strategy"]


STRATEGIES: Mapping[str, Strategy] = Techniques(TABLE, __name__, lambda module: module.STRATEGY)
"""Every strategy by its name in recipes."""
