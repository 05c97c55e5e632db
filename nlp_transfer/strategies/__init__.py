"""How a pretrained encoder becomes a classifier: one strategy, one file."""

from nlp_transfer.strategies import frozen, full, layerwise, lora
from nlp_transfer.strategies.base import Adapted, PrefixPlan, Probe, Strategy

__all__ = ["STRATEGIES", "Adapted", "PrefixPlan", "Probe", "Strategy"]

STRATEGIES: dict[str, Strategy] = {
    "full": full.STRATEGY,
    "layerwise": layerwise.STRATEGY,
    "frozen": frozen.STRATEGY,
    "lora": lora.STRATEGY,
}
"""Every strategy by its name in recipes."""
