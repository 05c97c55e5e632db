"""Train what a run is held against, ask the guard, and make ready what is kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from rich.console import Console

from nlp_transfer.methods.chain import CONTROLS_FOLDER, train_chain
from nlp_transfer.methods.control import Control, make_control_recipe, train_control
from nlp_transfer.methods.guard import Verdict, clear_controls, judge_transfer
from nlp_transfer.methods.seed import SeedResult, Workspace, make_accelerator, train_seed
from nlp_transfer.recipe.schema import Recipe

__all__ = ["Guarded", "guard_run"]


@dataclass
class Guarded:
    """What a run is known by, once the guard has looked.

    Attributes:
        results: The seeds that are kept: those of the transfer, or of what did better.
        origin: Name, Hub id and revision of the encoder they started from.
        control: The no-transfer control that stands beside them, if it was trained and is not what is kept.
        others: Further models that stand beside them, by key.
        record: What ``report.json`` holds under ``transfer``; empty without a control.
        has_fallen_back: Whether the transfer was refused.
        clear: Removes what is no longer needed, once the report is written.
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
    """Train the controls that the recipe asks for and decide what the run keeps.

    Every process calls it and comes to the same decision.

    Args:
        recipe: The run.
        seeds: Training seeds.
        spaces: Data and tokenizer of each seed.
        results: The trained seeds.
        folder: The run's folder.
        state: Which process this is.
        console: Where progress and harm are shown.

    Returns:
        What is kept, and what stands beside it.

    Raises:
        DivergedError: The control diverged at every rate.
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
    """Train the control again as a run of its own: only now is it known that its weights are wanted."""
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
    """Say at once what the report says later, because it may change what the reader does next."""
    for note in verdict.record["notes"]:
        console.print(f"  note: {note}", highlight=False, markup=False, soft_wrap=True)
    if verdict.record["is_harmful"]:
        console.print("  warning: this transfer did harm", style="bold red", highlight=False, markup=False)
