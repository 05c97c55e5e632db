"""The search's memory: trials in a file that several processes share and that outlives any of them.

Optuna chooses the settings and keeps the book; what is a trial's place, when it is given up and what is done again
after a kill is decided here.
"""

import json
import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from filelock import FileLock

from nlp_transfer.errors import MissingExtraError, OutputError
from nlp_transfer.evidence.tune.spaces import Dimension, list_first_tries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

__all__ = ["Evaluated", "TrialBook", "Tried", "is_below_median"]

JOURNAL = "trials.journal"
LOCK = ".trials.lock"
STUDY = "tune"
REOPENED, SPENT = "reopened", "spent-"
"""Facts of the study: how many of Optuna's trials the last start found, and the seconds of every start."""
STARTUP_TRIALS = 6
"""Trials before the model of the search has a say: the first tries and as many drawn at random. Chosen."""
MIN_COMPLETED = 3
"""Completed trials before another may be given up; chosen: a median of fewer is one trial's opinion."""

DIFFERENCES = {
    "seed": "with another seed",
    "rows": "of other rows",
    "revision": "of another revision of the encoder",
    "space": "of another version of this program",
}
"""What makes it another search, by the keys of its identity."""

Evaluated = tuple[float, float]
"""Share of the training done, in (0, 1], and the validation figure there."""


@dataclass(frozen=True)
class Tried:
    """One trial.

    Attributes:
        index: Its place in the search, from 0; 0 is the recipe as it stands.
        state: ``running``, ``complete``, ``pruned``, ``diverged``, ``refused`` (its values do not fit the encoder),
            ``interrupted`` (killed, or out of time) or ``skipped`` (it would not have ended in time). The last two are
            run again when the search goes on.
        changes: Value by dotted key, of all keys that are searched.
        value: Validation figure; None unless complete.
        seconds: What it took; 0 where that is not known.
        progress: Share of its training that was done.
        evaluations: Every evaluation.
    """

    index: int
    state: str
    changes: Mapping[str, Any]
    value: float | None = None
    seconds: float = 0.0
    progress: float = 0.0
    evaluations: Sequence[Evaluated] = field(default_factory=tuple)


def is_below_median(
    evaluations: Sequence[Evaluated], others: Sequence[Sequence[Evaluated]], *, lower_is_better: bool
) -> bool:
    """Whether a trial's best figure so far is worse than the median of the others at the same share of training.

    Trials differ in length, so they are compared by the share that is done, not by step; of another trial counts the
    last look that is not ahead.

    Args:
        evaluations: Of the trial, in order.
        others: Looks of each completed trial.
        lower_is_better: Direction of the figure.

    Returns:
        False where fewer than three others can be compared.

    Source:
        Golovin et al. 2017, "Google Vizier", section 3.2.2 (median stopping). With evaluations at the same shares it
        decides as Optuna's MedianPruner.

    Example:
        >>> others = [[(0.5, 0.6), (1.0, 0.9)], [(0.5, 0.7), (1.0, 0.8)], [(0.4, 0.8), (0.8, 0.9)]]
        >>> is_below_median([(0.5, 0.65)], others, lower_is_better=False)
        True
    """
    sign = -1.0 if lower_is_better else 1.0
    share = evaluations[-1][0] + 1e-6  # shares are rounded when they are stored
    reached = [[value for at, value in each if at <= share] for each in others]
    beside = [sign * values[-1] for values in reached if values]
    if len(beside) < MIN_COMPLETED:
        return False
    return max(sign * value for _, value in evaluations) < float(np.median(beside))


class TrialBook:
    """The trials of one search, in a folder.

    Args:
        folder: Of the search; it exists.
        space: What is searched.
        seed: Of the search; every trial draws from its own stream, so that a search that was broken off chooses as
            one that was not.
        lower_is_better: Direction of the validation figure.
        identity: What makes it this search, JSON with the keys of ``DIFFERENCES``; a folder that holds another one is
            refused.

    Raises:
        MissingExtraError: Optuna is not installed.
        OutputError: The folder holds another search.
    """

    def __init__(
        self, folder: Path, space: tuple[Dimension, ...], *, seed: int, lower_is_better: bool, identity: str
    ) -> None:
        try:
            import optuna
        except ImportError as error:
            raise MissingExtraError("optuna", extra="tune", purpose="nlp-transfer tune") from error
        logging.getLogger("optuna").setLevel(logging.ERROR)
        self.optuna, self.folder, self.space = optuna, folder, space
        self.seed, self.lower_is_better = seed, lower_is_better
        self.lock = FileLock(folder / LOCK)
        with self.hold():
            self.study: Study = self._open()
            known = self.study.user_attrs.get("identity")
            if known is None:
                self.study.set_user_attr("identity", identity)
            elif known != identity:
                raise OutputError(
                    f"--out: {folder} holds a search {_tell_apart(known, identity)}. Nothing there was touched. Name "
                    "another folder."
                )

    def _open(self) -> "Study":
        """Open the journal; what a kill left of a line is cut off."""
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        path = self.folder / JOURNAL
        if path.is_file() and (content := path.read_bytes()) and not content.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
        # The kernel frees this lock with the process; Optuna's own outlives a kill by half a minute.
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=_Lock(path)))  # type: ignore[arg-type]
        direction: Literal["minimize", "maximize"] = "minimize" if self.lower_is_better else "maximize"
        if any(study.study_name == STUDY for study in storage.get_all_studies()):
            return self.optuna.load_study(storage=storage, study_name=STUDY)
        return self.optuna.create_study(storage=storage, study_name=STUDY, direction=direction)

    @contextmanager
    def hold(self) -> "Iterator[None]":
        """Keep other processes of the search from choosing at the same time."""
        with self.lock:
            yield

    def release_lost(self) -> int:
        """Free the places of lost and skipped trials, when no process of the search is alive; say how many were lost.

        What still counts as running is interrupted. What was skipped for want of time is tried again.
        """
        trials = self._trials()
        lost = [trial for trial in trials if trial.state.name == "RUNNING"]
        for trial in lost:
            self.study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)
        self.study.set_user_attr(REOPENED, len(trials))
        return len(lost)

    def note_seconds(self, started: float) -> None:
        """Note that the start of then, in seconds since the epoch, has worked until now."""
        self.study.set_user_attr(f"{SPENT}{started:.3f}", time.time() - started)

    def sum_seconds(self) -> float:
        """Wall seconds of all starts, however many processes they ran; of one that was killed, up to its last note."""
        return sum(float(value) for name, value in self.study.user_attrs.items() if name.startswith(SPENT))

    def ask(self, num_trials: int | None) -> "Trial | None":
        """Choose the next trial: an interrupted one again, else a first try, else what the search wants.

        Args:
            num_trials: Places of the whole search; None for no limit.

        Returns:
            A trial of Optuna with every key suggested; None where all places are taken.
        """
        with self.hold():
            index, params = self._find_place()
            if num_trials is not None and index >= num_trials:
                return None
            stream = int(np.random.SeedSequence([self.seed, index]).generate_state(1)[0])
            self.study.sampler = self._make_sampler(stream, params)
            trial = self.study.ask()
            trial.set_user_attr("index", index)
            trial.set_user_attr("changes", {each.key: each.suggest(trial) for each in self.space})
            return trial

    def _make_sampler(self, seed: int, params: Mapping[str, Any] | None) -> "BaseSampler":
        """What chooses one trial: given settings, or a model of what did well so far."""
        samplers = self.optuna.samplers
        sampler: BaseSampler = samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True)
        if params is None:
            return sampler
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self.optuna.exceptions.ExperimentalWarning)
            fixed: BaseSampler = samplers.PartialFixedSampler(dict(params), sampler)
        return fixed

    def _find_place(self) -> tuple[int, dict[str, Any] | None]:
        """The first place that is free, and its settings where they are settled."""
        found, first = self.read(), list_first_tries(self.space)
        index = next((each.index for each in found if each.state == "interrupted"), len(found))
        if index < len(first):
            return index, first[index]
        before = [trial.params for trial in self._trials() if trial.user_attrs.get("index") == index]
        # One that was killed before its settings were complete is chosen anew.
        is_settled = bool(before) and len(before[-1]) == len(self.space)
        return index, before[-1] if is_settled else None

    def should_stop(self, trial: "Trial", evaluations: Sequence[Evaluated]) -> bool:
        """Note a look of a running trial; say whether the trial is to be given up."""
        trial.report(evaluations[-1][1], step=round(1000 * evaluations[-1][0]))
        if trial.user_attrs["index"] == 0:
            return False  # what all others are compared with
        others = [each.evaluations for each in self.read() if each.state == "complete"]
        return is_below_median(evaluations, others, lower_is_better=self.lower_is_better)

    def close(self, trial: "Trial", state: str, *, seconds: float, progress: float, value: float | None = None) -> None:
        """Note how a trial ended."""
        states = self.optuna.trial.TrialState
        trial.set_user_attr("state", state)
        trial.set_user_attr("seconds", seconds)
        trial.set_user_attr("progress", progress)
        if state == "complete":
            self.study.tell(trial, value)
        else:
            self.study.tell(trial, state=states.PRUNED if state == "pruned" else states.FAIL)

    def read(self) -> list[Tried]:
        """Read every trial, one a place in the search, by place; the last attempt where there were several."""
        found: dict[int, Tried] = {}
        reopened = int(self.study.user_attrs.get(REOPENED, 0))
        for trial in self._trials():
            if "index" in trial.user_attrs:
                tried = _read_trial(trial)
                if tried.state == "skipped" and trial.number < reopened:
                    tried = replace(tried, state="interrupted")
                found[tried.index] = tried
        return [found[index] for index in sorted(found)]

    def find_best(self) -> Tried | None:
        """The completed trial with the best validation figure, the earliest of equals; None where there is none."""
        done = [each for each in self.read() if each.state == "complete" and each.value is not None]
        sign = 1.0 if self.lower_is_better else -1.0
        return min(done, key=lambda each: (sign * float(each.value or 0.0), each.index), default=None)

    def measure_importance(self) -> dict[str, float]:
        """Share of the differences between completed trials that each key explains, in [0, 1], largest first.

        Empty where fewer than three trials completed, or all reached the same figure.

        Source:
            Hutter, Hoos and Leyton-Brown 2014 (functional ANOVA), as Optuna computes it.
        """
        values = {each.value for each in self.read() if each.state == "complete"}
        num_completed = sum(each.state == "complete" for each in self.read())
        if len(values) < 2 or num_completed < MIN_COMPLETED:
            return {}
        evaluator = self.optuna.importance.FanovaImportanceEvaluator(seed=self.seed)
        found = self.optuna.importance.get_param_importances(self.study, evaluator=evaluator)
        return {key: float(share) for key, share in found.items() if np.isfinite(share)}

    def _trials(self) -> "list[FrozenTrial]":
        """Optuna's own records, in the order in which they were started."""
        return self.study.get_trials(deepcopy=False)


def _tell_apart(known: str, identity: str) -> str:
    """Say in what two searches differ."""
    one, other = json.loads(known), json.loads(identity)
    found = [said for key, said in DIFFERENCES.items() if one.get(key) != other.get(key)]
    return " and ".join(found) or DIFFERENCES["space"]


class _Lock:
    """The lock of a journal, as Optuna calls it."""

    def __init__(self, path: Path) -> None:
        self.lock = FileLock(path.with_name(f".{path.name}.lock"))

    def acquire(self) -> bool:
        """Wait for it."""
        self.lock.acquire()
        return True

    def release(self) -> None:
        """Give it back."""
        self.lock.release()


def _read_trial(trial: "FrozenTrial") -> Tried:
    """Make our record of Optuna's."""
    facts = trial.user_attrs
    known = {"RUNNING": "running", "COMPLETE": "complete", "PRUNED": "pruned"}
    state = known.get(trial.state.name, facts.get("state", "interrupted"))
    evaluations = tuple((step / 1000, float(value)) for step, value in sorted(trial.intermediate_values.items()))
    return Tried(
        index=int(facts["index"]),
        state=str(state),
        changes=dict(facts.get("changes", {})),
        value=None if trial.state.name != "COMPLETE" or trial.value is None else float(trial.value),
        seconds=float(facts.get("seconds", 0.0)),
        progress=float(facts.get("progress", 0.0)),
        evaluations=evaluations,
    )
