"""The strategies that suit a table: what each is expected to reach and to cost, why, and how it is run."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nlp_transfer.evidence.advise.gains import RESIDUALS, Situation, expect_gain
from nlp_transfer.recipe.strategies.facts import MANY_CLASSES
from nlp_transfer.recipe.strategies.table import STRATEGIES

__all__ = [
    "COSTS",
    "Candidate",
    "Cost",
    "Outlook",
    "estimate_seconds",
    "plan_recipe",
    "rank_candidates",
    "read_outlook",
    "write_outlook",
]

FEW_EXAMPLES = 128
"""Examples a class up to which few_shot and zero_shot are candidates: they were made for fewer still; chosen."""

MUCH = 100
"""Examples a class from which the rule of thumb calls it much; chosen."""

DIFFERENT = 1.3
"""Tokens a word, and masked-token loss, over those of the reference sample from which texts count as different; chosen.
The proxy A-distance does not say it: it tells any two topics apart."""

MOST_BLIND = 0.05
"""Share of texts whose label the encoder cannot see from which the advice begins with that; chosen."""

LEVEL = 0.003
"""Expected scores closer than this are level, and the cheaper strategy comes first; chosen, below what seeds do."""

STEPS, MIN_EPOCHS, MAX_EPOCHS = 300, 3, 20
"""Updates that a small table is given, and the bounds of that in passes; chosen."""

SMALL_ROWS, SMALL_BATCH, BATCH = 1_000, 16, 32
"""Below so many rows batches are smaller, as passes hold few of them; chosen."""

PAIR_ROWS, MAX_PAIR_EPOCHS = 2_000, 8
"""Rows that contrastive training passes over, and most passes; chosen: 8 for 32 rows and 3 for 616, as the shipped
recipes have it."""

Z_95 = 1.96


@dataclass(frozen=True)
class Cost:
    """What a strategy costs, in forward passes of the encoder.

    Attributes:
        once: Passes over every training row before training.
        step: Passes that one training step on a row takes.
    """

    once: float
    step: float


COSTS = {
    kind: Cost(facts.once, facts.step) for kind, facts in STRATEGIES.items() if facts.step is not None and facts.recipe
}
"""The strategies that advice speaks of, and what each costs."""


@dataclass(frozen=True)
class Outlook:
    """Everything that ranking looks at.

    Attributes:
        situation: What gains depend on; its probe is that of the best features.
        probe_error: Standard error of the probe's score.
        zero_shot: Accuracy of the labels' names on train, and its standard error; None where it was not tried.
        rows: Rows by split.
        max_length: Tokens the recipes are told to read.
        slope: What the last doubling of the rows brought the probe.
        word_ratio: Tokens a word over those of the reference sample.
        loss_ratio: Masked-token loss over that of the reference sample; None without a masked-language head.
        forward_seconds: Measured seconds of a forward pass of one row.
        layers: Layers the features are read from; None for the last.
        data: Overrides that name the data and the encoder.
        blind: Share of the texts whose label the encoder cannot see, as it does not know what would tell it.
        is_carried: Whether that is because the unknown part of texts carries the labels; else nothing is known of them.
        reader: Encoder that would read them; empty where that is not asked.
        ceiling: Accuracy that no classifier on this encoder passes on the rows that were looked at, as different texts
            become the same tokens.
    """

    situation: Situation
    probe_error: float
    zero_shot: tuple[float, float] | None
    rows: dict[str, int]
    max_length: int
    slope: float
    word_ratio: float
    loss_ratio: float | None
    forward_seconds: float
    layers: tuple[int, ...] | None
    data: tuple[str, ...]
    blind: float = 0.0
    is_carried: bool = False
    reader: str = ""
    ceiling: float = 1.0


@dataclass(frozen=True)
class Candidate:
    """One strategy, before it is tried.

    Attributes:
        kind: ``strategy.kind``.
        expected: Expected accuracy on new rows.
        low: Lower end of its 95 % interval; the probe's own error is common to all candidates but zero_shot.
        high: Upper end.
        gain: Expected accuracy over that of the head on fixed features.
        seconds: Expected seconds on this machine, scoring included.
        reasons: One sentence each.
        recipe: Shipped name.
        overrides: Dotted keys beside it.
        command: All that as a command line.
    """

    kind: str
    expected: float
    low: float
    high: float
    gain: float
    seconds: float
    reasons: tuple[str, ...]
    recipe: str
    overrides: tuple[str, ...]
    command: str


def plan_recipe(
    kind: str, *, rows: int, classes: int, max_length: int, data: Sequence[str], layers: Sequence[int] | None = None
) -> tuple[str, tuple[str, ...], float]:
    """Choose the shipped recipe of a strategy and size it to a table.

    Args:
        kind: ``strategy.kind``.
        rows: Training rows.
        classes: Count of classes.
        max_length: Tokens to read.
        data: Overrides that name data and encoder; they come first.
        layers: Of features, where not the last.

    Returns:
        Shipped name, overrides, and passes over train, 0 where nothing is trained by gradients.

    Example:
        >>> plan_recipe("full", rows=500, classes=4, max_length=128, data=["data.path=mine.csv"])[1]
        ('data.path=mine.csv', 'data.max_length=128', 'training.epochs=10', 'training.batch_size=16')
    """
    recipe = STRATEGIES[kind].name_recipe(classes)
    overrides = [*data, f"data.max_length={max_length}"]
    epochs = 0.0
    if kind == "features" and layers is not None:
        overrides.append(f"strategy.layers={list(layers)}")
    elif kind == "zero_shot":
        # What the recipe says of the labels of another data set.
        overrides.append("strategy.descriptions={}")
    elif kind == "few_shot":
        epochs = min(MAX_PAIR_EPOCHS, max(2, round(PAIR_ROWS / rows)))
        if not any(override.startswith("data.shots=") for override in data):
            overrides.append("data.shots=null")
        overrides.append(f"training.epochs={epochs:g}")
    elif COSTS[kind].step:
        batch = SMALL_BATCH if rows < SMALL_ROWS else BATCH
        fewest = MIN_EPOCHS if classes < MANY_CLASSES else MIN_EPOCHS + 2
        epochs = min(MAX_EPOCHS, max(fewest, math.ceil(STEPS * batch / rows)))
        overrides += [f"training.epochs={epochs:g}", f"training.batch_size={batch}"]
    return recipe, tuple(overrides), float(epochs)


def estimate_seconds(kind: str, *, forward_seconds: float, rows: dict[str, int], epochs: float) -> float:
    """Say how long a strategy will take on this machine.

    Args:
        kind: ``strategy.kind``.
        forward_seconds: Of one row, measured.
        rows: Rows by split; validation is looked at after every pass, and both are scored in the end.
        epochs: Passes over train.

    Returns:
        Seconds, without those of starting the program.

    Example:
        >>> estimate_seconds("full", forward_seconds=0.01, rows={"train": 100, "validation": 10}, epochs=2)
        6.3
    """
    cost = COSTS[kind]
    trained = rows.get("train", 0) * (cost.once + cost.step * epochs)
    evaluations = epochs if kind not in ("few_shot", "features") else 0
    scored = rows.get("validation", 0) * (1 + evaluations) + rows.get("test", 0)
    return round(forward_seconds * (trained + scored), 3)


def rank_candidates(outlook: Outlook, table: Mapping[str, Sequence[float]] | None = None) -> list[Candidate]:
    """Rank the strategies that suit a table by what they are expected to reach, the cheaper first where level.

    Args:
        outlook: What was found before training.
        table: Gains, as ``GAINS`` holds them, which is used where absent.

    Returns:
        Candidates, the best first.
    """
    each = outlook.situation.rows / outlook.situation.classes
    kinds = [kind for kind in COSTS if not STRATEGIES[kind].for_few]
    if each <= FEW_EXAMPLES and outlook.situation.rows > outlook.situation.classes:
        kinds.append("few_shot")
    if each <= FEW_EXAMPLES and outlook.zero_shot is not None:
        kinds.append("zero_shot")
    found = sorted((_make_candidate(kind, outlook, table) for kind in kinds), key=lambda candidate: -candidate.expected)
    ranked = []
    while found:
        level = [candidate for candidate in found if candidate.expected >= found[0].expected - LEVEL]
        first = min(level, key=lambda candidate: candidate.seconds)
        ranked.append(first)
        found.remove(first)
    return ranked


def write_outlook(outlook: Outlook) -> dict[str, Any]:
    """Turn an outlook into what JSON holds; ``situation`` stands beside the rest.

    Args:
        outlook: What was found before training.

    Returns:
        ``situation`` and ``outlook``, an object each.
    """
    held = asdict(outlook)
    return {"situation": held.pop("situation"), "outlook": held}


def read_outlook(record: Mapping[str, Any]) -> Outlook:
    """Read an outlook from what ``advice.json`` holds, to rank again by another table of gains.

    Args:
        record: Has what ``write_outlook`` gave.

    Returns:
        The outlook.
    """
    held = dict(record["outlook"])
    for key in ("zero_shot", "layers", "data"):
        held[key] = None if held[key] is None else tuple(held[key])
    return Outlook(situation=Situation(**record["situation"]), **held)


def _make_candidate(kind: str, outlook: Outlook, table: Mapping[str, Sequence[float]] | None) -> Candidate:
    """What one strategy is expected to do."""
    situation = outlook.situation
    gain, error = expect_gain(kind, situation, table), math.hypot(outlook.probe_error, RESIDUALS.get(kind, 0.0))
    if gain > 0:
        # No training brings back what the tokenizer lost.
        gain = min(gain * (1 - outlook.blind), max(0.0, outlook.ceiling - situation.probe))
    expected = situation.probe + gain
    if kind == "zero_shot":
        assert outlook.zero_shot is not None
        expected, error = outlook.zero_shot
        gain = expected - situation.probe
    recipe, overrides, epochs = plan_recipe(
        kind,
        rows=situation.rows,
        classes=situation.classes,
        max_length=outlook.max_length,
        data=outlook.data,
        layers=outlook.layers,
    )
    named = (*overrides, f"report.output_dir=runs/advised-{kind}")
    return Candidate(
        kind=kind,
        expected=expected,
        low=max(0.0, expected - Z_95 * error),
        high=min(1.0, expected + Z_95 * error),
        gain=gain,
        seconds=estimate_seconds(kind, forward_seconds=outlook.forward_seconds, rows=outlook.rows, epochs=epochs),
        reasons=_give_reasons(kind, outlook, gain),
        recipe=recipe,
        overrides=named,
        command=shlex.join(["nlp-transfer", "run", recipe, *named]),
    )


def _is_different(outlook: Outlook) -> bool:
    """Whether the texts are unlike those the encoder knows."""
    return _is_blind(outlook) or outlook.word_ratio > DIFFERENT or (outlook.loss_ratio or 0.0) > DIFFERENT


def _is_blind(outlook: Outlook) -> bool:
    """Whether the encoder cannot see the label of many texts."""
    return outlook.blind > MOST_BLIND


def _give_reasons(kind: str, outlook: Outlook, gain: float) -> tuple[str, ...]:
    """Say in words why a strategy stands where it does."""
    situation = outlook.situation
    each = situation.rows / situation.classes
    is_much, is_different = each >= MUCH, _is_different(outlook)
    amount = f"{each:,.0f} examples a class are {'much' if is_much else 'little'}"
    place = "unlike what the encoder knows" if is_different else "like what the encoder knows"
    reasons = [f"{amount}, and the texts are {place}."]
    if _is_blind(outlook):
        lost = "what tells the classes apart in" if outlook.is_carried else "any token of"
        reasons = [f"{amount}, and the encoder does not know {lost} {outlook.blind:.0%} of the texts."]
        if outlook.reader:
            reasons[0] += f" {outlook.reader} would read them: try it with --encoder."
    if kind == "features":
        reasons.append("Nothing in the encoder can be spoiled, and the score was measured by cross-validation.")
        if outlook.layers is not None:
            reasons.append("The middle and the last layer together told the classes apart better than the last.")
    elif kind == "zero_shot":
        reasons.append("Nothing is trained; the score is that of the labels' names on the train rows.")
    elif _is_blind(outlook):
        reasons.append("No training brings back what the tokenizer does not know.")
    elif kind == "few_shot":
        reasons.append("Every pair of examples is one to learn from, which helps where classes are topics.")
    else:
        reasons.append(RULES[is_much, is_different][kind])
    if kind not in ("features", "zero_shot"):
        share = abs(gain) / max(1 - situation.probe, 1e-9)
        verb = "removes" if gain >= 0 else "adds"
        reasons.append(f"In tables like this one it {verb} about {share:.0%} of the errors of fixed features.")
    if kind == "full" and is_different and not is_much and not _is_blind(outlook):
        reasons.append("Pretraining further on unlabelled texts of this kind would come first, where there are any.")
    return tuple(reasons)


RULES: dict[tuple[bool, bool], dict[str, str]] = {
    (False, False): {
        "layerwise": "With little and similar data the lower layers are better left alone.",
        "lora": "With little data few weights are better than all of them.",
        "full": "With little data all weights are easily spoiled.",
    },
    (False, True): {
        "layerwise": "The lower layers stay as they are, though the texts are different.",
        "lora": "It moves every layer a little, with few weights.",
        "full": "Different texts ask for all layers, little data for few.",
    },
    (True, False): {
        "layerwise": "Much and similar data: training the top is enough, and faster.",
        "lora": "Nearly what all weights reach, in a small file.",
        "full": "There is enough to train all weights.",
    },
    (True, True): {
        "layerwise": "The frozen layers were made for other texts.",
        "lora": "It moves every layer, but only in a few directions.",
        "full": "Much and different data: all layers should move.",
    },
}
"""The rule of thumb in words, by whether there is much data and whether it is different."""
