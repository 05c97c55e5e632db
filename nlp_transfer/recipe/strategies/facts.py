"""What is known of a strategy beside its settings: everything that lists strategies derives from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nlp_transfer.contracts import Loader
from nlp_transfer.recipe.section import TechniqueSection, read_kind

__all__ = ["HEAD", "LOSS", "MANY_CLASSES", "SCHEDULE", "SLOW_START", "Gain", "Knob", "StrategyFacts"]


@dataclass(frozen=True)
class Knob:
    """A key that a search turns; exactly one of reach, factors and choices says how.

    Attributes:
        key: Dotted key of the recipe.
        reach: The value may grow and shrink by this factor, on a logarithmic scale.
        factors: The recipe's own value times each of these, in whole numbers from 1 on.
        choices: These values, and the recipe's own.
    """

    key: str
    reach: float = 0.0
    factors: tuple[float, ...] = ()
    choices: tuple[Any, ...] = ()


# The reach of a rate is chosen: beyond five times a rate that works, small encoders break or stand still. So are the
# choices: the values that the papers named in the schema try.
SCHEDULE = (
    Knob("training.learning_rate", reach=5.0),
    Knob("training.epochs", factors=(0.5, 1.0, 1.5, 2.0)),
    Knob("training.batch_size", factors=(0.5, 1.0, 2.0)),
)
LOSS = (
    Knob("training.weight_decay", choices=(0.0, 0.01, 0.1)),
    Knob("training.label_smoothing", choices=(0.0, 0.05, 0.1)),
    Knob("encoder.dropout", choices=(0.0, 0.1, 0.2)),  # or as the encoder was pretrained, where the recipe is silent
)
HEAD = (Knob("training.head_learning_rate", reach=5.0),)

MANY_CLASSES = 20
"""From here recipes are those of banking77, with larger steps and more passes; chosen between 6 and 77."""

SLOW_START = 1.5
"""Passes of what starts at nothing inside a frozen encoder, over those of full; sst2 and tweet_emotion needed more."""


@dataclass(frozen=True)
class Gain:
    """What a strategy brings over a head on fixed features, as shares of the head's errors.

    Attributes:
        prior: Coefficients of the rule of thumb, in the order of ``evidence.advise.gains.SITUATION``.
        fitted: The same after measured outcomes.
        residual: How far measured gains lie from those expected: standard deviation over cells, each left out in turn.
    """

    prior: tuple[float, ...]
    fitted: tuple[float, ...]
    residual: float


# A row is itself and no other; what it holds could not be hashed.
@dataclass(frozen=True, eq=False)
class StrategyFacts:
    """One row of the table of strategies.

    Attributes:
        section: Its settings; ``kind`` is its name, the docstring says what it does, ``use_when`` when to choose it.
        says: What it is, in a few words, for the ladder.
        trains: What moves: every weight, the upper layers, something small inside every layer, the head alone, pairs
            of texts, a student of another classifier, or nothing.
        loads_with: What loads its artefact, where the settings do not ask for another form.
        recipe: Shipped recipe; empty where `advise` and `compare` do not offer it.
        recipe_many: The same for many classes, where those need another.
        learning_rate: Peak rate where a recipe names none; None where nothing is trained by gradients.
        variant_rates: The same of variants that need another.
        space: What a search may change; a mapping by method where the methods differ.
        once: Forward passes of the encoder over every training row before training.
        step: Forward passes that one training step on a row takes; None keeps the strategy out of advice.
        rung: Place on the ladder, from the bottom; None where `compare` does not run it.
        work: Seconds of a step over those of a step of full fine-tuning; 0 where no weight moves by gradients. From
            the table of every strategy in recipes/RESULTS.md, rounded up.
        stretch: Passes over train, over those of full fine-tuning.
        worth: What knowing its score is worth beside the others, for the order under a budget; chosen.
        is_seeded: Whether chance plays a part, so that several seeds tell anything.
        for_few: Whether it was made for a handful of examples a class, and needs classes.
        needs_pretraining: Whether it is of no use on random weights, because it leaves some as they are.
        reserves: Key of the settings that says how many tokens it needs of what the encoder reads; empty for none.
        gain: What it brings over a head on fixed features; None for nothing.
        technique: Module that adapts an encoder; of the name of the kind where empty.
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
        """Whether training moves weights of the encoder itself."""
        return self.trains in ("all", "upper", "pairs", "student")

    def name_recipe(self, num_classes: int) -> str:
        """The shipped recipe.

        Args:
            num_classes: Columns of the label contract.
        """
        return self.recipe_many if num_classes >= MANY_CLASSES and self.recipe_many else self.recipe
