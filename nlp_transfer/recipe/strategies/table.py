"""Every strategy's section of a recipe, and the learning rate of each."""

import math
from typing import Annotated, get_args

from pydantic import Field

from nlp_transfer.recipe.section import Section
from nlp_transfer.recipe.strategies.adapters import AdaptersConfig
from nlp_transfer.recipe.strategies.distill import DistillConfig
from nlp_transfer.recipe.strategies.features import FeaturesConfig
from nlp_transfer.recipe.strategies.few_shot import FewShotConfig
from nlp_transfer.recipe.strategies.frozen import FrozenConfig
from nlp_transfer.recipe.strategies.full import FullConfig
from nlp_transfer.recipe.strategies.layerwise import LayerwiseConfig
from nlp_transfer.recipe.strategies.lora import LoraConfig
from nlp_transfer.recipe.strategies.prompts import PromptsConfig
from nlp_transfer.recipe.strategies.zero_shot import ZeroShotConfig

__all__ = [
    "LEARNING_RATES",
    "STRATEGY_CONFIGS",
    "VARIANT_RATES",
    "AdaptersConfig",
    "DistillConfig",
    "FeaturesConfig",
    "FrozenConfig",
    "FullConfig",
    "LayerwiseConfig",
    "LoraConfig",
    "PromptsConfig",
    "StrategyConfig",
    "ZeroShotConfig",
    "find_learning_rate",
]


StrategyConfig = Annotated[
    FullConfig
    | LayerwiseConfig
    | FrozenConfig
    | FeaturesConfig
    | FewShotConfig
    | ZeroShotConfig
    | LoraConfig
    | AdaptersConfig
    | PromptsConfig
    | DistillConfig,
    Field(discriminator="kind"),
]

STRATEGY_CONFIGS: dict[str, type[Section]] = {
    get_args(section.model_fields["kind"].annotation)[0]: section for section in get_args(get_args(StrategyConfig)[0])
}
"""Section of each strategy by its kind, in the order above."""

LEARNING_RATES: dict[str, float] = {
    "full": 5e-5,
    "layerwise": 1e-4,
    "frozen": 1e-3,
    "few_shot": 1e-4,
    "lora": 1e-3,
    "adapters": 3e-3,
    "prompts": 1e-1,
    "distill": 1e-4,
}
"""Peak learning rate of each strategy that has one, where a recipe names none; full is BERT's upper choice
(Devlin et al. 2019)."""

VARIANT_RATES: dict[tuple[str, str], float] = {
    ("lora", "fourierft"): 5e-2,
    ("lora", "ia3"): 1e-2,
    ("lora", "lokr"): 1e-2,
    ("lora", "loha"): 3e-3,
    ("lora", "miss"): 2e-3,
    ("lora", "oft"): 5e-3,
    ("lora", "vera"): 5e-3,
    ("adapters", "houlsby"): 1e-3,
    ("adapters", "parallel"): 1e-3,
    ("prompts", "p_tuning"): 1e-2,
    ("prompts", "prefix"): 3e-2,
}
"""Peak learning rate of variants that need another than their strategy; tried on 1,500 rows of TREC, most
of them at one rate; that of vera is of the order that its paper has."""


PISSA_SLOWER = 4.0
"""Divides the rate where both matrices start large; chosen."""


def find_learning_rate(strategy: StrategyConfig) -> float | None:
    """Give the peak learning rate of a strategy where a recipe names none.

    Args:
        strategy: Its section.

    Returns:
        The rate of its variant, else that of its kind; None where nothing is trained by gradients.

    Example:
        >>> find_learning_rate(LoraConfig(kind="lora", variant="ia3")), find_learning_rate(LoraConfig(kind="lora"))
        (0.01, 0.001)
    """
    kind = str(strategy.kind)
    rate = VARIANT_RATES.get((kind, getattr(strategy, "variant", "")), LEARNING_RATES.get(kind))
    if isinstance(strategy, LoraConfig) and rate is not None:
        # What makes the same step move the product of the two matrices further takes a smaller one.
        rate /= math.sqrt(strategy.rate_ratio)
        rate /= math.sqrt(strategy.rank) if strategy.rank_stabilized else 1.0
        rate /= PISSA_SLOWER if strategy.init == "pissa" else 1.0
    return rate
