"""How a pretrained encoder becomes a classifier: one strategy, one file."""

from nlp_transfer.strategies import (
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
from nlp_transfer.strategies.base import Adapted, Material, PrefixPlan, Probe, Stage, Strategy

__all__ = ["STRATEGIES", "Adapted", "Material", "PrefixPlan", "Probe", "Stage", "Strategy"]

STRATEGIES: dict[str, Strategy] = {
    "full": full.STRATEGY,
    "layerwise": layerwise.STRATEGY,
    "frozen": frozen.STRATEGY,
    "features": features.STRATEGY,
    "few_shot": few_shot.STRATEGY,
    "zero_shot": zero_shot.STRATEGY,
    "lora": lora.STRATEGY,
    "adapters": adapters.STRATEGY,
    "prompts": prompts.STRATEGY,
    "distill": distill.STRATEGY,
}
"""Every strategy by its name in recipes."""
