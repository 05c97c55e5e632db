"""What wraps a strategy: other data, another loss, or several fits; one method, one file."""

from collections.abc import Mapping
from dataclasses import replace

from nlp_transfer.fitting.fit import Fitted
from nlp_transfer.fitting.series import Fits
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
    changes = [method.change(config) for config, method in active if method.change is not None]
    fits = replace(fits, changes=[*fits.changes, *changes])
    for config, method in active:
        if method.run is not None:
            material = Material(fits.splits, fits.prepared, fits.recipe, fits.accelerator.device, fits.track)
            return method.run(config, fits, material)
    return fits.train()
