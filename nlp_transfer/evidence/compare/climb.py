"""Climb the ladder: run what fits into the budget, cheapest for its worth first, and keep what was left out."""

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from nlp_transfer.errors import DivergedError, EncoderError, OutOfTimeError, RecipeError
from nlp_transfer.evaluation.scoring import compute_metrics
from nlp_transfer.evidence.clock import Clock, StepTimer
from nlp_transfer.evidence.compare.costs import Costs, Task, choose_next
from nlp_transfer.evidence.compare.rungs import RUNGS, Facts, Rung, build_recipe, explain_absence
from nlp_transfer.evidence.compare.trials import Reference, Trial, has_baseline, read_trial, run_baseline, run_trial
from nlp_transfer.publishing.summary import format_duration, format_number
from nlp_transfer.runs.pipeline import run

__all__ = ["Climb", "Omission", "climb_ladder", "measure_steps", "shorten_passes"]

PROBE_SHARE = 0.03
"""Share of the budget that timing a few steps may take; chosen."""

BASELINE_SHARE = 0.4
"""Share of what is left that a fit which cannot be stopped may be foreseen to take; chosen."""


@dataclass(frozen=True)
class Omission:
    """What was left out.

    Attributes:
        rung: Which.
        seeds: The seeds that are missing.
        why: For what reason, without a full stop.
    """

    rung: str
    seeds: list[int]
    why: str


@dataclass
class Climb:
    """A ladder while it is climbed.

    Attributes:
        facts: Table, encoder and passes.
        reference: Rows that everything is scored on.
        source: Data in memory, or None.
        folder: Of the comparison.
        clock: Counts the budget down.
        costs: Foresees seconds.
        select_by: Metric that is shown on the way.
        console: Where it is shown.
        trials: Rung to its finished seeds.
        omissions: What was left out.
    """

    facts: Facts
    reference: Reference
    source: object | None
    folder: Path
    clock: Clock
    costs: Costs
    select_by: str
    console: Console
    trials: dict[str, list[Trial]] = field(default_factory=dict)
    omissions: list[Omission] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Write one line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def place(self, rung: Rung, seed: int) -> Path:
        """Folder of one fit."""
        return self.folder / "runs" / rung.name / f"seed-{seed}"

    def keep(self, rung: Rung, trial: Trial) -> None:
        """Take a finished fit in, and say what it gave."""
        self.trials.setdefault(rung.name, []).append(trial)
        self.costs.learn(rung, trial.seconds, trial.training_seconds, trial.after_seconds)
        truth, found = self.reference.labels["validation"], trial.probabilities["validation"]
        value = compute_metrics(truth, found, self.reference.space, [self.select_by]).get(self.select_by)
        spent = "" if self.clock.budget is None else f" ({self.clock.elapsed:.0f} s of {self.clock.budget:.0f} s)"
        seed = f", seed {trial.seed}" if rung.is_seeded else ""
        self.say(
            f"{rung.name}{seed}: validation {self.select_by} {format_number(value)}, "
            f"{format_duration(trial.seconds)}{spent}"
        )

    def omit(self, rung: Rung, seeds: Sequence[int], why: str) -> None:
        """Leave seeds of a rung out, and say why."""
        self.omissions.append(Omission(rung.name, list(seeds), why))
        which = (
            f", seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}" if rung.name in self.trials else ""
        )
        self.say(f"{rung.name}{which}: left out: {why}")


def measure_steps(climb: Climb) -> float:
    """Time a few steps of full fine-tuning, which all other costs are foreseen by.

    Args:
        climb: The ladder, before its first fit.

    Returns:
        Seconds of a step; 0 where the encoder cannot be fine-tuned.
    """
    budget = climb.clock.budget
    timer = StepTimer(float("inf") if budget is None else PROBE_SHARE * budget)
    recipe = build_recipe(RUNGS["full"], climb.facts, seed=0, folder=climb.folder / "runs" / "timed")
    shutil.rmtree(recipe.report.output_dir, ignore_errors=True)  # what a kill left of an earlier timing
    # What refuses the encoder or the recipe will do so again as a rung of its own, and is told there.
    with contextlib.suppress(OutOfTimeError, EncoderError, RecipeError):
        run(recipe, data=climb.source, progress=False, watch=lambda *_: (timer,))
    # A table of a few steps is through before enough of them are timed.
    shutil.rmtree(recipe.report.output_dir, ignore_errors=True)
    return timer.seconds


def climb_ladder(climb: Climb, rungs: Sequence[Rung], seeds: int) -> None:
    """Run every rung that suits the task and fits into the budget; finished fits are read.

    Args:
        climb: Where the results go.
        rungs: Which rungs.
        seeds: Seeds of each that chance plays a part in: 0, 1, ...
    """
    for rung in rungs:
        if rung.strategy is None:
            _add_baseline(climb, rung)
    tasks = _list_tasks(climb, rungs, seeds)
    while (task := choose_next(tasks, climb.costs, climb.clock.left, _count_done(climb))) is not None:
        tasks.remove(task)
        later = [each for each in tasks if each.rung is task.rung]
        try:
            recipe = build_recipe(task.rung, climb.facts, seed=task.seed, folder=climb.place(task.rung, task.seed))
            after = climb.costs.predict_ending()
            climb.keep(task.rung, run_trial(task.rung, recipe, climb.reference, climb.source, climb.clock, after))
        except (OutOfTimeError, DivergedError, EncoderError, RecipeError) as error:
            climb.omit(task.rung, [task.seed, *(each.seed for each in later)], str(error).rstrip("."))
            tasks = [each for each in tasks if each.rung is not task.rung]
    for rung in rungs:
        missing = [task.seed for task in tasks if task.rung is rung]
        if missing:
            needed, left = climb.costs.predict(rung), max(0.0, climb.clock.left)
            climb.omit(rung, missing, f"a seed was foreseen to take {needed:.0f} s, {left:.0f} s were left")
    for found in climb.trials.values():
        found.sort(key=lambda trial: trial.seed)


def _count_done(climb: Climb) -> dict[str, int]:
    """Finished seeds of every rung."""
    return {name: len(found) for name, found in climb.trials.items()}


def _add_baseline(climb: Climb, rung: Rung) -> None:
    """Fit what no encoder takes part in, unless it would eat the budget: it cannot be stopped."""
    needed, folder = climb.costs.predict(rung), climb.folder / "runs" / rung.name
    if needed > BASELINE_SHARE * climb.clock.left and not has_baseline(folder):
        left = max(0.0, climb.clock.left)
        climb.omit(
            rung, [0], f"it was foreseen to take {needed:.0f} s and cannot be stopped, and {left:.0f} s were left"
        )
        return
    climb.keep(rung, run_baseline(rung, climb.reference, folder, select_by=climb.select_by))


def _list_tasks(climb: Climb, rungs: Sequence[Rung], seeds: int) -> list[Task]:
    """Fits that are still to be run; those that are finished are taken in."""
    tasks = []
    for rung in (each for each in rungs if each.strategy is not None):
        wanted = range(seeds if rung.is_seeded else 1)
        if why := explain_absence(rung, climb.reference.space):
            climb.omit(rung, list(wanted), why)
            continue
        for seed in wanted:
            recipe = build_recipe(rung, climb.facts, seed=seed, folder=climb.place(rung, seed))
            finished = read_trial(rung, recipe, climb.reference)
            if finished is None:
                tasks.append(Task(rung, seed))
            else:
                climb.keep(rung, finished)
    return tasks


def shorten_passes(facts: Facts, costs: Costs, budget: float, *, share: float, fewest: int) -> Facts:
    """Lower the passes until one seed of full fine-tuning takes no more than a share of the budget.

    Args:
        facts: With the passes that the size of the table asks for.
        costs: Knows the seconds of a step.
        budget: Seconds.
        share: Of the budget.
        fewest: Passes that are kept in any case.

    Returns:
        The same, with as many passes or fewer.

    Example:
        >>> from nlp_transfer.contracts import LabelSpace
        >>> facts = Facts({}, LabelSpace("classification", ("no", "yes")), num_train=3200, width=384, epochs=6)
        >>> costs = Costs(facts, 200, 0, step_seconds=1.0, overhead=[0.0])
        >>> [shorten_passes(facts, costs, budget, share=0.4, fewest=2).epochs for budget in (2000.0, 1000.0, 100.0)]
        [6, 4, 2]
    """
    while facts.epochs > fewest and replace(costs, facts=facts).predict(RUNGS["full"]) > share * budget:
        facts = replace(facts, epochs=facts.epochs - 1)
    return facts
