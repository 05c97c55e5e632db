"""The guard: compares a transfer with the same run without it, and keeps the better model if it did harm."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from accelerate import PartialState
from rich.console import Console

from nlp_transfer.contracts import Score, Splits
from nlp_transfer.evaluation.scoring import compute_metrics, is_better, score_gain
from nlp_transfer.evaluation.significance import judge_gain
from nlp_transfer.files import copy_folder, explain_writing
from nlp_transfer.recipe.schema import LOWER_IS_BETTER, METRICS, Recipe
from nlp_transfer.runs.chain import CONTROLS_FOLDER, Chain, train_chain
from nlp_transfer.runs.control import Control, make_control_recipe, train_control
from nlp_transfer.runs.reasons import find_reasons
from nlp_transfer.runs.seed import PREDICTIONS_FILE, SeedResult, Workspace, make_accelerator, train_seed

__all__ = [
    "REFUSED_FOLDER",
    "Contender",
    "Guarded",
    "Verdict",
    "adopt_result",
    "clear_controls",
    "guard_run",
    "judge_transfer",
]

REFUSED_FOLDER = "refused"
"""Subfolder of the run's folder for the model of a refused transfer."""

Kind = Literal["transfer", "without_link", "no_transfer"]


@dataclass
class Contender:
    """One of the models that a run could keep.

    Attributes:
        kind: The transfer itself, the same run without a link of its chain, or without any transfer.
        name: Encoder that the model starts from.
        probabilities: Split name to arrays (N, C), one per seed.
        results: Its trained seeds; empty for the control, whose models are not saved.
        number: Number of the link that is left out, from 1; 0 for the other kinds.
    """

    kind: Kind
    name: str
    probabilities: dict[str, list[np.ndarray]]
    results: Sequence[SeedResult] = ()
    number: int = 0


@dataclass
class Verdict:
    """The guard's decision.

    Attributes:
        record: Content of ``transfer`` in ``report.json``.
        kept: The model that the run keeps.
        others: Key to the probabilities of the further models in the report.
    """

    record: dict[str, Any]
    kept: Contender
    others: dict[str, dict[str, list[np.ndarray]]] = field(default_factory=dict)

    @property
    def has_fallen_back(self) -> bool:
        """Whether the model that is kept is not that of the transfer."""
        return self.kept.kind != "transfer"


def judge_transfer(
    recipe: Recipe, space: Workspace, results: Sequence[SeedResult], control: Control, chain: Chain
) -> Verdict:
    """Compare the transfer with the same run without it, and each link of a chain with the run without the link.

    Harm is measured on test, or on validation if test has no labels. If the guard is on and there is harm, validation
    alone decides which model is kept.

    Args:
        recipe: The run.
        space: Its data.
        results: Its seeds.
        control: The no-transfer control.
        chain: The same run without each link; empty if the encoder is not an earlier artefact.

    Returns:
        The comparisons and the model that is kept.
    """
    ours = Contender("transfer", recipe.encoder.name, _gather(results), results)
    line = [ours]
    for number, (link, found) in enumerate(zip(chain.links, chain.results, strict=True), 1):
        line.append(Contender("without_link", link.without.name, _gather(found), found, number))
    bare = Contender("no_transfer", "random weights", control.probabilities)
    pairs = [*pairwise(line), (ours, bare)]
    split = "test" if space.splits.is_labelled("test") else "validation"
    comparisons = [_compare(recipe, space.splits, split, *pair, num_comparisons=len(pairs)) for pair in pairs]
    harmful = [number for number, found in enumerate(comparisons) if found["verdict"] == "harm"]
    record: dict[str, Any] = {
        "metric": str(recipe.training.select_by),
        "split": split,
        "comparisons": comparisons,
        "is_harmful": bool(harmful),
        "reasons": [],
        "notes": chain.notes,
        "guard": recipe.evaluation.guard,
        "kept": "transfer",
    }
    others = {} if len(line) == 1 else {"without_link": line[1].probabilities}
    if not harmful:
        return Verdict(record, ours, others)
    links = [chain.links[number] for number in harmful if number < len(chain.links)]
    record["reasons"] = find_reasons(recipe, space, results, links, beside_control=len(pairs) - 1 in harmful)
    if not recipe.evaluation.guard:
        return Verdict(record, ours, others)
    kept = _choose(recipe, space.splits, [*line, bare])
    record["kept"], record["kept_encoder"] = kept.kind, kept.name
    if kept is ours:
        return Verdict(record, ours, others)
    record["refused"] = recipe.encoder.name
    return Verdict(record, kept, {"refused": ours.probabilities})


def adopt_result(result: SeedResult, folder: Path) -> SeedResult:
    """Replace the refused transfer's model and predictions by those of a run without the transfer.

    Args:
        result: The seed that is kept.
        folder: The run's folder; the refused model of a single seed moves to ``refused/``.

    Returns:
        The same seed.

    Raises:
        StorageError: The disk is full or failing; the refused model is still there.
    """
    refused, stage = folder / REFUSED_FOLDER, folder / ".model.writing"
    try:
        shutil.rmtree(stage, ignore_errors=True)
        copy_folder(result.folder / "model", stage)
        # A run that was interrupted here has already moved the refused model.
        if not (refused / "model").exists():
            refused.mkdir(exist_ok=True)
            shutil.copyfile(folder / PREDICTIONS_FILE, refused / PREDICTIONS_FILE)
            (folder / "model").rename(refused / "model")
        shutil.rmtree(folder / "model", ignore_errors=True)
        stage.rename(folder / "model")
        shutil.copyfile(result.folder / PREDICTIONS_FILE, folder / PREDICTIONS_FILE)
    except OSError as error:
        what = "the model without the transfer could not be put in place"
        raise explain_writing(folder, error, what=what) from error
    return result


def clear_controls(folder: Path, verdict: Verdict) -> None:
    """Remove the runs without a link after the report is written.

    Args:
        folder: The run's folder.
        verdict: Says which model is kept; the base model of a kept adapter stays, because the adapter refers to it.
    """
    kept = {result.folder for result in verdict.kept.results} if verdict.has_fallen_back else set()
    controls = folder / CONTROLS_FOLDER
    for place in controls.glob("*/seed-*"):
        for entry in place.iterdir():
            if place in kept and entry.name == "base":
                continue
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
    for place in [*controls.glob("*/seed-*"), *controls.glob("*"), controls]:
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()


def _gather(results: Sequence[SeedResult]) -> dict[str, list[np.ndarray]]:
    """Probabilities by split, one array per seed."""
    return {split: [result.probabilities[split] for result in results] for split in results[0].probabilities}


def _compare(
    recipe: Recipe, splits: Splits, split: str, ours: Contender, theirs: Contender, *, num_comparisons: int
) -> dict[str, Any]:
    """One gain with its interval and verdict."""
    config, metric = recipe.evaluation, str(recipe.training.select_by)
    truth, space = splits.read_labels(split), splits.labels
    metrics = list(dict.fromkeys([metric, *(config.metrics or [])]))
    first, second = ours.probabilities[split], theirs.probabilities[split]
    found = score_gain(first, second, truth, space, metrics, resamples=config.resamples, confidence=config.confidence)
    gains = {name: _add_seeds(score, name, first, second, truth, splits) for name, score in found.items()}
    record: dict[str, Any] = {
        "kind": "control" if theirs.kind == "no_transfer" else "link",
        "with": ours.name,
        "without": theirs.name,
        "gain": {name: score.to_json() for name, score in gains.items()},
        "verdict": "unclear",
        "bound": None,
    }
    if metric in gains:
        judged = judge_gain(
            gains[metric],
            confidence=config.confidence,
            num_comparisons=num_comparisons,
            lower_is_better=metric in LOWER_IS_BETTER,
        )
        record |= {"verdict": judged.verdict, "bound": judged.bound}
    return record


def _add_seeds(
    score: Score, metric: str, first: list[np.ndarray], second: list[np.ndarray], truth: np.ndarray, splits: Splits
) -> Score:
    """Add the difference of each seed if there are several; figures of single classes keep only their mean."""
    if len(first) < 2 or len(first) != len(second) or metric not in METRICS[splits.labels.kind]:
        return score
    sides = [
        [compute_metrics(truth, found, splits.labels, [metric])[metric] for found in side] for side in (first, second)
    ]
    each = [one - other for one, other in zip(*sides, strict=True)]
    return replace(score, spread=float(np.std(each, ddof=1)), per_seed=tuple(each))


def _choose(recipe: Recipe, splits: Splits, contenders: Sequence[Contender]) -> Contender:
    """The best model on validation; a tie with the first goes to a later one, because the first was found harmful."""
    metric, truth = str(recipe.training.select_by), splits.read_labels("validation")

    def measure(contender: Contender) -> float:
        found = [
            compute_metrics(truth, each, splits.labels, [metric])[metric]
            for each in contender.probabilities["validation"]
        ]
        return float(np.mean(found))

    best = contenders[0]
    for contender in contenders[1:]:
        is_tied = best is contenders[0] and measure(contender) == measure(best)
        if is_tied or is_better(metric, measure(contender), measure(best)):
            best = contender
    return best


@dataclass
class Guarded:
    """The models that a run keeps and reports after the guard's decision.

    Attributes:
        results: The seeds that are kept: those of the transfer, or of the better run without it.
        origin: Name, Hub id and revision of the encoder that the kept seeds started from.
        control: The no-transfer control for the report, if it was trained and is not itself kept.
        others: Further models for the report, by key.
        record: Content of ``transfer`` in ``report.json``; empty without a control.
        has_fallen_back: Whether the transfer was refused.
        clear: Removes files that are no longer needed; to be called after the report is written.
    """

    results: Sequence[SeedResult]
    origin: dict[str, Any]
    control: Control | None = None
    others: dict[str, dict[str, list[np.ndarray]]] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    has_fallen_back: bool = False
    clear: Callable[[], None] = lambda: None


def guard_run(
    recipe: Recipe,
    seeds: Sequence[int],
    spaces: Mapping[int, Workspace],
    results: Sequence[SeedResult],
    folder: Path,
    state: PartialState,
    console: Console,
) -> Guarded:
    """Train the controls that the recipe asks for, and decide which model the run keeps.

    Every process calls this function and comes to the same decision.

    Args:
        recipe: The run.
        seeds: Training seeds.
        spaces: Data and tokenizer of each seed.
        results: The trained seeds.
        folder: The run's folder.
        state: Identifies this process.
        console: Where progress and harm are shown.

    Returns:
        The kept models, and further models for the report.

    Raises:
        DivergedError: The control diverged at every learning rate.
        StorageError: The disk is full or failing.
    """
    space = spaces[seeds[0]]
    source = space.source
    origin = {"name": source.name, "hub_id": source.hub_id, "revision": source.revision}
    if not recipe.evaluation.control:
        return Guarded(results, origin)
    chain = train_chain(recipe, seeds, spaces, folder, console, one_first=state.main_process_first)
    tables = {seed: (spaces[seed].splits, spaces[seed].prepared) for seed in seeds}
    control = train_control(recipe, seeds, tables, lambda: make_accelerator(recipe), make_hooks=space.make_hooks)
    verdict = judge_transfer(recipe, space, results, control, chain)
    _tell(verdict, console)

    def clear() -> None:
        clear_controls(folder, verdict)

    guarded = Guarded(results, origin, control, verdict.others, verdict.record, verdict.has_fallen_back, clear)
    if verdict.kept.kind == "without_link":
        guarded.results = verdict.kept.results
        other = chain.sources[verdict.kept.number - 1]
        guarded.origin = {"name": other.name, "hub_id": other.hub_id, "revision": other.revision}
    elif verdict.kept.kind == "no_transfer":
        guarded.results = verdict.kept.results = _train_kept_control(recipe, control, seeds, spaces, folder, console)
        guarded.origin = {"name": f"{source.name}, random weights", "hub_id": None, "revision": None}
        guarded.control = None
    return guarded


def _train_kept_control(
    recipe: Recipe,
    control: Control,
    seeds: Sequence[int],
    spaces: Mapping[int, Workspace],
    folder: Path,
    console: Console,
) -> list[SeedResult]:
    """Train the control again as a separate run, because the first training did not save its weights."""
    place = folder / CONTROLS_FOLDER / "no-transfer"
    return [
        train_seed(
            make_control_recipe(recipe, learning_rate=control.learning_rate, seed=seed),
            seed,
            spaces[seed],
            place / f"seed-{seed}",
            console,
        )
        for seed in seeds
    ]


def _tell(verdict: Verdict, console: Console) -> None:
    """Print the notes and the harm before the report is written, because they may change what the user does next."""
    for note in verdict.record["notes"]:
        console.print(f"  note: {note}", highlight=False, markup=False, soft_wrap=True)
    if verdict.record["is_harmful"]:
        console.print("  warning: this transfer did harm", style="bold red", highlight=False, markup=False)
