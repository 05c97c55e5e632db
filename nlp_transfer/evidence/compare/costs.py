"""What a fit will cost, from what was measured so far, and which fit to start next."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nlp_transfer.evidence.compare.rungs import BATCH_SIZE, Facts, Rung

__all__ = ["Costs", "Task", "choose_next"]

FORWARD = 0.3
"""Seconds of a batch without gradients over those of a step of full fine-tuning; a third of the products, rounded."""

FIRST_OVERHEAD = 8.0
"""Seconds beside training of a first run, imports included, before any was measured; chosen."""

AGAIN = 1.1
"""A further seed is taken to need this many times the longest one so far; chosen."""

LINEAR_SECONDS = 6e-5
"""Seconds of one linear fit with its choice of the penalty, for each row and class; banking77 on one core."""

SEED_WORTH = (1.0, 0.35, 0.25)
"""Worth of a rung's first, second and any further seed; chosen."""

PROTECTED = "full"
"""The rung that is not crowded out by those before it, because the others are judged by it."""


@dataclass(frozen=True)
class Task:
    """One fit to come.

    Attributes:
        rung: What is fitted.
        seed: With which seed.
    """

    rung: Rung
    seed: int


@dataclass
class Costs:
    """Foresees seconds.

    Attributes:
        facts: Size of the table and passes.
        num_scored: Rows of validation and test.
        num_validation: Rows of validation, looked at after every pass.
        step_seconds: Of a step of full fine-tuning; None where it was not measured.
        overhead: Seconds of a run beside its training, as measured, newest last.
        endings: Seconds of a run after its training: saving, loading what was saved, predicting; newest last.
        measured: Rung to wall seconds of its fits.
        correction: Factor on what is foreseen for training, from what full really took.
    """

    facts: Facts
    num_scored: int
    num_validation: int
    step_seconds: float | None = None
    overhead: list[float] = field(default_factory=list)
    endings: list[float] = field(default_factory=list)
    measured: dict[str, list[float]] = field(default_factory=dict)
    correction: float = 1.0

    def predict(self, rung: Rung) -> float:
        """Seconds of wall time that one more fit of a rung needs, in all likelihood not more."""
        if rung.name in self.measured:
            return AGAIN * max(self.measured[rung.name])
        if rung.strategy is None:
            linear = LINEAR_SECONDS * self.facts.num_train * self.facts.labels.num_outputs
            return 0.1 if rung.name == "majority" else 2.0 + linear
        return self.predict_after() + self.predict_training(rung)

    def predict_after(self) -> float:
        """Seconds that a run needs beside its training: loading, saving, predicting."""
        if self.overhead:
            return AGAIN * max(self.overhead[-3:])
        return FIRST_OVERHEAD + self._pass_over(self.num_scored)

    def predict_ending(self) -> float:
        """Seconds that a run needs once it is trained, for which a deadline must leave room."""
        return AGAIN * max(self.endings[-3:]) if self.endings else self.predict_after()

    def predict_training(self, rung: Rung) -> float:
        """Seconds in the loop, evaluations of validation included, or of the fit of a head."""
        if rung.name == "features":
            linear = LINEAR_SECONDS * self.facts.num_train * self.facts.labels.num_outputs
            return linear + self._pass_over(self.facts.num_train)
        step = self.step_seconds or 0.0
        evaluations = self.facts.count_epochs(rung) * self._pass_over(self.num_validation) if rung.work else 0.0
        return self.correction * (self.facts.count_steps(rung) * rung.work * step + evaluations)

    def learn(self, rung: Rung, seconds: float, training_seconds: float, after_seconds: float | None = None) -> None:
        """Take in what a fit took.

        Args:
            rung: What was fitted.
            seconds: Wall time of all of it.
            training_seconds: Of its training.
            after_seconds: From the end of its training on, where it is known.
        """
        if after_seconds is not None:
            self.endings.append(after_seconds)
        if rung.strategy is not None and rung.name != "features":
            self.overhead.append(max(0.0, seconds - training_seconds))
        if rung.name == PROTECTED and rung.name not in self.measured and self.step_seconds:
            self.correction = 1.0
            foreseen = self.predict_training(rung)
            self.correction = min(3.0, max(0.5, training_seconds / foreseen)) if foreseen else 1.0
        self.measured.setdefault(rung.name, []).append(seconds)

    def describe(self) -> dict[str, float]:
        """What was measured, for the record."""
        found = {"step_seconds": self.step_seconds or 0.0, "correction": self.correction}
        return found | ({"overhead_seconds": statistics.median(self.overhead)} if self.overhead else {})

    def _pass_over(self, num_rows: int) -> float:
        """Seconds of one pass over rows without gradients."""
        return num_rows / BATCH_SIZE * FORWARD * (self.step_seconds or 0.0)


def choose_next(tasks: Sequence[Task], costs: Costs, left: float, done: Mapping[str, int]) -> Task | None:
    """Choose the fit that tells most for its time, among those that fit in.

    Full fine-tuning is what the others are held against: while it has no seed yet and could still have one, nothing is
    started that would leave it without.

    Args:
        tasks: Fits to come.
        costs: Foresees their seconds.
        left: Seconds that are left; infinite without a budget.
        done: Rung to count of seeds that are through.

    Returns:
        The next fit; None where none fits in.

    Example:
        >>> from nlp_transfer.contracts import LabelSpace
        >>> from nlp_transfer.evidence.compare.rungs import RUNGS
        >>> facts = Facts({}, LabelSpace("classification", ("no", "yes")), num_train=640, width=384, epochs=4)
        >>> costs = Costs(facts, 200, 100, step_seconds=1.0, overhead=[1.0])
        >>> tasks = [Task(RUNGS[name], 0) for name in ("layerwise", "full", "lora")]
        >>> [(choose_next(tasks, costs, left, {}) or tasks[2]).rung.name for left in (1000.0, 120.0, 60.0)]
        ['layerwise', 'full', 'layerwise']
    """
    if left == float("inf"):
        return tasks[0] if tasks else None
    seconds = {task: costs.predict(task.rung) for task in tasks}
    fitting = [task for task in tasks if seconds[task] <= left]
    guarded = next((task for task in fitting if task.rung.name == PROTECTED and not done.get(PROTECTED)), None)
    if guarded is not None:
        fitting = [task for task in fitting if task is guarded or seconds[task] + seconds[guarded] <= left]
    if not fitting:
        return None

    def weigh(task: Task) -> float:
        worth = SEED_WORTH[min(done.get(task.rung.name, 0), len(SEED_WORTH) - 1)]
        return task.rung.worth * worth / max(seconds[task], 1e-3)

    return max(fitting, key=weigh)
