"""The learning curve: score against the number of labelled rows, which shows where more labels pay."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nlp_transfer.contracts import Splits
from nlp_transfer.data.load import load_splits
from nlp_transfer.errors import DataError, DivergedError, EncoderError, OutOfTimeError, RecipeError
from nlp_transfer.evaluation.scoring import score_seeds
from nlp_transfer.evidence.compare.climb import Climb
from nlp_transfer.evidence.compare.costs import Costs
from nlp_transfer.evidence.compare.data import build_reference, read_sections
from nlp_transfer.evidence.compare.rungs import RUNGS, Rung, build_recipe, choose_epochs, choose_rungs
from nlp_transfer.evidence.compare.trials import Reference, Trial, has_baseline, run_baseline, run_trial
from nlp_transfer.recipe.schema import EvaluationConfig

__all__ = ["choose_curve_rungs", "list_sizes", "trace_curve"]

FIRST_SIZE = 32
"""Rows of the first point; every further one doubles them."""

USUAL = ("tfidf", "features", "full")
"""Rungs of the curve where none is named: without an encoder, without its training, with it."""

FIXED = {
    "majority": "reads no text",
    "zero_shot": "learns from no rows",
    "few_shot": "has eight rows a class at any size",
}
"""Rungs that a curve says nothing about, and why."""


def choose_curve_rungs(names: Sequence[str] | None) -> list[Rung]:
    """Find the rungs of the curve.

    Args:
        names: Names; the usual three where absent.

    Returns:
        At least one rung.

    Raises:
        RecipeError: There is no such rung, or the number of rows means nothing to it.

    Example:
        >>> [rung.name for rung in choose_curve_rungs(None)]
        ['tfidf', 'features', 'full']
    """
    found = choose_rungs(list(names or USUAL))
    for rung in found:
        if rung.name in FIXED:
            usable = ", ".join(name for name in RUNGS if name not in FIXED)
            raise RecipeError(f"curve_rung: {rung.name} {FIXED[rung.name]}. Choose from {usable}.")
    return found


def list_sizes(num_train: int) -> list[int]:
    """List the sizes of a curve: 32, 64, 128, ... below all rows, and all.

    Example:
        >>> list_sizes(200), list_sizes(20)
        ([32, 64, 128, 200], [20])
    """
    sizes = []
    size = FIRST_SIZE
    while size < num_train:
        sizes.append(size)
        size *= 2
    return [*sizes, num_train]


def trace_curve(
    climb: Climb, rungs: Sequence[Rung], seeds: int, settings: EvaluationConfig, metrics: Sequence[str]
) -> dict[str, Any]:
    """Run rungs on the first rows of train, more and more of them; finished points are read.

    Args:
        climb: The finished ladder, whose clock goes on; its fits are the points of all rows.
        rungs: Which rungs.
        seeds: Seeds of each point.
        settings: Resamples and confidence.
        metrics: What is scored.

    Returns:
        ``points``: rung, examples, seeds, and metric to score on test; ``notes``: what was left out, and why.
    """
    sizes = list_sizes(climb.facts.num_train)
    trials: dict[tuple[str, int], list[Trial]] = {}
    notes: list[str] = []
    for rung in rungs:
        if rung.name in climb.trials:
            trials[rung.name, sizes[-1]] = list(climb.trials[rung.name])
    for seed in range(seeds):
        for size in sizes:
            for rung in rungs:
                known = trials.setdefault((rung.name, size), [])
                if any(trial.seed == seed for trial in known) or (seed and not rung.is_seeded):
                    continue
                try:
                    known.append(_run_point(climb, rung, size, seed))
                except (OutOfTimeError, DivergedError, DataError, EncoderError, RecipeError) as error:
                    notes.append(f"{rung.name} on {size:,} rows, seed {seed}: {error}")
    space, truth = climb.reference.space, climb.reference.labels["test"]
    points = []
    for (name, size), found in sorted(trials.items(), key=lambda item: (list(RUNGS).index(item[0][0]), item[0][1])):
        if found:
            scored = score_seeds(
                [trial.probabilities["test"] for trial in found],
                truth,
                space,
                metrics,
                resamples=settings.resamples,
                confidence=settings.confidence,
            )
            point: dict[str, Any] = {"rung": name, "examples": size, "seeds": [trial.seed for trial in found]}
            points.append(point | {"test": {metric: score.to_json() for metric, score in scored.items()}})
    return {"points": points, "notes": notes}


def _run_point(climb: Climb, rung: Rung, size: int, seed: int) -> Trial:
    """Run one fit on the first rows of train."""
    facts = replace(
        climb.facts,
        changes={**climb.facts.changes, "data.limit": size},
        num_train=size,
        epochs=min(choose_epochs(size, climb.reference.space.num_outputs), _find_most(climb, size)),
    )
    # What the ladder measured holds for its own size only.
    costs = Costs(
        facts,
        climb.costs.num_scored,
        climb.costs.num_validation,
        climb.costs.step_seconds,
        list(climb.costs.overhead),
        correction=climb.costs.correction,
    )
    folder = climb.folder / "curve" / rung.name / f"{size}" / f"seed-{seed}"
    recipe = None if rung.strategy is None else build_recipe(rung, facts, seed=seed, folder=folder)
    needed, is_finished = costs.predict(rung), has_baseline(folder) or (folder / "report.json").is_file()
    if needed > climb.clock.left and not is_finished:
        raise OutOfTimeError(f"left out: foreseen to take {needed:.0f} s, {max(0.0, climb.clock.left):.0f} s were left")
    if recipe is None:
        trial = run_baseline(rung, _narrow(climb, size), folder, select_by=climb.select_by)
    else:
        trial = run_trial(rung, recipe, climb.reference, climb.source, climb.clock, climb.costs.predict_ending())
    climb.say(f"curve: {rung.name} on {size:,} rows, seed {seed}: {trial.seconds:.0f} s")
    return trial


def _find_most(climb: Climb, size: int) -> int:
    """Passes that are not exceeded: those of the ladder on all rows, any on fewer."""
    return climb.facts.epochs if size == climb.facts.num_train else choose_epochs(1, 2)


def _narrow(climb: Climb, size: int) -> Reference:
    """The reference with the first rows of train only, drawn as `data.limit` draws them."""
    data, task = read_sections({**climb.facts.changes, "data.limit": size})
    splits: Splits = load_splits(data, task, seed=0, source=climb.source)
    narrow = build_reference(splits)
    if narrow.ids != climb.reference.ids:
        raise DataError(f"curve: the rows of validation or test changed with {size} rows of train. Report this.")
    return narrow
