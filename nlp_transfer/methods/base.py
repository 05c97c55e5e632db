"""What a method is to the run that it wraps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nlp_transfer.fitting.fit import Change, Fitted
from nlp_transfer.fitting.series import Fits
from nlp_transfer.strategies.base import Material

__all__ = ["Method"]


@dataclass(frozen=True)
class Method:
    """One technique around a strategy; exactly one of the two is given.

    Attributes:
        kind: The name in recipes.
        change: Given its settings, what it makes of a fit.
        run: Given its settings, the fits and what there is to fit with, trains what it needs and gives the model that
            is kept.
    """

    kind: str
    change: Callable[[Any], Change] | None = None
    run: Callable[[Any, Fits, Material], Fitted] | None = None
