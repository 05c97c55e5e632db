"""What `rank` can be asked for. Light, so that the command line may read it before anything heavy is imported."""

from nlp_transfer.errors import RecipeError

__all__ = [
    "ALL",
    "DEFAULT_ESTIMATOR",
    "DEFAULT_LAYERS",
    "DEFAULT_LIMIT",
    "ESTIMATOR_NAMES",
    "NEEDS_SOURCE",
    "VERIFY_EPOCHS",
    "choose_estimators",
    "read_layers_option",
]

ESTIMATOR_NAMES: dict[str, str] = {
    "h_score_depth": "H-score, depth",
    "h_score": "H-score",
    "h_score_lw": "H-score LW",
    "logme": "LogME",
    "probe": "Linear probe",
    "knn": "kNN",
    "nleep": "N-LEEP",
    "transrate": "TransRate",
    "gbc": "GBC",
    "leep": "LEEP",
    "nce": "NCE",
}
"""Key of every estimator, and how a reader knows it."""

NEEDS_SOURCE = ("leep", "nce")
"""Estimators that ask a fine-tuned classifier's head, and are left empty where an encoder has none."""

DEFAULT_ESTIMATOR = "h_score_depth"
"""The H-score of the mean of the layers is the best on average over models and tasks in Garbas et al. 2024,
https://arxiv.org/abs/2409.05997 (TransformerRanker); there with the regularization that is ``h_score_lw`` here, and of
encoders of much the same depth. Where depths differ it needs the factor of ``h_score_depth``; see RESULTS.md."""

DEFAULT_LAYERS = "mean"

DEFAULT_LIMIT = 1000
"""Train rows that are looked at; chosen: about a thirtieth of the work of three epochs over four thousand rows, where a
step costs three forward passes."""

VERIFY_EPOCHS = 2
"""Passes over train of the fine-tunes that verify; chosen. Any other recipe key has its usual default."""

ALL = "all"


def choose_estimators(wanted: list[str] | tuple[str, ...]) -> list[str]:
    """Check the names of estimators.

    Args:
        wanted: Keys of `ESTIMATOR_NAMES`, or ``all``; the default where empty.

    Returns:
        Keys, each once, in the order asked for: the first decides the order of encoders.

    Raises:
        RecipeError: There is no such estimator.

    Example:
        >>> choose_estimators([]), choose_estimators(["knn", "all"])[:3]
        (['h_score_depth'], ['knn', 'h_score_depth', 'h_score'])
    """
    chosen: list[str] = []
    for name in wanted or [DEFAULT_ESTIMATOR]:
        if name != ALL and name not in ESTIMATOR_NAMES:
            from difflib import get_close_matches

            close = get_close_matches(name, ESTIMATOR_NAMES, n=1)
            hint = f' Did you mean "{close[0]}"?' if close else ""
            raise RecipeError(f"estimator: expected one of {', '.join([*ESTIMATOR_NAMES, ALL])}, got {name!r}.{hint}")
        chosen += ESTIMATOR_NAMES if name == ALL else [name]
    return list(dict.fromkeys(chosen))


def read_layers_option(value: str | int) -> str | int:
    """Read which layers are looked at.

    Args:
        value: ``last``, ``mean`` of all layers, ``all`` (each alone, the best one counts), or a number: 1 is
            the first, -1 the last, 0 the embeddings.

    Returns:
        The word or the number.

    Raises:
        RecipeError: It is neither.

    Example:
        >>> read_layers_option("mean"), read_layers_option("-2")
        ('mean', -2)
    """
    text = str(value)
    if text in ("last", "mean", "all"):
        return text
    try:
        return int(text)
    except ValueError:
        raise RecipeError(f"layers: expected last, mean, all or a layer's number, got {value!r}.") from None
