"""Search the settings of a recipe on validation, and say on test what that was worth."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from nlp_transfer.engine.precision import count_processes, keep_measured
from nlp_transfer.errors import DataError, OutputError, TransferError
from nlp_transfer.evaluation.scoring import score_gain, score_seeds
from nlp_transfer.evidence.clock import parse_seconds
from nlp_transfer.evidence.tune.result import BEST_YAML, Tuning
from nlp_transfer.evidence.tune.runner import Runner, change_recipe, name_predictions, open_book, write_predictions
from nlp_transfer.evidence.tune.spaces import build_space
from nlp_transfer.evidence.tune.study import Tried
from nlp_transfer.evidence.tune.worker import run_workers
from nlp_transfer.publishing.artifact import write_atomically
from nlp_transfer.recipe.load import recipe_to_yaml
from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.runs.ownership import MACHINE_FILE, claim_folder
from nlp_transfer.runs.pipeline import override_recipe, prepare
from nlp_transfer.runs.seed import Workspace, check_machine

__all__ = ["tune"]

DEFAULT_TRIALS = 20
"""Trials where neither a number nor a time is given; chosen."""
FINISH_SECONDS, FINISH_SHARE = 10.0, 0.03
"""Time kept for the last predictions, scores and pictures: the larger of the two, but a tenth of the budget at most.
Chosen."""


def tune(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    data: object | None = None,
    trials: int | None = None,
    budget: str | float | None = None,
    jobs: int = 1,
    output_dir: str | Path | None = None,
    seed: int = 0,
    confirm: int = 0,
    progress: bool = True,
    console: Console | None = None,
) -> Tuning:
    """Search the settings of a recipe: rates, lengths, regularization, the strategy's own and those of its methods.

    The first trial is the recipe as it stands, the next ones move its rates, and a model of what did well chooses
    from there on. A trial that does worse than the median at the same share of its training is given up, unless a
    method trains several models in turn. Validation alone chooses; test is scored once, for the recipe and for the
    best. A search that was broken off goes on when it is started again with the same arguments, and more trials or
    time continue one that has ended.

    Args:
        recipe: Shipped name, file, mapping, or a loaded recipe.
        overrides: ``["training.epochs=2"]`` or ``{"training.epochs": 2}``.
        data: In place of ``data.path``, as for ``run``.
        trials: How many in all; 20 where there is no budget either, else as many as there is time for.
        budget: Seconds, or a text such as ``15m``, for everything, earlier starts of the same search included.
        jobs: Processes that run trials at once; the order of trials, and so their choice, is fixed for one only.
        output_dir: Folder of the search; the recipe's ``report.output_dir`` with ``-tuned`` where absent.
        seed: Of the search; the training seed is the recipe's.
        confirm: Further training seeds with which the recipe and the best are trained again, so that the difference on
            test owes nothing to the seed that chose.
        progress: Whether to show how it goes.
        console: Where that is shown; stderr, or the notebook's cell, where absent.

    Returns:
        The search; ``best.yaml``, ``tuning.json`` and ``report.html`` are in its folder.

    Raises:
        RecipeError: The recipe does not fit the schema, or leaves nothing to search.
        DataError: The table cannot be used, or has no validation labels.
        MissingExtraError: Optuna is not installed.
        OutputError: The folder holds something else.
        TransferError: An argument is out of range, or no trial ended.

    Source:
        Bergstra et al. 2011 (TPE, as Optuna has it, Akiba et al. 2019); Golovin et al. 2017 (median stopping).
    """
    started = time.time()
    console = console or Console(stderr=True, quiet=not progress)
    loaded, dropped = override_recipe(recipe, overrides, data, None)
    source = None if data is None or isinstance(data, str | Path) else data
    seconds = None if budget is None else parse_seconds(budget)
    _check_arguments(trials=trials, jobs=jobs, seed=seed, confirm=confirm, source=source)
    check_machine(loaded)
    build_space(loaded)  # A recipe without anything to search is told before data is loaded.
    for note in dropped:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    place = Path(output_dir or f"{loaded.report.output_dir}-tuned")
    with _claim(loaded, place) as folder, keep_measured(folder / MACHINE_FILE):
        first = (loaded.training.seeds or [loaded.training.seed])[0]
        spaces = prepare(loaded, [first, *range(first + 1, first + 1 + confirm)], source, console)
        _check_validation(spaces[first])
        book = open_book(loaded, folder, seed, spaces[first])
        runner = Runner(loaded, spaces, book, console, num_after=2 * confirm, source=source, started=started)
        runner.num_trials = DEFAULT_TRIALS if trials is None and seconds is None else trials
        if seconds is not None:
            kept = min(max(FINISH_SECONDS, FINISH_SHARE * seconds), seconds / 10)
            runner.deadline = started + seconds - book.sum_seconds() - kept
        if book.release_lost():
            console.print("an interrupted search was found here and goes on.", highlight=False, soft_wrap=True)
        if jobs > 1:
            run_workers(runner, jobs, seed)
        else:
            runner.run_all()
        return _finish(runner, confirm)


def _check_arguments(*, trials: int | None, jobs: int, seed: int, confirm: int, source: object | None) -> None:
    """Refuse what no search can do."""
    for name, value, least in (("trials", trials, 1), ("jobs", jobs, 1), ("seed", seed, 0), ("confirm", confirm, 0)):
        if value is not None and value < least:
            raise TransferError(f"--{name}: expected at least {least}, got {value}.")
    if jobs > 1 and source is not None:
        raise TransferError("jobs: several processes cannot share data in memory. Name a file, or use jobs=1.")
    if count_processes() > 1:
        raise TransferError("tune: expected one process, got several of accelerate launch. Use --jobs instead.")


def _check_validation(space: Workspace) -> None:
    """Refuse data on which nothing can be chosen."""
    found = space.prepared.splits.get("validation")
    if found is None or found.labels is None:
        raise DataError(
            "validation: a search chooses by its labels, and it has none. Give a labelled validation split."
        )


@contextmanager
def _claim(recipe: Recipe, folder: Path) -> Iterator[Path]:
    """Claim the folder of a search as a run claims its own; messages name this command's option."""
    placed = recipe.model_copy(update={"report": recipe.report.model_copy(update={"output_dir": str(folder)})})
    try:
        with claim_folder(placed) as claimed:
            yield claimed.path
    except OutputError as error:
        message = str(error).replace("report.output_dir=", "--out ").replace("report.output_dir", "--out")
        raise OutputError(message) from error


def _finish(runner: Runner, confirm: int) -> Tuning:
    """Score test, write everything down."""
    book, recipe, notes = runner.book, runner.recipe, list[str]()
    best, trials = book.find_best(), book.read()
    if best is None:
        states = ", ".join(f"{each.index} {each.state}" for each in trials) or "none was started"
        has_diverged = any(each.state == "diverged" for each in trials)
        other = "lower training.learning_rate" if has_diverged else "give fewer training.epochs or a data.limit"
        raise TransferError(
            f"tune: no trial ended ({states}). Give more --budget, and the same command goes on; or {other}, with "
            "another --out."
        )
    best_recipe = recipe if best.index == 0 else change_recipe(recipe, best.changes)
    place = book.folder / "best"
    best_recipe = best_recipe.model_copy(
        update={"report": best_recipe.report.model_copy(update={"output_dir": place.as_posix()})}
    )
    left_out = [each for each in trials if each.state in ("skipped", "interrupted")]
    if left_out:
        notes.append(f"Left out for want of time: {len(left_out)} trials.")
    rivals = {"default": (trials[0], recipe), "best": (best, best_recipe)}
    record: dict[str, Any] = {
        "version": version("nlp_transfer"),
        "recipe": recipe.model_dump(mode="json"),
        "seed": book.seed,
        "space": [each.to_json() for each in book.space],
        "trials": [_to_json(each) for each in trials],
        "best": best.index,
        "importance": book.measure_importance(),
        "test": _score_test(runner, rivals, [None]),
        "confirmed": {},
        "notes": notes,
    }
    if confirm and best.index and trials[0].state == "complete":
        seeds = _confirm(runner, rivals, confirm, notes)
        record["confirmed"] = {"seeds": seeds, **_score_test(runner, rivals, seeds)} if seeds else {}
    book.note_seconds(runner.started)
    record["seconds"] = book.sum_seconds()
    write_atomically(book.folder / BEST_YAML, recipe_to_yaml(best_recipe))
    tuning = Tuning(record, book.folder)
    tuning.save()
    return tuning


def _confirm(
    runner: Runner, rivals: Mapping[str, tuple[Tried, Recipe]], confirm: int, notes: list[str]
) -> list[int | None]:
    """Train the recipe and the best with further seeds, as far as there is time; give the seeds."""
    done: list[int | None] = []
    longest = sum(tried.seconds for tried, _ in rivals.values())
    for seed in range(runner.seed + 1, runner.seed + 1 + confirm):
        paths = {name: name_predictions(runner.book.folder, tried.index, seed) for name, (tried, _) in rivals.items()}
        missing = [name for name, path in paths.items() if not path.is_file()]
        if missing and time.time() + longest > runner.deadline:
            notes.append(f"Confirmed with {len(done)} of {confirm} seeds: the time was up.")
            break
        for name in missing:
            runner.console.print(f"{name}, seed {seed}", highlight=False, soft_wrap=True)
            write_predictions(paths[name], runner.fit(rivals[name][1], seed))
        done.append(seed)
    return done


def _score_test(
    runner: Runner, rivals: Mapping[str, tuple[Tried, Recipe]], seeds: Sequence[int | None]
) -> dict[str, Any]:
    """Score test for the recipe and the best, and their paired difference; empty where test has no labels."""
    prepared, config = runner.spaces[runner.seed].prepared, runner.recipe.evaluation
    labels = prepared.splits["test"].labels if "test" in prepared.splits else None
    if labels is None:
        return {}
    metrics = list(dict.fromkeys([runner.metric, *(config.metrics or [])]))
    settings: dict[str, Any] = {"resamples": config.resamples, "confidence": config.confidence}
    found: dict[str, list[np.ndarray]] = {}
    for name, (tried, recipe) in rivals.items():
        if tried.state == "complete":
            found[name] = [_read_test(runner, tried, recipe, seed) for seed in seeds]
    scores: dict[str, Any] = {
        name: score_seeds(each, labels, prepared.labels, metrics, **settings) for name, each in found.items()
    }
    if len(found) == 2 and rivals["best"][0].index:
        scores["difference"] = score_gain(found["best"], found["default"], labels, prepared.labels, metrics, **settings)
    return {name: {key: score.to_json() for key, score in each.items()} for name, each in scores.items()}


def _read_test(runner: Runner, tried: Tried, recipe: Recipe, seed: int | None) -> np.ndarray:
    """What a trial predicts on test; fitted again where its file is gone."""
    path = name_predictions(runner.book.folder, tried.index, seed)
    if not path.is_file():
        write_predictions(path, runner.fit(recipe, runner.seed if seed is None else seed))
    with np.load(path, allow_pickle=False) as stored:
        return np.asarray(stored["test"])


def _to_json(tried: Tried) -> dict[str, Any]:
    """A trial as ``tuning.json`` has it."""
    return {**vars(tried), "changes": dict(tried.changes), "evaluations": [list(each) for each in tried.evaluations]}
