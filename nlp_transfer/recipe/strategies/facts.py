"""The facts about a strategy beside its settings; everything that lists strategies derives from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nlp_transfer.contracts import Loader
from nlp_transfer.recipe.section import TechniqueSection, read_kind

__all__ = ["HEAD", "LOSS", "MANY_CLASSES", "SCHEDULE", "SLOW_START", "Gain", "Knob", "StrategyFacts"]


@dataclass(frozen=True)
class Knob:
    """A key that a search tunes; exactly one of reach, factors and choices says how.

    Attributes:
        key: Dotted key of the recipe.
        reach: The value may grow and shrink by this factor, on a logarithmic scale.
        factors: Candidates are the recipe's value times each of these, rounded to whole numbers of at least 1.
        choices: Candidates are these values, and the recipe's value.
    """

    key: str
    reach: float = 0.0
    factors: tuple[float, ...] = ()
    choices: tuple[Any, ...] = ()


# The reach of a rate is chosen: at five times a rate that works, or a fifth of it, small encoders diverge or hardly
# learn. The choices are chosen too: the values that the papers named in the schema try.
SCHEDULE = (
    Knob("training.learning_rate", reach=5.0),
    Knob("training.epochs", factors=(0.5, 1.0, 1.5, 2.0)),
    Knob("training.batch_size", factors=(0.5, 1.0, 2.0)),
)
LOSS = (
    Knob("training.weight_decay", choices=(0.0, 0.01, 0.1)),
    Knob("training.label_smoothing", choices=(0.0, 0.05, 0.1)),
    Knob("encoder.dropout", choices=(0.0, 0.1, 0.2)),  # and the encoder's own rate, where the recipe sets none
)
HEAD = (Knob("training.head_learning_rate", reach=5.0),)

MANY_CLASSES = 20
"""From this number of classes, recipes are those of banking77, with larger rates and more epochs; chosen between 6 and
77."""

SLOW_START = 1.5
"""Epochs of modules that start at zero inside a frozen encoder, divided by those of full; sst2 and tweet_emotion needed
more."""


@dataclass(frozen=True)
class Gain:
    """What a strategy gains over a head on fixed features, as shares of the head's errors.

    Attributes:
        prior: Coefficients of the rule of thumb, in the order of ``evidence.advise.gains.SITUATION``.
        fitted: The coefficients after fitting them to measured outcomes.
        residual: Standard deviation of measured gains from predicted ones, over cells, each left out in turn.
    """

    prior: tuple[float, ...]
    fitted: tuple[float, ...]
    residual: float


# Rows are compared by identity, because some of their values cannot be hashed.
@dataclass(frozen=True, eq=False)
class StrategyFacts:
    """One row of the table of strategies.

    Attributes:
        section: Its settings; ``kind`` is its name, the docstring says what it does, ``use_when`` when to choose it.
        says: What it is, in a few words, for the ladder of `compare`.
        trains: What is trained: every weight, the upper layers, small modules inside every layer, the head alone, an
            encoder on pairs of texts, a student of another classifier, or nothing.
        loads_with: Library that loads its artefact, unless the settings ask for another form.
        recipe: Shipped recipe; empty where `advise` and `compare` do not offer it.
        recipe_many: Shipped recipe for many classes, where they need another.
        learning_rate: Default peak rate; None where nothing is trained by gradients.
        variant_rates: Default peak rates of the variants that need another.
        space: Keys that a search may tune; a mapping by method where the methods differ.
        once: Forward passes of the encoder over every training row before training.
        step: Cost of one training step on a row, in forward passes; None keeps the strategy out of advice.
        rung: Place on the ladder, from the bottom; None where `compare` does not run it.
        work: Seconds of a step divided by those of a step of full fine-tuning; 0 where nothing is trained by
            gradients. From the table of every strategy in recipes/RESULTS.md, rounded up.
        stretch: Epochs divided by those of full fine-tuning.
        worth: Value of knowing its score, relative to other strategies, for the order under a budget; chosen.
        is_seeded: Whether its result depends on the seed, so that several seeds are informative.
        for_few: Whether it was made for a handful of examples a class, and needs classes.
        needs_pretraining: Whether it is useless on random weights, because it leaves some of them frozen.
        reserves: Key of the settings that says how many of the encoder's tokens it reserves; empty for none.
        gain: What it gains over a head on fixed features; None for nothing.
        technique: Module that adapts an encoder; named like ``kind`` where empty.
    """

    section: type[TechniqueSection]
    says: str
    trains: Literal["all", "upper", "inside", "head", "pairs", "student", "nothing"]
    loads_with: Loader
    recipe: str = ""
    recipe_many: str = ""
    learning_rate: float | None = None
    variant_rates: Mapping[str, float] = field(default_factory=dict)
    space: tuple[Knob, ...] | Mapping[str, tuple[Knob, ...]] = ()
    once: float = 0.0
    step: float | None = None
    rung: int | None = None
    work: float = 0.0
    stretch: float = 1.0
    worth: float = 1.0
    is_seeded: bool = True
    for_few: bool = False
    needs_pretraining: bool = True
    reserves: str = ""
    gain: Gain | None = None
    technique: str = ""

    @property
    def kind(self) -> str:
        """Its name in recipes."""
        return read_kind(self.section)

    @property
    def moves_encoder(self) -> bool:
        """Whether training changes weights of the encoder itself."""
        return self.trains in ("all", "upper", "pairs", "student")

    def name_recipe(self, num_classes: int) -> str:
        """Name the shipped recipe for a number of classes.

        Args:
            num_classes: Columns of the label contract.
        """
        return self.recipe_many if num_classes >= MANY_CLASSES and self.recipe_many else self.recipe
