"""The no-transfer control: the same architecture trained from random weights, with more epochs and a chosen rate."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from accelerate import Accelerator

from nlp_transfer.contracts import Prepared, Splits
from nlp_transfer.engine.precision import choose_precision
from nlp_transfer.errors import DivergedError
from nlp_transfer.evaluation.scoring import compute_metrics, is_better
from nlp_transfer.fitting.fit import fit_model, predict_all
from nlp_transfer.fitting.stages import HookMaker
from nlp_transfer.recipe.schema import FullConfig, Recipe

__all__ = ["Control", "make_control_recipe", "train_control"]


@dataclass
class Control:
    """Predictions and learning rates of the trained control.

    Attributes:
        probabilities: Split name to arrays (N, C), one per seed.
        learning_rate: The rate chosen on validation.
        tried: Rate to validation figure of the first seed.
    """

    probabilities: dict[str, list[np.ndarray]]
    learning_rate: float
    tried: dict[float, float]


def make_control_recipe(recipe: Recipe, *, learning_rate: float, seed: int) -> Recipe:
    """Turn a recipe into its control: random weights, all of them trained, twice the epochs.

    Args:
        recipe: The run with transfer.
        learning_rate: Peak rate of all weights.
        seed: Training seed.

    Returns:
        A recipe whose other settings are unchanged.

    Example:
        >>> control = make_control_recipe(Recipe(), learning_rate=1e-3, seed=1)
        >>> control.encoder.init, control.training.epochs, control.strategy.kind
        ('random', 6.0, 'full')
    """
    training = recipe.training
    doubled = None if training.max_steps is None else 2 * training.max_steps
    return recipe.model_copy(
        update={
            "encoder": recipe.encoder.model_copy(update={"init": "random"}),
            "strategy": FullConfig(kind="full"),
            "training": training.model_copy(
                update={
                    "epochs": 2 * training.epochs,
                    "max_steps": doubled,
                    "learning_rate": learning_rate,
                    "head_learning_rate": None,
                    "seed": seed,
                }
            ),
        }
    )


def train_control(
    recipe: Recipe,
    seeds: Sequence[int],
    tables: Mapping[int, tuple[Splits, Prepared]],
    make_accelerator: Callable[[], Accelerator],
    *,
    make_hooks: HookMaker | None = None,
) -> Control:
    """Train the control: its rate chosen on validation with the first seed, then every seed with that rate.

    Args:
        recipe: The run with transfer; ``evaluation.control_learning_rates`` are tried.
        seeds: Training seeds.
        tables: Loaded and tokenized splits of each seed.
        make_accelerator: Makes a new accelerator for each fit.
        make_hooks: Makes the hooks of the loop.

    Returns:
        Probabilities of every split but train.

    Raises:
        DivergedError: None of the rates ended in finite predictions.
    """
    metric = str(recipe.training.select_by)
    first = tables[seeds[0]][1]
    truth = first.splits["validation"].labels
    assert truth is not None

    def fit(rate: float, seed: int) -> dict[str, np.ndarray]:
        splits, prepared = tables[seed]
        accelerator = make_accelerator()
        control = make_control_recipe(recipe, learning_rate=rate, seed=seed)
        name = f"no-transfer control, rate {rate:g}, seed {seed}"
        precision = choose_precision(recipe.training.precision, accelerator.device.type)
        fitted = fit_model(
            control, splits, prepared, accelerator, make_hooks=make_hooks, label=name, precision=precision
        )
        return predict_all(fitted.adapted.model, prepared, accelerator, recipe)

    tried: dict[float, float] = {}
    best: tuple[float, dict[str, np.ndarray]] | None = None
    for rate in recipe.evaluation.control_learning_rates:
        try:
            found = fit(rate, seeds[0])
            tried[rate] = compute_metrics(truth, found["validation"], first.labels, [metric])[metric]
        except DivergedError:
            # The rate was too high for random weights; others may work.
            tried[rate] = math.nan
            continue
        if best is None or is_better(metric, tried[rate], tried[best[0]]):
            best = (rate, found)
    if best is None:
        raise DivergedError(
            "evaluation.control_learning_rates: the no-transfer control diverged at every rate "
            f"({', '.join(f'{rate:g}' for rate in tried)}). Give lower rates."
        )
    every = [best[1], *(fit(best[0], seed) for seed in seeds[1:])]
    return Control({split: [found[split] for found in every] for split in best[1]}, best[0], tried)
