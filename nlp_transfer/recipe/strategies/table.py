"""The table of strategies: a row each, and what recipes derive from it."""

import math
from types import ModuleType

from nlp_transfer.recipe.section import TechniqueSection
from nlp_transfer.recipe.strategies import (
    adapters,
    distill,
    features,
    few_shot,
    frozen,
    full,
    layerwise,
    lora,
    prompts,
    zero_shot,
)
from nlp_transfer.recipe.strategies.facts import StrategyFacts

__all__ = ["LEARNING_RATES", "STRATEGIES", "STRATEGY_CONFIGS", "find_facts", "find_learning_rate"]

MODULES: tuple[ModuleType, ...] = (
    full,
    layerwise,
    frozen,
    features,
    few_shot,
    zero_shot,
    lora,
    adapters,
    prompts,
    distill,
)
"""Every strategy's settings, in the order of lists."""

STRATEGIES: dict[str, StrategyFacts] = {module.FACTS.kind: module.FACTS for module in MODULES}
"""Every strategy by its name in recipes."""

STRATEGY_CONFIGS: dict[str, type[TechniqueSection]] = {kind: facts.section for kind, facts in STRATEGIES.items()}
"""Section of each strategy by its kind."""

LEARNING_RATES: dict[str, float] = {
    kind: facts.learning_rate for kind, facts in STRATEGIES.items() if facts.learning_rate is not None
}
"""Peak learning rate of each strategy that has one, where a recipe names none."""

PISSA_SLOWER = 4.0
"""Divides the rate where both matrices start large; chosen."""


def find_facts(strategy: TechniqueSection) -> StrategyFacts:
    """The row of a strategy.

    Args:
        strategy: Its section of a recipe.

    Example:
        >>> find_facts(lora.LoraConfig(kind="lora")).loads_with
        'peft'
    """
    return STRATEGIES[strategy.kind]


def find_learning_rate(strategy: TechniqueSection) -> float | None:
    """Give the peak learning rate of a strategy where a recipe names none.

    Args:
        strategy: Its section.

    Returns:
        The rate of its variant, else that of its kind; None where nothing is trained by gradients.

    Example:
        >>> LoraConfig = lora.LoraConfig
        >>> find_learning_rate(LoraConfig(kind="lora", variant="ia3")), find_learning_rate(LoraConfig(kind="lora"))
        (0.01, 0.001)
    """
    facts = find_facts(strategy)
    rate = facts.variant_rates.get(getattr(strategy, "variant", ""), facts.learning_rate)
    if isinstance(strategy, lora.LoraConfig) and rate is not None:
        # What makes the same step move the product of the two matrices further takes a smaller one.
        rate /= math.sqrt(strategy.rate_ratio)
        rate /= math.sqrt(strategy.rank) if strategy.rank_stabilized else 1.0
        rate /= PISSA_SLOWER if strategy.init == "pissa" else 1.0
    return rate
