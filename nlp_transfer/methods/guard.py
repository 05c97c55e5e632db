"""The guard: what a transfer gained over the same run without it, and what is kept where it did harm."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nlp_transfer.contracts import Score, Splits
from nlp_transfer.evaluation.harm import judge_gain
from nlp_transfer.evaluation.scoring import compute_metrics, is_better, score_gain
from nlp_transfer.files import copy_folder, explain_writing
from nlp_transfer.methods.chain import CONTROLS_FOLDER, Chain
from nlp_transfer.methods.control import Control
from nlp_transfer.methods.outcome import read_labels
from nlp_transfer.methods.reasons import find_reasons
from nlp_transfer.methods.seed import PREDICTIONS_FILE, SeedResult, Workspace
from nlp_transfer.recipe.schema import LOWER_IS_BETTER, METRICS, Recipe

__all__ = ["REFUSED_FOLDER", "Contender", "Verdict", "adopt_result", "clear_controls", "judge_transfer"]

REFUSED_FOLDER = "refused"
"""Where the model of a refused transfer goes, inside the run's own folder."""

Kind = Literal["transfer", "without_link", "no_transfer"]


@dataclass
class Contender:
    """One of the models that a run could keep.

    Attributes:
        kind: The transfer itself, the same run without a link of its chain, or without any transfer.
        name: Encoder that it starts from.
        probabilities: Split name to one array (N, C) a seed.
        results: Its trained seeds; empty for the control, of which nothing is saved.
        number: Which link is left out, from 1; 0 for the others.
    """

    kind: Kind
    name: str
    probabilities: dict[str, list[np.ndarray]]
    results: Sequence[SeedResult] = ()
    number: int = 0


@dataclass
class Verdict:
    """What the guard found.

    Attributes:
        record: What ``report.json`` holds under ``transfer``.
        kept: The model that the run is known by.
        others: Key to the probabilities of models that stand beside it in the report.
    """

    record: dict[str, Any]
    kept: Contender
    others: dict[str, dict[str, list[np.ndarray]]] = field(default_factory=dict)

    @property
    def has_fallen_back(self) -> bool:
        """Whether the model kept is another than the one that was asked for."""
        return self.kept.kind != "transfer"


def judge_transfer(
    recipe: Recipe, space: Workspace, results: Sequence[SeedResult], control: Control, chain: Chain
) -> Verdict:
    """Hold the transfer against the same run without it, and each link of a chain against the run without the link.

    Whether there is harm is read from test, or from validation where test has no labels. Which model is kept, if the
    guard is on and there is harm, validation alone decides.

    Args:
        recipe: The run.
        space: Its data.
        results: Its seeds.
        control: The no-transfer control.
        chain: The same run without each link; empty for an encoder that is no earlier artefact.

    Returns:
        What was found and what is kept.
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
    """Put the model and the predictions of a run without the transfer in the place of the refused one.

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
        # A run that was broken off here has moved the refused model already.
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
    """Remove the runs without a link once the report is written.

    Args:
        folder: The run's folder.
        verdict: Says what was kept; an adapter's own base stays, because the kept adapter names it.
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
    """Probabilities by split, one array a seed."""
    return {split: [result.probabilities[split] for result in results] for split in results[0].probabilities}


def _compare(
    recipe: Recipe, splits: Splits, split: str, ours: Contender, theirs: Contender, *, num_comparisons: int
) -> dict[str, Any]:
    """One gain with its interval, and what it says."""
    config, metric = recipe.evaluation, str(recipe.training.select_by)
    truth, space = read_labels(splits, split), splits.labels
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
    """Add the difference of each seed where there are several; figures of single classes keep their mean alone."""
    if len(first) < 2 or len(first) != len(second) or metric not in METRICS[splits.labels.kind]:
        return score
    sides = [
        [compute_metrics(truth, found, splits.labels, [metric])[metric] for found in side] for side in (first, second)
    ]
    each = [one - other for one, other in zip(*sides, strict=True)]
    return replace(score, spread=float(np.std(each, ddof=1)), per_seed=tuple(each))


def _choose(recipe: Recipe, splits: Splits, contenders: Sequence[Contender]) -> Contender:
    """The model that does best on validation; of equals a later one, because the first was found harmful."""
    metric, truth = str(recipe.training.select_by), read_labels(splits, "validation")

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
