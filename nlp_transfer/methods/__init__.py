"""What wraps a strategy: other data, another loss, or several fits; one method, one file."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nlp_transfer.fitting.fit import Fitted
from nlp_transfer.fitting.series import Fits, join_logs
from nlp_transfer.methods.base import Method
from nlp_transfer.recipe.methods.table import METHODS as TABLE
from nlp_transfer.recipe.methods.table import list_active
from nlp_transfer.strategies.base import Material
from nlp_transfer.strategies.techniques import Techniques

__all__ = ["METHODS", "Method", "train_with_methods"]


METHODS: Mapping[str, Method] = Techniques(TABLE, __name__, lambda module: module.METHOD)
"""Every method by its name in recipes."""


def train_with_methods(fits: Fits) -> Fitted:
    """Train the model of a recipe, its methods around it; those of strength 0 leave everything as it is.

    Args:
        fits: The fits of a run.

    Returns:
        The model that is kept.
    """
    active = [(config, METHODS[config.kind]) for config in list_active(fits.recipe.methods)]
    logs = []
    for config, method in active:
        if method.before is not None:
            started = method.before(config, fits, _gather_material(fits))
            fits = replace(fits, start={**fits.start, **started.weights})
            logs.append(started.log)
    fitted = _train_around(active, fits)
    if logs:
        fitted.log = join_logs([*logs, fitted.log])
    return fitted


def _train_around(active: Sequence[tuple[Any, Method]], fits: Fits) -> Fitted:
    """Train with what changes the fits and what goes around them."""
    changes = [method.change(config) for config, method in active if method.change is not None]
    fits = replace(fits, changes=[*fits.changes, *changes])
    for config, method in active:
        if method.run is not None:
            return method.run(config, fits, _gather_material(fits))
    return fits.train()


def _gather_material(fits: Fits) -> Material:
    """What a method is given to fit with."""
    return Material(fits.splits, fits.prepared, fits.recipe, fits.accelerator.device, fits.track)
