"""How regressions are solved on a CPU."""

import functools
import warnings
from typing import Any, TypeVar

from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import ThreadpoolController

__all__ = ["fit_quietly"]

Model = TypeVar("Model")


def fit_quietly(model: Model, *data: Any) -> Model:
    """Fit a model of scikit-learn on one thread, without what it says of its limit and of many classes.

    A solver's steps are short products and sums of vectors. Each wakes the other threads of the linear algebra, which
    find the processors taken by torch's, waiting for work: with two threads a regression took three to ten times as
    long as with one (see RESULTS.md).

    Args:
        model: Not fitted yet, or to be fitted on.
        data: What its ``fit`` takes.

    Returns:
        The same, fitted.

    Example:
        >>> import numpy as np
        >>> from sklearn.linear_model import LogisticRegression
        >>> float(fit_quietly(LogisticRegression(), np.array([[-1.0], [1.0]]), np.array([0, 1])).intercept_[0])
        0.0
    """
    fit: Any = model
    with warnings.catch_warnings(), _find_controller().limit(limits=1, user_api="blas"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Of many classes with few rows each, which are classes all the same.
        warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
        fit.fit(*data)
    return model


@functools.cache
def _find_controller() -> ThreadpoolController:
    """The libraries, which are looked for once: whoever fits something has loaded them."""
    return ThreadpoolController()
