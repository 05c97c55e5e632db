"""One run, from a recipe to a report: the only place that connects the levels."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import broadcast_object_list
from rich.console import Console

from nlp_transfer.contracts import Splits
from nlp_transfer.data.encode import encode_splits
from nlp_transfer.data.load import load_splits
from nlp_transfer.engine.precision import choose_device, count_processes, keep_measured
from nlp_transfer.errors import TransferError
from nlp_transfer.fitting.stages import HookMaker
from nlp_transfer.models.encoder import open_encoder
from nlp_transfer.publishing.artifact import write_atomically
from nlp_transfer.publishing.card import render_card
from nlp_transfer.publishing.report.result import Report
from nlp_transfer.recipe.load import list_dropped, load_recipe
from nlp_transfer.recipe.schema import DataConfig, Recipe
from nlp_transfer.runs.guard import adopt_result, guard_run
from nlp_transfer.runs.ownership import MACHINE_FILE, RunFolder, claim_folder
from nlp_transfer.runs.record import build_record, check_selection, keep_best_seed, score_run
from nlp_transfer.runs.seed import (
    SeedResult,
    Workspace,
    check_machine,
    choose_length,
    clear_progress,
    count_reserved,
    train_seed,
)
from nlp_transfer.runs.transfer import measure_transfer
from nlp_transfer.runs.trust import check_trust, describe_trust
from nlp_transfer.stopping import hold_signals

__all__ = ["override_recipe", "prepare", "run"]


def run(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    data: object | None = None,
    output_dir: str | Path | None = None,
    progress: bool = True,
    console: Console | None = None,
    watch: HookMaker | None = None,
) -> Report:
    """Run a recipe: load, train, score the saved weights, and write everything down.

    Args:
        recipe: Shipped name (``sentiment/lora``), file, mapping, or a loaded recipe.
        overrides: ``["training.epochs=2"]`` or ``{"training.epochs": 2}``.
        data: In place of ``data.path``: a path or Hub id, a `datasets.Dataset` or `DatasetDict`, a pandas or polars
            frame, an Arrow table, a dictionary of columns, a list of dictionaries, or a mapping of split names to
            such tables.
        output_dir: In place of ``report.output_dir``.
        progress: Whether to show the loaded data and the progress of training.
        console: Where progress is shown; by default stderr, or the notebook's cell.
        watch: Called with the number of steps and a name, returns further hooks for each training and for each pass
            over the data without training; an exception in a hook ends the run and is raised from here.

    Returns:
        The report: scores with intervals, predictions, and the path of the artefact.

    Raises:
        RecipeError: The recipe does not fit the schema.
        DataError: The table cannot be used as it stands.
        EncoderError: The encoder cannot be loaded.
        OutputError: The output folder belongs to something else.
        StorageError: The disk is full or failing.
    """
    console = console or Console(stderr=True, quiet=not progress)
    loaded, dropped = override_recipe(recipe, overrides, data, output_dir)
    source = None if data is None or isinstance(data, str | Path) else data
    check_machine(loaded)
    if count_processes() == 1:
        # Accelerate keeps device and number format for the whole process; this run may need others.
        AcceleratorState._reset_state(reset_partial_state=True)
        # A loop that was interrupted during gradient accumulation would leave updates switched off.
        GradientState._reset_state()
    # Accelerate needs to know that the device is the CPU, or processes without a GPU do not find each other.
    state = PartialState(cpu=choose_device(loaded.training.device) == "cpu")
    with _claim(loaded, state) as folder, keep_measured(folder.path / MACHINE_FILE):
        talk = console if state.is_main_process else Console(quiet=True)
        for note in dropped:
            talk.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
        if folder.said:
            talk.print(folder.said, markup=False, soft_wrap=True)
        return _run_in(folder, source, state, talk, watch)


def override_recipe(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Sequence[str] | Mapping[str, Any],
    data: object | None,
    output_dir: str | Path | None,
) -> tuple[Recipe, list[str]]:
    """Load a recipe with its overrides and arguments, all at once; also list the settings that these drop.

    Args:
        recipe: As for ``run``.
        overrides: As for ``run``.
        data: As for ``run``.
        output_dir: As for ``run``.

    Returns:
        The recipe, and one sentence for each override that removed other settings.

    Raises:
        RecipeError: The recipe does not fit the schema.
    """
    extra: dict[str, str] = {}
    if isinstance(data, str | Path):
        extra["data.path"] = str(data)
    elif data is not None:
        extra["data.path"] = f"in-memory-{type(data).__name__}"
    if output_dir is not None:
        extra["report.output_dir"] = str(output_dir)
    if data is not None and not _names_data(recipe):
        # A recipe without data.path names the columns of the data given here, so these names must stay.
        place = extra.pop("data.path")
        loaded = load_recipe(recipe)
        recipe = loaded.model_copy(update={"data": loaded.data.model_copy(update={"path": place})})
    texts = [overrides] if isinstance(overrides, str) else list(overrides)
    added = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in extra.items()]
    changes = {**overrides, **extra} if isinstance(overrides, Mapping) else [*texts, *added]
    return load_recipe(recipe, changes), list_dropped(recipe, changes)


def _names_data(recipe: str | Path | Mapping[str, Any] | Recipe) -> bool:
    """Whether a recipe itself names its data."""
    if isinstance(recipe, Recipe):
        return "path" in recipe.data.model_fields_set
    if isinstance(recipe, Mapping):
        section = recipe.get("data")
        return "path" in section if isinstance(section, Mapping) else isinstance(section, DataConfig)
    return True


@contextmanager
def _claim(recipe: Recipe, state: PartialState) -> Iterator[RunFolder]:
    """Claim the run's folder on the main process, and send the folder or the error to the other processes."""
    if state.num_processes == 1:
        with claim_folder(recipe) as folder:
            yield folder
        return
    message: list[Any] = [None]
    if not state.is_main_process:
        broadcast_object_list(message)
        if isinstance(message[0], TransferError):
            raise message[0]
        yield message[0]
        return
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(claim_folder(recipe))
        except TransferError as error:
            broadcast_object_list([error])
            raise
        broadcast_object_list([folder])
        yield folder


def _run_in(
    folder: RunFolder, source: object | None, state: PartialState, console: Console, watch: HookMaker | None
) -> Report:
    """Run in a folder that this process owns."""
    recipe = folder.recipe
    seeds = recipe.training.seeds or [recipe.training.seed]
    with state.main_process_first():
        spaces = prepare(recipe, seeds, source, console)
    first = spaces[seeds[0]]
    first.splits.facts.transfer = measure_transfer(recipe, first)
    for space in spaces.values():
        space.watch = watch
    results: list[SeedResult] = []
    for seed in seeds:
        place = folder.path if len(seeds) == 1 else folder.path / f"seed-{seed}"
        results.append(train_seed(recipe, seed, spaces[seed], place, console))
    space, tables = spaces[seeds[0]], [spaces[seed].splits for seed in seeds]
    guarded = guard_run(recipe, seeds, spaces, results, folder.path, state, console)
    if not state.is_main_process:
        state.wait_for_everyone()
        return Report.load(folder.path)
    kept = guarded.results
    best = keep_best_seed(recipe, kept, space.splits, folder.path)
    if guarded.has_fallen_back and len(seeds) == 1:
        adopt_result(best, folder.path)
    scored = score_run(recipe, kept, tables, guarded.control, guarded.others)
    record = build_record(
        recipe, seeds, kept, best, space.splits, scored, encoder=guarded.origin, max_length=space.max_length
    )
    if guarded.record:
        record["transfer"] = guarded.record
    record |= describe_trust(recipe, best, spaces[best.seed].splits)
    labels, model = space.splits.labels, folder.path / "model"
    card = render_card(record, format=best.loader, kind=labels.kind, labels=labels.names, path=model.as_posix())
    write_atomically(model / "README.md", card)
    report = Report(record, folder.path)
    # Once the report is saved, the run is finished and the same command would start a new one.
    with hold_signals(is_last=True):
        report.save()
        clear_progress([*results, *kept])
        guarded.clear()
        (folder.path / MACHINE_FILE).unlink(missing_ok=True)
        state.wait_for_everyone()
    return report


def prepare(recipe: Recipe, seeds: Sequence[int], source: object | None, console: Console) -> dict[int, Workspace]:
    """Load and tokenize the data once, or once per seed if the seed draws the rows.

    Args:
        recipe: Encoder, data and strategy.
        seeds: Training seeds.
        source: Data in memory, in place of ``data.path``; None to load ``data.path``.
        console: Where the summary of the data is printed.

    Returns:
        Seed to the workspace of its fits.

    Raises:
        DataError: The table cannot be used as it stands.
        EncoderError: The encoder cannot be found.
        RecipeError: The encoder has no room for a text.
    """
    opened = open_encoder(recipe.encoder)
    origin, tokenizer = opened.source, opened.tokenizer
    reserved, max_length = count_reserved(recipe), choose_length(recipe, opened, recipe.data.max_length)
    spaces: dict[int, Workspace] = {}
    for seed in seeds:
        if spaces and recipe.data.shots is None:
            spaces[seed] = next(iter(spaces.values()))
            continue
        splits: Splits = load_splits(recipe.data, recipe.task, seed=seed, source=source)
        data = recipe.data.model_copy(update={"max_length": max_length})
        prepared = encode_splits(splits, tokenizer, data)
        splits.facts.notes += opened.notes
        if max_length < recipe.data.max_length:
            beside = f" beside {reserved} prompts" if reserved else ""
            splits.facts.notes.append(
                f"data.max_length: the encoder reads at most {max_length} tokens{beside}; used {max_length}."
            )
        if recipe.data.shots is not None and len(seeds) > 1:
            splits.facts.notes.append("data.shots: every seed draws its own train rows, also for its baselines.")
        check_selection(recipe, splits)
        check_trust(recipe, splits)
        _announce(splits, console)
        spaces[seed] = Workspace(splits, prepared, tokenizer, origin, max_length, console)
    return spaces


def _announce(splits: Splits, console: Console) -> None:
    """Print what was loaded, with notes and warnings."""
    facts = splits.facts
    rows = ", ".join(f"{count:,} {name}" for name, count in facts.rows.items())
    labels = ", ".join(splits.labels.names[:8]) + (", ..." if len(splits.labels.names) > 8 else "")
    console.print(f"data: {facts.source}: {rows}; labels: {labels}", highlight=False, markup=False, soft_wrap=True)
    for note in facts.notes:
        console.print(f"  note: {note}", highlight=False, markup=False, soft_wrap=True)
    for warning in facts.warnings:
        console.print(f"  warning: {warning}", style="yellow", highlight=False, markup=False, soft_wrap=True)
