"""What a search may change: for each strategy the keys of its recipe, and how far from where they stand."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nlp_transfer.errors import RecipeError
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.methods.table import METHODS, list_active
from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.recipe.strategies.facts import Knob
from nlp_transfer.recipe.strategies.table import STRATEGIES, find_learning_rate

if TYPE_CHECKING:
    from optuna.trial import Trial

__all__ = ["SPACES", "Dimension", "Knob", "build_space", "list_first_tries", "read_key"]


SPACES: dict[str, tuple[Knob, ...]] = {
    place: knobs
    for kind, facts in STRATEGIES.items()
    for place, knobs in (
        {f"{kind}/{method}": knobs for method, knobs in facts.space.items()}
        if isinstance(facts.space, Mapping)
        else {kind: facts.space}
    ).items()
}
"""What is searched, by kind of strategy, or kind and method."""

FIRST_FACTORS = (2.0, 0.5)
"""What the rates are multiplied by in the trials after the recipe itself: of all keys the rate is the one that most
often stands wrong. Chosen."""

DIGITS = 3
"""Significant digits of a value from a range: more would say nothing, and a recipe is read by people."""


@dataclass(frozen=True)
class Dimension:
    """One key of a search, with the values it may take.

    Attributes:
        key: Dotted key of the recipe.
        usual: The recipe's own value.
        low: Lower end of a logarithmic range; 0 where there are choices.
        high: Its upper end.
        choices: The values, where there is no range.
    """

    key: str
    usual: Any
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Any, ...] = ()

    def name(self, value: Any) -> Any:
        """Write a value as the search's storage takes it: lists as JSON."""
        return json.dumps(value) if isinstance(value, list) else value

    def suggest(self, trial: "Trial") -> Any:
        """Let a trial of Optuna choose; gives a value of the recipe's key."""
        if not self.choices:
            return self.clip(trial.suggest_float(self.key, self.low, self.high, log=True))
        named = {json.dumps(choice): choice for choice in self.choices}
        chosen = trial.suggest_categorical(self.key, [self.name(choice) for choice in self.choices])
        return named[chosen if isinstance(self.choices[0], list) else json.dumps(chosen)]

    def clip(self, value: float) -> float:
        """Bring a number into the range, with few digits."""
        return float(f"{min(max(value, self.low), self.high):.{DIGITS}g}")

    def to_json(self) -> dict[str, Any]:
        """Describe it, for people and for the check that a search goes on in the same space."""
        values = {"choices": list(self.choices)} if self.choices else {"low": self.low, "high": self.high}
        return {"key": self.key, "usual": self.usual, **values}


def build_space(recipe: Recipe, *, num_layers: int | None = None) -> tuple[Dimension, ...]:
    """Name what a search may change in a recipe; the recipe's own values are always among it.

    A value that the recipe's schema refuses beside the rest of this recipe is left out, and a key with one value left
    is no key to search.

    Args:
        recipe: As it stands.
        num_layers: Layers of the encoder, which bound what ``strategy.layers`` may name; None for no bound.

    Returns:
        One dimension a key: of the strategy, then of the methods.

    Raises:
        RecipeError: Nothing in this recipe is there to be searched.

    Example:
        >>> [each.key for each in build_space(load_recipe({"strategy": {"kind": "features"}}))][:2]
        ['strategy.head', 'strategy.pooling']
    """
    kind = str(recipe.strategy.kind)
    place = kind if kind in SPACES else f"{kind}/{getattr(recipe.strategy, 'method', '')}"
    knobs = [*SPACES[place], *(knob for method in list_active(recipe.methods) for knob in METHODS[method.kind].space)]
    built = [_make_dimension(knob, recipe, num_layers) for knob in knobs]
    space = tuple(dimension for dimension in built if dimension is not None)
    if not space:
        raise RecipeError(f"strategy.kind: {kind} trains nothing, so there is nothing to search. Choose another kind.")
    return space


def list_first_tries(space: tuple[Dimension, ...]) -> list[dict[str, Any]]:
    """List what is tried before the search chooses for itself: the recipe, then its rates higher and lower.

    Args:
        space: From ``build_space``.

    Returns:
        Values by key, as the storage takes them; the first is the recipe as it stands.

    Example:
        >>> rate = Dimension("training.learning_rate", 1e-4, low=1e-5, high=1.5e-4)
        >>> [tried["training.learning_rate"] for tried in list_first_tries((rate,))]
        [0.0001, 0.00015, 5e-05]
    """
    usual = {dimension.key: dimension.name(dimension.usual) for dimension in space}
    rates = [dimension for dimension in space if dimension.key.endswith("learning_rate") and not dimension.choices]
    factors = FIRST_FACTORS if rates else ()
    return [usual, *({**usual, **{rate.key: rate.clip(rate.usual * factor) for rate in rates}} for factor in factors)]


def _make_dimension(knob: Knob, recipe: Recipe, num_layers: int | None) -> Dimension | None:
    """Fit a knob to a recipe; None where it does not apply there."""
    value = read_key(recipe, knob.key)
    if knob.key == "training.head_learning_rate" and value is None:
        value = recipe.training.learning_rate
    if value is None and knob.reach:
        return None
    if knob.key == "training.epochs" and recipe.training.max_steps is not None:
        return None
    if knob.reach:
        low, high = value / knob.reach, value * knob.reach
        if knob.key == "training.learning_rate" and (safe := find_learning_rate(recipe.strategy)) is not None:
            # A rate far from what suits the strategy is what a search is to mend.
            low, high = min(low, safe), max(high, safe)
        return Dimension(knob.key, value, low=low, high=high)
    offered = [max(1, round(value * factor)) for factor in knob.factors] if knob.factors else list(knob.choices)
    if isinstance(value, float):
        offered = [float(choice) for choice in offered]
    if knob.key == "strategy.layers" and num_layers is not None:
        offered = [layers for layers in offered if max(map(abs, layers)) <= num_layers]
    known = {json.dumps(choice): choice for choice in [*offered, value]}
    choices = [choice for choice in known.values() if choice == value or _is_valid(recipe, {knob.key: choice})]
    if len(choices) < 2:
        return None
    return Dimension(knob.key, value, choices=tuple(sorted(choices, key=_sort_key)))


def _sort_key(choice: Any) -> tuple[bool, float, str]:
    """Numbers by size, all else by how it is written."""
    is_number = isinstance(choice, int | float)
    return (is_number, float(choice) if is_number else 0.0, json.dumps(choice))


def read_key(recipe: Recipe, key: str) -> Any:
    """Read a key of a section or of a method.

    Args:
        recipe: As it stands.
        key: ``SECTION.KEY`` or ``methods.KIND.KEY``.

    Example:
        >>> recipe = load_recipe({}, ["methods.r_drop.alpha=0.5"])
        >>> read_key(recipe, "methods.r_drop.alpha"), read_key(recipe, "training.seed")
        (0.5, 0)
    """
    section, *kind, name = key.split(".")
    owners = [method for method in recipe.methods if method.kind == kind[0]] if kind else [getattr(recipe, section)]
    return getattr(owners[0], name)


def _is_valid(recipe: Recipe, changes: Mapping[str, Any]) -> bool:
    """Whether the recipe may be changed so."""
    try:
        load_recipe(recipe, changes)
    except RecipeError:
        return False
    return True
