"""The rungs of the ladder: which recipe stands for each way to a classifier, and how long it is trained."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import RecipeError
from nlp_transfer.recipe.fields import suggest_nearest
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.recipe.strategies.facts import MANY_CLASSES, StrategyFacts
from nlp_transfer.recipe.strategies.table import STRATEGIES
from nlp_transfer.runs.control import make_control_recipe

__all__ = ["RUNGS", "Facts", "Rung", "build_recipe", "choose_epochs", "choose_rungs", "explain_absence"]

ENOUGH_STEPS, ENOUGH_STEPS_MANY = 550, 1400
"""Updates that full fine-tuning gets at least: trec with 4 passes, banking77 with 5, as in the shipped recipes."""

FEWEST_EPOCHS, MOST_EPOCHS = 3, 20
"""Passes over large and small tables; chosen."""

SMALL_ENCODER = 512
"""Width up to which the shipped rates, found with an encoder of 384, are taken; wider ones get the schema's."""

BATCH_SIZE = Recipe().training.batch_size


@dataclass(frozen=True)
class Rung:
    """One way to a classifier.

    Attributes:
        name: As the table has it.
        says: What it is, in a few words.
        strategy: What it runs; None for what no encoder takes part in.
        work: Seconds of a step over those of a step of full fine-tuning; 0 where no weight moves by gradients. From
            the table of every strategy in recipes/RESULTS.md, rounded up.
        stretch: Passes over those of full.
        worth: What knowing its score is worth beside the others, for the order under a budget; chosen.
        is_seeded: Whether chance plays a part, so that several seeds tell anything.
    """

    name: str
    says: str
    strategy: StrategyFacts | None = None
    work: float = 0.0
    stretch: float = 1.0
    worth: float = 1.0
    is_seeded: bool = True


def _list_rungs() -> Iterator[Rung]:
    """What no encoder takes part in, the strategies of the ladder from the bottom, and the control."""
    yield Rung("majority", "the largest class, whatever the text", is_seeded=False)
    yield Rung("tfidf", "TF-IDF and logistic regression", is_seeded=False)
    placed = [(facts.rung, facts) for facts in STRATEGIES.values() if facts.rung is not None]
    for _, facts in sorted(placed, key=lambda each: each[0]):
        yield Rung(
            facts.kind,
            facts.says,
            facts,
            work=facts.work,
            stretch=facts.stretch,
            worth=facts.worth,
            is_seeded=facts.is_seeded,
        )
    full = STRATEGIES["full"]
    yield Rung("control", "no transfer: random weights", full, work=full.work, stretch=2.0)


RUNGS: dict[str, Rung] = {rung.name: rung for rung in _list_rungs()}
"""The ladder, in the order of the table."""

FEW_SHOT_ROWS = 8
"""Rows of each class that few_shot learns from, as in the shipped recipes."""


@dataclass(frozen=True)
class Facts:
    """What a comparison is about.

    Attributes:
        changes: Dotted keys that every recipe gets: data, encoder, task.
        labels: The label contract.
        num_train: Rows of train.
        width: Hidden size of the encoder.
        epochs: Passes of full fine-tuning.
    """

    changes: Mapping[str, Any]
    labels: LabelSpace
    num_train: int
    width: int
    epochs: int

    @property
    def steps_per_epoch(self) -> int:
        """Updates of one pass over train."""
        return -(-self.num_train // BATCH_SIZE)

    def count_epochs(self, rung: Rung) -> int:
        """Passes of a rung over its rows."""
        return round(self.epochs * rung.stretch + 0.25)

    def count_steps(self, rung: Rung) -> int:
        """Updates of one fit of a rung; 0 where there are none."""
        if not rung.work:
            return 0
        if rung.name == "few_shot":
            windows = -(-FEW_SHOT_ROWS * self.labels.num_outputs // (2 * BATCH_SIZE))
            return int(load_recipe(name_recipe(rung, self.labels)).training.epochs) * windows
        return self.steps_per_epoch * self.count_epochs(rung)


def choose_epochs(num_train: int, num_classes: int) -> int:
    """Choose how often full fine-tuning passes over a table: so often that a small one gives enough updates.

    Args:
        num_train: Rows of train.
        num_classes: Columns of the label contract.

    Returns:
        A count in [3, 20].

    Example:
        >>> choose_epochs(5452, 6), choose_epochs(8993, 77), choose_epochs(200, 2), choose_epochs(60_000, 2)
        (4, 5, 20, 3)
    """
    wanted = ENOUGH_STEPS_MANY if num_classes >= MANY_CLASSES else ENOUGH_STEPS
    steps = -(-num_train // BATCH_SIZE)
    return max(FEWEST_EPOCHS, min(MOST_EPOCHS, -(-wanted // steps)))


def choose_rungs(names: list[str] | None) -> list[Rung]:
    """Find rungs by their names, in the order of the ladder.

    Args:
        names: Names; all rungs where absent or empty.

    Returns:
        At least one rung, none twice.

    Raises:
        RecipeError: There is no such rung.

    Example:
        >>> [rung.name for rung in choose_rungs(["full", "tfidf"])]
        ['tfidf', 'full']
    """
    for name in names or []:
        if name not in RUNGS:
            hint = suggest_nearest(name, list(RUNGS)) or f" Choose from {', '.join(RUNGS)}."
            raise RecipeError(f'rung: expected a rung of the ladder, got "{name}".{hint}')
    return [rung for rung in RUNGS.values() if not names or rung.name in names]


def explain_absence(rung: Rung, labels: LabelSpace) -> str:
    """Say why a rung does not suit a task; an empty text where it does.

    Example:
        >>> explain_absence(RUNGS["few_shot"], LabelSpace("regression", ("score",)))
        'needs classes, and this is a regression'
    """
    if rung.strategy is not None and rung.strategy.for_few and not labels.is_categorical:
        kind = "a regression" if labels.kind == "regression" else "a task of several labels"
        return f"needs classes, and this is {kind}"
    return ""


def name_recipe(rung: Rung, labels: LabelSpace) -> str:
    """The shipped recipe of a rung."""
    assert rung.strategy is not None, f"{rung.name} has no recipe"
    return rung.strategy.name_recipe(labels.num_outputs)


def build_recipe(rung: Rung, facts: Facts, *, seed: int, folder: Path) -> Recipe:
    """Write the recipe of one fit: the settings of a shipped recipe on this table.

    No rung is tuned here: each has what its shipped recipe says, and passes by the size of the table, so that none
    gets more effort than another.

    Args:
        rung: One with a recipe.
        facts: Data, encoder and size.
        seed: Training seed.
        folder: Where the run goes.

    Returns:
        A recipe that `nlp-transfer run` takes too.

    Raises:
        RecipeError: Data or encoder are named in a way that no recipe can hold.
    """
    changes: dict[str, Any] = {
        "description": f"The rung {rung.name} of a comparison.",
        **facts.changes,
        "training.seed": seed,
        # Runs are short here: checkpoints come by time alone, and where one is asked to end.
        "training.checkpoint_every": 10**9,
        "training.keep_checkpoints": 1,
        # The ladder has both as rungs of their own.
        "evaluation.tfidf": False,
        "evaluation.control": False,
        "report.output_dir": str(folder),
    }
    if rung.name == "zero_shot":
        changes["strategy.descriptions"] = {}
    elif rung.name == "few_shot":
        changes["data.shots"] = FEW_SHOT_ROWS
    elif rung.work:
        changes["training.epochs"] = float(facts.epochs if rung.name == "control" else facts.count_epochs(rung))
    if facts.width > SMALL_ENCODER and rung.name in ("full", "layerwise", "control"):
        changes |= {"training.learning_rate": None, "training.head_learning_rate": None}
    recipe = load_recipe(name_recipe(rung, facts.labels), changes)
    if rung.name != "control":
        return recipe
    rates = sorted(recipe.evaluation.control_learning_rates)
    return make_control_recipe(recipe, learning_rate=rates[len(rates) // 2], seed=seed)
