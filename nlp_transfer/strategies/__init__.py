"""How a pretrained encoder becomes a classifier: one strategy, one file."""

from collections.abc import Iterator, Mapping
from importlib import import_module

from nlp_transfer.recipe.strategies.table import STRATEGIES as TABLE
from nlp_transfer.strategies.base import Adapted, Material, PrefixPlan, Probe, Stage, Strategy

__all__ = ["STRATEGIES", "Adapted", "Material", "PrefixPlan", "Probe", "Stage", "Strategy"]


class _Strategies(Mapping[str, Strategy]):
    """Strategies by kind, each imported when it is asked for: what one needs (peft, scikit-learn), others do without.

    Example:
        >>> _Strategies()["full"].kind
        'full'
    """

    def __getitem__(self, kind: str) -> Strategy:
        technique = TABLE[kind].technique or f"{__name__}.{kind}"
        strategy: Strategy = import_module(technique).STRATEGY
        return strategy

    def __iter__(self) -> Iterator[str]:
        return iter(TABLE)

    def __len__(self) -> int:
        return len(TABLE)


STRATEGIES: Mapping[str, Strategy] = _Strategies()
"""Every strategy by its name in recipes."""
