"""`compare`: every way to a classifier on the same splits and seeds, within a budget of time."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from nlp_transfer.engine.precision import count_processes, keep_measured
from nlp_transfer.errors import RecipeError, TransferError
from nlp_transfer.evaluation.baselines import predict_majority
from nlp_transfer.evaluation.scoring import score_seeds
from nlp_transfer.evidence.clock import Clock, parse_budget
from nlp_transfer.evidence.compare.climb import Climb, climb_ladder, measure_steps, shorten_passes
from nlp_transfer.evidence.compare.costs import Costs
from nlp_transfer.evidence.compare.curve import choose_curve_rungs, trace_curve
from nlp_transfer.evidence.compare.data import Table, load_table
from nlp_transfer.evidence.compare.folder import claim_place, read_plan, write_plan
from nlp_transfer.evidence.compare.result import Comparison
from nlp_transfer.evidence.compare.rungs import RUNGS, Facts, Rung, choose_epochs, choose_rungs
from nlp_transfer.evidence.compare.verdict import Row, build_rows, choose_metrics, recommend
from nlp_transfer.recipe.overrides import check_sections
from nlp_transfer.recipe.schema import SELECTION_METRICS, EvaluationConfig, Recipe
from nlp_transfer.runs.ownership import MACHINE_FILE
from nlp_transfer.runs.seed import list_versions

__all__ = ["compare"]

FULL_SHARE = 0.45
"""Share of the budget that one seed of full fine-tuning may take before its passes are lowered; chosen."""

FEWEST_PASSES = 2
"""Passes that a budget leaves; with one, validation has nothing to choose from. Chosen."""

CURVE_SHARE = 0.35
"""Share of the budget kept for a learning curve; chosen."""

RESERVE_SHARE = 0.02
"""Share of the budget kept for scores, pictures and pages, beside what they are foreseen to take; chosen."""

PAGE_SECONDS = 4.0
"""Seconds for pictures and pages, libraries included; chosen."""

SCORINGS = 12
"""Times that each rung is scored until the end, in one-seed scorings of test: three seeds, twice, and in pairs."""


def compare(
    data: object,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    encoder: str = Recipe().encoder.name,
    budget: str | float | None = None,
    seeds: int = 3,
    rungs: Sequence[str] | None = None,
    curve: bool = False,
    curve_rungs: Sequence[str] | None = None,
    limit: int | None = None,
    text: str | None = None,
    text_b: str | None = None,
    label: str | list[str] | None = None,
    task: str = Recipe().task.kind,
    output_dir: str | Path | None = None,
    progress: bool = True,
    spent_seconds: float = 0.0,
) -> Comparison:
    """Compare every way to a classifier on one table: the same splits, rows and seeds, each with its own defaults.

    From the majority class over TF-IDF, features and LoRA to full fine-tuning, beside it the same architecture without
    any transfer. What is finished in the folder is read, so that a comparison that was broken off goes on, and one
    with more seeds or rungs adds to it.

    Args:
        data: A path or Hub id, a `datasets.Dataset` or `DatasetDict`, a pandas or polars frame, an Arrow table, a
            dictionary of columns, or a mapping of those by split.
        overrides: Further dotted keys of ``data`` and ``task``, as ``["data.invalid=drop"]`` or a mapping.
        encoder: Alias, folder, earlier artefact, or Hub id.
        budget: Wall time for everything, as ``"10m"``, ``"90s"``, or seconds; what does not fit is left out, and said.
        seeds: Seeds of each rung: 0, 1, ...
        rungs: Names of the rungs to run; all where absent.
        curve: Whether to trace the score over the number of rows as well.
        curve_rungs: Rungs of that curve; tfidf, features and full where absent.
        limit: First N rows of train.
        text: Column of the text; found by the usual names where absent.
        text_b: Column of the second text of a pair.
        label: Column of the label, or several of them.
        task: Kind of task.
        output_dir: Folder of the comparison; ``runs/compare-`` and the name of the data where absent.
        progress: Whether to say what is run and what it gave.
        spent_seconds: Seconds of the budget that are gone already.

    Returns:
        Table, recommendation, and where everything is.

    Raises:
        RecipeError: An argument does not fit.
        DataError: The table cannot be compared on.
        EncoderError: The encoder cannot be found.
        OutputError: The folder holds something else.
        TransferError: Nothing fitted into the budget.
    """
    clock = Clock(parse_budget(budget), spent_seconds)
    chosen = choose_rungs(list(rungs or []))
    traced = choose_curve_rungs(curve_rungs) if curve or curve_rungs else []
    if seeds < 1:
        raise RecipeError(f"seeds: expected at least 1, got {seeds}.")
    if count_processes() > 1:
        raise TransferError("compare: expected one process, got several. Start it without accelerate launch.")
    source = None if isinstance(data, str | Path) else data
    path = str(data) if source is None else f"in-memory-{type(data).__name__}"
    columns = {"data.text": text, "data.text_b": text_b, "data.label": label, "data.limit": limit}
    changes: dict[str, Any] = {"data.path": path, "encoder.name": encoder, "task.kind": task}
    changes |= {"data.max_length": Recipe().data.max_length}
    changes |= {key: value for key, value in columns.items() if value is not None}
    changes |= check_sections(overrides, ("data", "task"), where="compare")
    folder = Path(output_dir) if output_dir is not None else _name_folder(path)
    with claim_place(folder.expanduser()), keep_measured(folder.expanduser() / MACHINE_FILE):
        table = load_table(changes, source)
        console = Console(stderr=True, quiet=not progress)
        climb = _prepare(changes, table, source, folder.expanduser(), clock, console, str(changes["task.kind"]))
        _plan(climb, table, len(chosen), is_traced=bool(traced))
        kept = CURVE_SHARE * (clock.budget or 0.0) if traced else 0.0
        clock.reserve += kept
        climb_ladder(climb, chosen, seeds)
        clock.reserve -= kept
        return _conclude(climb, table, seeds, traced)


def _name_folder(path: str) -> Path:
    """A folder for a comparison that names none."""
    stem = Path(path).name.partition(".")[0] or "data"
    return Path("runs") / f"compare-{re.sub(r'[^A-Za-z0-9_-]+', '-', stem)}"


def _prepare(
    changes: dict[str, Any],
    table: Table,
    source: object | None,
    folder: Path,
    clock: Clock,
    console: Console,
    task: str,
) -> Climb:
    """Put together what the ladder needs, before anything is fitted."""
    reference = table.reference
    num_train = len(reference.labels["train"])
    facts = Facts(
        changes, reference.space, num_train, table.width, choose_epochs(num_train, reference.space.num_outputs)
    )
    num_validation, num_test = (len(reference.labels[split]) for split in ("validation", "test"))
    costs = Costs(facts, num_validation + num_test, num_validation)
    return Climb(facts, reference, source, folder, clock, costs, SELECTION_METRICS[task], console)


def _plan(climb: Climb, table: Table, num_rungs: int, *, is_traced: bool) -> None:
    """Settle passes and reserves; under a budget from a few timed steps, unless an earlier comparison settled them."""
    clock, facts = climb.clock, climb.facts
    data = climb.reference.splits.facts
    rows = ", ".join(f"{count:,} {split}" for split, count in data.rows.items())
    climb.say(f"data: {data.source}: {rows}; {len(climb.reference.space.names)} labels")
    for note in data.notes:
        climb.say(f"  note: {note}")
    for warning in data.warnings:
        climb.say(f"  warning: {warning}")
    settings = {
        "encoder": dict(table.encoder),
        "rows": table.rows,
        "data": {key: value for key, value in facts.changes.items() if key not in ("data.path", "encoder.name")},
    }
    earlier = read_plan(climb.folder, settings)
    if not earlier:
        # Timing a few steps leaves files already, and the folder must be known as this comparison's.
        write_plan(climb.folder, settings, {})
    if clock.budget is not None:
        # What runs import for their pages would else be taken for what each of them needs.
        import_module("nlp_transfer.publishing.report.page")
        scoring = _time_scoring(climb)
        points = 3 * 12 if is_traced else 0
        clock.reserve = PAGE_SECONDS + RESERVE_SHARE * clock.budget + scoring * (SCORINGS * num_rungs + points)
        climb.costs.step_seconds = measure_steps(climb)
        climb.say(f"a step of full fine-tuning takes {climb.costs.step_seconds:.3f} s here")
        share = FULL_SHARE * (1 - CURVE_SHARE) if is_traced else FULL_SHARE
        facts = shorten_passes(facts, climb.costs, clock.budget, share=share, fewest=FEWEST_PASSES)
    if "epochs" in earlier:
        facts = replace(facts, epochs=int(earlier["epochs"]))
    climb.facts = climb.costs.facts = facts
    write_plan(climb.folder, settings, {"epochs": facts.epochs})


def _time_scoring(climb: Climb) -> float:
    """Score the majority class on test, and say how many seconds that took."""
    truth, space = climb.reference.labels, climb.reference.space
    found = predict_majority(truth["train"], len(truth["test"]), space)
    settings = EvaluationConfig()
    metrics = choose_metrics(climb.select_by, space)
    started = 0.0
    # The first scoring imports what all of them need.
    for _ in range(2):
        started = time.monotonic()
        score_seeds(
            [found], truth["test"], space, metrics, resamples=settings.resamples, confidence=settings.confidence
        )
    return time.monotonic() - started


def _conclude(climb: Climb, table: Table, seeds: int, traced: Sequence[Rung]) -> Comparison:
    """Judge, trace the curve, and write everything down."""
    ordered = {name: climb.trials[name] for name in RUNGS if name in climb.trials}
    if not ordered:
        reasons = "; ".join(f"{each.rung}: {each.why}" for each in climb.omissions)
        raise TransferError(f"compare: nothing could be run ({reasons}). Give a larger budget, or other rungs.")
    settings = EvaluationConfig()
    rows = build_rows(ordered, climb.reference, climb.select_by, settings)
    sentence = recommend(rows, ordered, climb.reference, climb.select_by, settings)
    metrics = choose_metrics(climb.select_by, climb.reference.space)
    curve = trace_curve(climb, traced, seeds, settings, metrics) if traced else None
    record = _make_record(climb, table, rows, metrics, seeds)
    comparison = Comparison(record | {"recommendation": sentence, "curve": curve}, climb.folder)
    comparison.save()
    return comparison


def _make_record(climb: Climb, table: Table, rows: Sequence[Row], metrics: Sequence[str], seeds: int) -> dict[str, Any]:
    """What ``compare.json`` holds."""
    facts, space = climb.reference.splits.facts, climb.reference.space
    passes = climb.facts.epochs
    shortened = passes < choose_epochs(climb.facts.num_train, space.num_outputs)
    return {
        "version": version("nlp_transfer"),
        "encoder": dict(table.encoder),
        "data": {
            "source": facts.source,
            "rows": facts.rows,
            "labels": list(space.names),
            "kind": space.kind,
            "label_counts": facts.label_counts,
            "leaked": facts.leaked,
            "notes": facts.notes,
            "warnings": facts.warnings,
        },
        "select_by": climb.select_by,
        "metrics": list(metrics),
        "seeds": list(range(seeds)),
        "budget_seconds": climb.clock.budget,
        "elapsed_seconds": climb.clock.elapsed,
        "epochs": passes,
        "effort": (
            "The same rows and seeds for all. Nothing was tuned for any rung: each has the settings of its shipped "
            f"recipe, and passes by the size of the table, {passes} for full fine-tuning"
            f"{', fewer than without a budget' if shortened else ''}; twice as many for the control."
        ),
        "rows": [row.to_json() | {"is_seeded": RUNGS[row.rung].is_seeded} for row in rows],
        "recommended": next(row.rung for row in rows if row.is_recommended),
        "left_out": [asdict(each) | {"is_partial": each.rung in climb.trials} for each in climb.omissions],
        "costs": climb.costs.describe(),
        "environment": list_versions(),
    }
