"""How a pretrained encoder becomes a classifier: one strategy, one file."""

from collections.abc import Iterator, Mapping
from importlib import import_module

from nlp_transfer.strategies.base import Adapted, Material, PrefixPlan, Probe, Stage, Strategy

__all__ = ["STRATEGIES", "Adapted", "Material", "PrefixPlan", "Probe", "Stage", "Strategy"]

KINDS = (
    "full",
    "layerwise",
    "frozen",
    "features",
    "few_shot",
    "zero_shot",
    "lora",
    "adapters",
    "prompts",
    "distill",
)
"""Every strategy by its name in recipes, which is its file's."""


class _Strategies(Mapping[str, Strategy]):
    """Strategies by kind, each imported when it is asked for: what one needs (peft, scikit-learn), others do without.

    Example:
        >>> _Strategies()["full"].kind
        'full'
    """

    def __getitem__(self, kind: str) -> Strategy:
        if kind not in KINDS:
            raise KeyError(kind)
        strategy: Strategy = import_module(f"{__name__}.{kind}").STRATEGY
        return strategy

    def __iter__(self) -> Iterator[str]:
        return iter(KINDS)

    def __len__(self) -> int:
        return len(KINDS)


STRATEGIES: Mapping[str, Strategy] = _Strategies()
"""Every strategy by its name in recipes."""
