"""Run the trials of a search: fit, evaluate, give up early, stop in time."""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState
from rich.console import Console

from nlp_transfer.contracts import Evaluation, RunLog
from nlp_transfer.engine.precision import choose_precision
from nlp_transfer.engine.train.hooks import PlainProgress, ProgressBar, build_progress
from nlp_transfer.engine.train.notebook import NotebookProgress
from nlp_transfer.errors import DivergedError, EncoderError, RecipeError
from nlp_transfer.evaluation.scoring import compute_metrics, is_better
from nlp_transfer.evidence.tune.spaces import build_space, read_key
from nlp_transfer.evidence.tune.study import Evaluated, TrialBook, Tried
from nlp_transfer.figures import format_number
from nlp_transfer.files import explain_writing
from nlp_transfer.fitting.fit import predict_split
from nlp_transfer.fitting.series import Fits
from nlp_transfer.fitting.stages import HookMaker
from nlp_transfer.methods import train_with_methods
from nlp_transfer.models.encoder import read_config
from nlp_transfer.models.resolve import EncoderSource
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.methods.table import METHODS, list_active
from nlp_transfer.recipe.schema import LOWER_IS_BETTER, Recipe
from nlp_transfer.runs.pipeline import prepare
from nlp_transfer.runs.seed import Workspace, make_accelerator

if TYPE_CHECKING:
    from optuna.trial import Trial

__all__ = [
    "Runner",
    "change_recipe",
    "describe_changes",
    "describe_trial",
    "name_predictions",
    "open_book",
    "write_predictions",
]

MOST_SKIPPED = 5
"""Trials in a row that would not end in time, or are refused, before the search ends; chosen."""

SLACK = 1.2
"""Factor on the time that a trial is expected to take; chosen."""


class _GivenUp(Exception):  # noqa: N818 - nothing went wrong
    """The trial does worse than most did at this point."""


class _OutOfTime(Exception):  # noqa: N818 - nothing went wrong
    """The time of the search is over."""


@dataclass
class _Watch:
    """Watches one fit of a trial: a hook of the loop."""

    book: TrialBook
    trial: "Trial"
    metric: str
    num_steps: int
    started: float
    deadline: float
    parent: int | None
    bar: ProgressBar | NotebookProgress | PlainProgress | None
    has_several_fits: bool = False
    evaluations: list[Evaluated] = field(default_factory=list)
    progress: float = 0.0

    def after_step(self, log: RunLog, loss: float | None, learning_rate: float) -> None:
        """Stop where time is over or nobody waits any more."""
        self.progress = min(1.0, log.steps / self.num_steps)
        if self.bar is not None:
            self.bar.after_step(log, loss, learning_rate)
        if self.parent is not None and os.getppid() != self.parent:
            # Another search may have taken the folder over by now.
            raise SystemExit(1)
        if time.time() > self.deadline:
            raise _OutOfTime

    def after_evaluation(self, log: RunLog, evaluation: Evaluation) -> None:  # noqa: ARG002
        """Note the figure; give up where it is worse than the median of trials at the same share of their one fit."""
        self.book.note_seconds(self.started)
        if self.has_several_fits:
            return
        self.evaluations.append((self.progress, evaluation.metrics[self.metric]))
        if self.book.should_stop(self.trial, self.evaluations) and self.progress < 1:
            raise _GivenUp

    def close(self) -> None:
        """Take the bar off the screen."""
        if self.bar is not None:
            self.bar.close()


def change_recipe(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Put the values of a trial into a recipe; a value that the recipe has already changes nothing.

    Args:
        recipe: As it stands.
        changes: Values by dotted key.

    Returns:
        A checked recipe.

    Example:
        >>> change_recipe(Recipe(), {"training.epochs": 5.0}).training.epochs
        5.0
    """
    return load_recipe(recipe, {key: value for key, value in changes.items() if read_key(recipe, key) != value})


def name_predictions(folder: Path, index: int, seed: int | None = None) -> Path:
    """Name the file that holds what a trial predicts, with its own training seed or another."""
    return folder / "predictions" / (f"trial-{index}.npz" if seed is None else f"trial-{index}-seed-{seed}.npz")


@dataclass
class Runner:
    """Runs trials in this process.

    Attributes:
        recipe: As it stands.
        spaces: Loaded and tokenized splits by training seed.
        book: The trials.
        console: Where progress is shown.
        deadline: When all must be done, in seconds since the epoch.
        num_after: Fits that are still to come when the search has ended, for which time is kept.
        num_trials: Places of the whole search; None for no limit.
        parent: The process without which this one is to end; None for none.
        source: Data in memory; None where the recipe names it.
        started: When this start of the search began, in seconds since the epoch.
    """

    recipe: Recipe
    spaces: Mapping[int, Workspace]
    book: TrialBook
    console: Console
    deadline: float = float("inf")
    num_after: int = 0
    num_trials: int | None = None
    parent: int | None = None
    source: object | None = None
    started: float = field(default_factory=time.time)

    @property
    def seed(self) -> int:
        """The training seed of every trial."""
        return (self.recipe.training.seeds or [self.recipe.training.seed])[0]

    @property
    def metric(self) -> str:
        """The validation figure that the search goes by."""
        return str(self.recipe.training.select_by)

    def run_all(self) -> None:
        """Run trials until places or time are used up."""
        num_skipped = 0
        while time.time() < self.find_end() and num_skipped < MOST_SKIPPED:
            trial = self.book.ask(self.num_trials)
            if trial is None:
                return
            index, changes = int(trial.user_attrs["index"]), trial.user_attrs["changes"]
            if index and time.time() + self._estimate(changes) > self.find_end():
                self.book.close(trial, "skipped", seconds=0.0, progress=0.0)
                num_skipped += 1
                continue
            is_refused = self._run(trial, index, changes) == "refused"
            num_skipped = num_skipped + 1 if is_refused else 0

    def find_end(self) -> float:
        """When the search itself must end, in seconds since the epoch."""
        longest = max((each.seconds for each in self.book.read() if each.state == "complete"), default=0.0)
        return self.deadline - self.num_after * longest

    def _estimate(self, changes: Mapping[str, Any]) -> float:
        """Seconds that a trial may take: at the slowest pace seen so far, and some, as settings differ in speed."""
        paces = [
            each.seconds / (_count_epochs(self.recipe, each.changes) * each.progress)
            for each in self.book.read()
            if each.state == "complete" and each.progress
        ]
        return SLACK * max(paces, default=0.0) * _count_epochs(self.recipe, changes)

    def _run(self, trial: "Trial", index: int, changes: Mapping[str, Any]) -> str:
        """Run one trial, note how it ended, and give that."""
        started = time.monotonic()
        watches: list[_Watch] = []
        has_several_fits = any(METHODS[each.kind].phase == "around" for each in list_active(self.recipe.methods))

        def make_hooks(num_steps: int, label: str) -> tuple[_Watch, ...]:
            # In a notebook or terminal a bar; elsewhere the lines of finished trials are enough.
            is_shown = not self.console.quiet and (self.console.is_terminal or self.console.is_jupyter)
            bar = build_progress(self.console, num_steps, label) if is_shown else None
            facts = (num_steps, self.started, self.find_end(), self.parent, bar, has_several_fits)
            watches.append(_Watch(self.book, trial, self.metric, *facts))
            return (watches[-1],)

        state, value = "complete", None
        try:
            recipe = self.recipe if index == 0 else change_recipe(self.recipe, changes)
            found = self.fit(recipe, self.seed, make_hooks, label=f"trial {index}", wants_test=self._is_kept(index))
            value = self._measure(found["validation"])
            # Before the trial counts as complete, so that none that does lacks them.
            if "test" in found or self._is_kept(index)(found["validation"]):
                write_predictions(name_predictions(self.book.folder, index), found)
        except _GivenUp:
            state = "pruned"
        except _OutOfTime:
            state = "interrupted"
        except (DivergedError, torch.OutOfMemoryError):
            state = "diverged"
        except (EncoderError, RecipeError) as error:
            if index == 0:
                raise  # the recipe itself is at fault, which the user has to hear
            state = "refused"
            self.console.print(f"trial {index}: {error}", highlight=False, markup=False, soft_wrap=True)
        progress = 1.0 if state == "complete" else (watches[-1].progress if watches else 0.0)
        self.book.close(trial, state, seconds=time.monotonic() - started, progress=progress, value=value)
        self.book.note_seconds(self.started)
        self._say(index)
        return state

    def fit(
        self,
        recipe: Recipe,
        seed: int,
        make_hooks: HookMaker | None = None,
        *,
        label: str = "",
        wants_test: Callable[[np.ndarray], bool] = lambda _: True,
    ) -> dict[str, np.ndarray]:
        """Fit a recipe with a training seed and predict validation, and test where it is wanted.

        Args:
            recipe: The run.
            seed: Training seed.
            make_hooks: Watchers of the loop.
            label: What a progress bar says.
            wants_test: Given the probabilities of validation, whether test is predicted too.

        Returns:
            Split name to float64 (N, C).

        Raises:
            DivergedError: The weights did not stay finite.
        """
        AcceleratorState._reset_state(reset_partial_state=True)
        # A fit that was given up may have left updates switched off.
        GradientState._reset_state()
        training = recipe.training.model_copy(update={"seed": seed, "seeds": None, "trackers": []})
        recipe = recipe.model_copy(update={"training": training})
        accelerator, space = make_accelerator(recipe), self._space_of(recipe, seed)
        fits = Fits(
            recipe,
            space.splits,
            space.prepared,
            accelerator,
            make_hooks=make_hooks,
            label=label,
            precision=choose_precision(training.precision, accelerator.device.type),
        )
        fitted = train_with_methods(fits)
        model, config = fitted.adapted.model, recipe.evaluation
        found: dict[str, np.ndarray] = {}
        for split in ("validation", "test"):
            if split in space.prepared.splits and (split == "validation" or wants_test(found["validation"])):
                found[split] = predict_split(
                    model,
                    space.prepared,
                    split,
                    accelerator,
                    batch_size=config.batch_size,
                    max_tokens=config.max_tokens,
                )
        del fitted, model
        accelerator.free_memory()
        return found

    def _space_of(self, recipe: Recipe, seed: int) -> Workspace:
        """The splits of a fit; prompts of another length may leave another room for the text."""
        space = self.spaces[seed]
        if getattr(recipe.strategy, "tokens", 0) == getattr(self.recipe.strategy, "tokens", 0):
            return space
        return prepare(recipe, [seed], self.source, Console(quiet=True))[seed]

    def _measure(self, probabilities: np.ndarray) -> float:
        """The validation figure of finished weights."""
        prepared = self.spaces[self.seed].prepared
        labels = prepared.splits["validation"].labels
        assert labels is not None
        return compute_metrics(labels, probabilities, prepared.labels, [self.metric])[self.metric]

    def _is_kept(self, index: int) -> Callable[[np.ndarray], bool]:
        """Tell whether predictions are kept: of the recipe itself, and of the best so far. Test is not scored yet."""

        def is_kept(probabilities: np.ndarray) -> bool:
            best = self.book.find_best()
            if index == 0 or best is None or best.value is None:
                return True
            value = self._measure(probabilities)
            return is_better(self.metric, value, best.value)

        return is_kept

    def _say(self, index: int) -> None:
        """Show how a trial ended."""
        tried = next(each for each in self.book.read() if each.index == index)
        self.console.print(
            describe_trial(tried, self.recipe, self.book.find_best()), highlight=False, markup=False, soft_wrap=True
        )


def write_predictions(path: Path, found: Mapping[str, np.ndarray]) -> None:
    """Write predictions aside and rename them, so that a kill leaves no half of them."""
    aside = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            np.savez(file, **dict(found))  # type: ignore[arg-type]
        aside.replace(path)
    except OSError as error:
        raise explain_writing(path, error, way_out="Free space; the same command goes on.") from error
    finally:
        aside.unlink(missing_ok=True)


def _count_epochs(recipe: Recipe, changes: Mapping[str, Any]) -> float:
    """Passes over train that a trial makes, or 1 where no trial changes them."""
    return float(changes.get("training.epochs", 1.0) if recipe.training.max_steps is None else 1.0)


def describe_trial(tried: Tried, recipe: Recipe, best: Tried | None) -> str:
    """Say in one line what a trial was and how it ended.

    Example:
        >>> tried = Tried(2, "complete", {"training.epochs": 5.0}, value=0.91, seconds=12.0)
        >>> describe_trial(tried, Recipe(), tried)
        'trial 2: accuracy 0.910 in 12 s, the best so far: training.epochs=5.0'
    """
    metric = str(recipe.training.select_by)
    if tried.state == "complete" and tried.value is not None:
        said = f"{metric} {format_number(tried.value)} in {tried.seconds:.0f} s"
        said += ", the best so far" if best is not None and best.index == tried.index else ""
    else:
        said = f"{tried.state} at {tried.progress:.0%} after {tried.seconds:.0f} s"
    return f"trial {tried.index}: {said}: {describe_changes(tried, recipe)}"


def describe_changes(tried: Tried, recipe: Recipe) -> str:
    """Write what a trial changes in the recipe, as overrides of the command line."""
    if tried.index == 0:
        return "the recipe as it stands"
    pairs = [f"{key}={value}" for key, value in tried.changes.items() if read_key(recipe, key) != value]
    return " ".join(pairs) or "the recipe as it stands"


def open_book(recipe: Recipe, folder: Path, seed: int, space: Workspace) -> TrialBook:
    """Open the trials of a search, new or begun.

    Args:
        recipe: As it stands.
        folder: Of the search.
        seed: Of the search.
        space: Splits and encoder, as the training seed has them.

    Returns:
        Its trials.

    Raises:
        RecipeError: Nothing is there to be searched.
        MissingExtraError: Optuna is not installed.
        OutputError: The folder holds another search.
    """
    searched = build_space(recipe, num_layers=_count_layers(recipe, space.source))
    facts = {"seed": seed, "space": [each.to_json() for each in searched]}
    identity = json.dumps(facts | {"rows": space.rows, "revision": space.source.revision})
    is_lower = recipe.training.select_by in LOWER_IS_BETTER
    return TrialBook(folder, searched, seed=seed, lower_is_better=is_lower, identity=identity)


def _count_layers(recipe: Recipe, source: EncoderSource) -> int | None:
    """Layers of the encoder, where its configuration says so."""
    config = read_config(source, trust_remote_code=recipe.encoder.trust_remote_code)
    found = getattr(config, "num_hidden_layers", None)
    return found if isinstance(found, int) else None
