"""How a pretrained encoder becomes a classifier: one strategy, one file."""

from nlp_transfer.strategies import frozen, full, lora
from nlp_transfer.strategies.base import Adapted, Strategy

__all__ = ["STRATEGIES", "Adapted", "Strategy"]

STRATEGIES: dict[str, Strategy] = {
    "full": full.STRATEGY,
    "frozen": frozen.STRATEGY,
    "lora": lora.STRATEGY,
}
"""Every strategy by its name in recipes."""
