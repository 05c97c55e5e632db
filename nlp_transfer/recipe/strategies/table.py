"""The table of strategies, one row for each, and what recipes derive from it."""

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
"""The module of every strategy, in the order in which lists show them."""

STRATEGIES: dict[str, StrategyFacts] = {module.FACTS.kind: module.FACTS for module in MODULES}
"""Every strategy by its name in recipes."""

STRATEGY_CONFIGS: dict[str, type[TechniqueSection]] = {kind: facts.section for kind, facts in STRATEGIES.items()}
"""Settings class of each strategy, by kind."""

LEARNING_RATES: dict[str, float] = {
    kind: facts.learning_rate for kind, facts in STRATEGIES.items() if facts.learning_rate is not None
}
"""Default peak learning rate of each strategy that trains by gradients."""

PISSA_SLOWER = 4.0
"""Divides the default rate with PiSSA, where both matrices start large; chosen."""


def find_facts(strategy: TechniqueSection) -> StrategyFacts:
    """Look up the row of a strategy.

    Args:
        strategy: Its section of a recipe.

    Example:
        >>> find_facts(lora.LoraConfig(kind="lora")).loads_with
        'peft'
    """
    return STRATEGIES[strategy.kind]


def find_learning_rate(strategy: TechniqueSection) -> float | None:
    """Give the default peak learning rate of a strategy.

    Args:
        strategy: Its section of a recipe.

    Returns:
        The rate of the variant, else the rate of the kind; None where nothing is trained by gradients.

    Example:
        >>> LoraConfig = lora.LoraConfig
        >>> find_learning_rate(LoraConfig(kind="lora", variant="ia3")), find_learning_rate(LoraConfig(kind="lora"))
        (0.01, 0.001)
    """
    facts = find_facts(strategy)
    rate = facts.variant_rates.get(getattr(strategy, "variant", ""), facts.learning_rate)
    if isinstance(strategy, lora.LoraConfig) and rate is not None:
        # Each of these options makes the same step change the product of the two matrices more.
        rate /= math.sqrt(strategy.rate_ratio)
        rate /= math.sqrt(strategy.rank) if strategy.rank_stabilized else 1.0
        rate /= PISSA_SLOWER if strategy.init == "pissa" else 1.0
    return rate
