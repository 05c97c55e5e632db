"""What a method is to the run that it wraps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nlp_transfer.contracts import RunLog
from nlp_transfer.fitting.fit import Change, Fitted
from nlp_transfer.fitting.series import Fits
from nlp_transfer.strategies.base import Material

__all__ = ["Method", "Started"]


@dataclass(frozen=True)
class Started:
    """What came before the fits of a run.

    Attributes:
        weights: Name to weight, on the CPU: what every fit starts from. Weights that it lacks start as pretrained.
        log: What happened.
    """

    weights: Mapping[str, Tensor]
    log: RunLog


@dataclass(frozen=True)
class Method:
    """One technique around a strategy; exactly one of the three is given.

    Attributes:
        kind: The name in recipes.
        before: Given its settings, the fits and what there is to train on, trains what every fit starts from.
        change: Given its settings, what it makes of a fit.
        run: Given its settings, the fits and what there is to fit with, trains what it needs and gives the model that
            is kept.
    """

    kind: str
    before: Callable[[Any, Fits, Material], Started] | None = None
    change: Callable[[Any], Change] | None = None
    run: Callable[[Any, Fits, Material], Fitted] | None = None
