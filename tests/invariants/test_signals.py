"""A run that a signal or Ctrl-C ends anywhere saves a checkpoint, and goes on to the same weights, bit for bit."""

import itertools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from nlp_transfer.contracts import RunLog
from nlp_transfer.engine.predict.forward import Microbatch
from nlp_transfer.engine.train import loop
from nlp_transfer.engine.train.checkpoint import CheckpointStore
from nlp_transfer.engine.train.objectives import build_objective
from nlp_transfer.publishing.report.result import Report
from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.stopping import Stopped, watch_signals
from tests.invariants.launched import launch
from tests.invariants.run_case import SETTINGS as RUN
from tests.invariants.run_case import make_tables
from tests.training import Killed, Watcher, copy_weights, fit, make_recipe, prepare

NUM_STEPS = 15
"""Three epochs of five updates."""

SETTINGS: dict[str, Any] = {
    "encoder__dropout": 0.1,
    "training__batch_size": 8,
    "training__epochs": 3.0,
    "training__learning_rate": 1e-3,
    "training__evaluate_every": 3,
    "training__select_by": "accuracy",
    "training__early_stopping": 6,
    "training__log_every": 4,
}


class Interrupter(Watcher):
    """Does something after a step."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        self.step, self.act = step, act

    def after_step(self, log: RunLog, loss: float | None, learning_rate: float) -> None:
        if log.steps == self.step:
            self.act()


def interrupt() -> None:
    raise KeyboardInterrupt


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def score_weights(model: nn.Module) -> dict[str, float]:
    """A made-up validation figure that falls and rises, so that the best weights lie in the middle."""
    return {"accuracy": float(torch.sin(1e4 * next(model.parameters()).detach().sum()))}


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    assert left.keys() == right.keys()
    assert len(left) > 10
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def case(tiny_encoder: Callable[..., Path]) -> SimpleNamespace:
    """A recipe with its data, and what the unbroken run ends in."""
    recipe = make_recipe(tiny_encoder("bert"), **SETTINGS)
    splits, prepared = prepare(recipe, n=36)
    model, log = fit(recipe, splits, prepared, evaluate=score_weights)
    assert log.steps == NUM_STEPS
    assert 0 < log.best_step < NUM_STEPS
    return SimpleNamespace(recipe=recipe, splits=splits, prepared=prepared, weights=copy_weights(model), log=log)


def train(case: SimpleNamespace, folder: Path, *hooks: object, recipe: Recipe | None = None, **given: Any) -> Any:
    given = {"evaluate": score_weights, **given}
    return fit(recipe or case.recipe, case.splits, case.prepared, folder=folder, hooks=hooks, **given)


def check_resumed(case: SimpleNamespace, folder: Path, resumed_at: list[int]) -> None:
    """Go on, and hold the end against the unbroken run's."""
    torch.rand(7)  # whoever starts again has drawn other numbers before
    model, log = train(case, folder)
    assert log.resumed_at == resumed_at
    assert log.losses == case.log.losses
    assert log.evaluations == case.log.evaluations
    assert (log.best_step, log.tokens, log.padded_tokens) == (
        case.log.best_step,
        case.log.tokens,
        case.log.padded_tokens,
    )
    assert equal(case.weights, copy_weights(model))


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("step", [1, 3, 5, 7, NUM_STEPS])
def test_a_signal_saves_the_step_at_hand_and_the_run_goes_on_from_it(case: Any, step: int, tmp_path: Path) -> None:
    with watch_signals(), pytest.raises(Stopped) as stop:
        train(case, tmp_path, Interrupter(step, terminate))
    assert (stop.value.step, stop.value.exit_status) == (step, 143)
    assert not list(tmp_path.glob(".writing*"))
    check_resumed(case, tmp_path, [step])


@pytest.mark.parametrize("step", [1, 6, NUM_STEPS])
def test_ctrl_c_in_a_notebook_saves_what_is_whole_and_stays_what_it_is(case: Any, step: int, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as stop:
        train(case, tmp_path, Interrupter(step, interrupt))
    assert not isinstance(stop.value, Stopped)
    check_resumed(case, tmp_path, [step])


def test_ctrl_c_in_a_forward_pass_saves_the_step_before(case: Any, tmp_path: Path) -> None:
    counts = case.splits.facts.label_counts.get("train", {})
    plain, calls = build_objective(case.prepared.labels, case.recipe.training, counts), itertools.count(1)

    def break_off(logits: torch.Tensor, batch: Microbatch) -> torch.Tensor:
        # Its dropout is drawn by now, and has to be drawn again.
        if next(calls) == 8:
            raise KeyboardInterrupt
        return plain(logits, batch)

    with pytest.raises(KeyboardInterrupt):
        train(case, tmp_path, objective=break_off)
    check_resumed(case, tmp_path, [7])


@pytest.mark.parametrize("look", [1, 2, 5])
def test_a_look_that_was_broken_off_is_taken_again(case: Any, look: int, tmp_path: Path) -> None:
    calls = itertools.count(1)

    def break_off(model: nn.Module) -> dict[str, float]:
        if next(calls) == look:
            torch.rand(3)  # drawn again by the look that is taken for it
            raise KeyboardInterrupt
        return score_weights(model)

    with pytest.raises(KeyboardInterrupt):
        train(case, tmp_path, evaluate=break_off)
    check_resumed(case, tmp_path, [3 * look])


def test_ctrl_c_in_the_middle_of_an_update_saves_nothing(case: Any, tmp_path: Path, monkeypatch: Any) -> None:
    calls, update = itertools.count(1), loop._Loop.update

    def break_off(self: Any) -> float:
        rate = update(self)
        if next(calls) == 8:
            raise KeyboardInterrupt
        return rate

    monkeypatch.setattr(loop._Loop, "update", break_off)
    with pytest.raises(KeyboardInterrupt):
        train(case, tmp_path)
    monkeypatch.undo()
    assert [path.name for path in CheckpointStore(tmp_path, keep=2).list_steps()] == ["step-00000005"]
    check_resumed(case, tmp_path, [5])


def list_saved(case: Any, folder: Path, monkeypatch: Any, *hooks: object, **changes: Any) -> list[int]:
    """Steps of which a run saves checkpoints."""
    saved: list[int] = []
    commit = CheckpointStore.commit

    def note(self: CheckpointStore, step: int, snapshot: Any) -> Path:
        saved.append(step)
        return commit(self, step, snapshot)

    monkeypatch.setattr(CheckpointStore, "commit", note)
    recipe = case.recipe.model_copy(update={"training": case.recipe.training.model_copy(update=changes)})
    try:
        model, _ = train(case, folder, *hooks, recipe=recipe)
        assert equal(case.weights, copy_weights(model))
    except Killed:
        pass
    monkeypatch.undo()
    return saved


def kill() -> None:
    raise Killed


def test_checkpoints_come_by_time_and_change_nothing(case: Any, tmp_path: Path, monkeypatch: Any) -> None:
    assert list_saved(case, tmp_path / "plain", monkeypatch) == [5, 10, 15]
    always = list_saved(case, tmp_path / "always", monkeypatch, checkpoint_minutes=1e-9)
    assert always == list(range(1, NUM_STEPS + 1))
    assert [path.name for path in CheckpointStore(tmp_path / "always", keep=2).list_steps()] == [
        "step-00000014",
        "step-00000015",
    ]
    assert list_saved(case, tmp_path / "off", monkeypatch, checkpoint_minutes=0.0) == [5, 10, 15]


def test_a_checkpoint_by_time_is_gone_on_from(case: Any, tmp_path: Path, monkeypatch: Any) -> None:
    assert list_saved(case, tmp_path, monkeypatch, Interrupter(8, kill), checkpoint_minutes=1e-9) == list(range(1, 8))
    check_resumed(case, tmp_path, [7])


def test_what_a_kill_left_half_written_is_cleared(case: Any, tmp_path: Path) -> None:
    stale = tmp_path / ".writing-step-00000007"
    stale.mkdir()
    (stale / "best.safetensors").write_bytes(b"half")
    train(case, tmp_path)
    assert not stale.exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.xdist_group("launched")
@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_stop_at_one_step_whichever_was_asked(
    tiny_encoder: Callable[..., Path], tmp_path: Path, rank: int
) -> None:
    (tmp_path / "data").mkdir()
    for split, table in make_tables(40).items():
        table.to_parquet(tmp_path / "data" / f"{split}.parquet")

    def write(name: str) -> str:
        training = {**RUN["training"], "max_steps": 12, "learning_rate": 1e-3, "log_every": 2, "checkpoint_every": 100}
        settings = {**RUN, "training": training, "encoder": {"name": str(tiny_encoder("bert")), "dropout": 0.1}}
        settings |= {"data": {"path": str(tmp_path / "data")}, "report": {"output_dir": str(tmp_path / name)}}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(settings), encoding="utf-8")
        return str(tmp_path / f"{name}.yaml")

    launch(tmp_path, {"recipe": write("whole")})
    said = launch(tmp_path, {"recipe": write("broken"), "signal": {"rank": rank, "step": 6}}, ends_well=False)
    assert said.count("nlp-transfer: stopped at step 8, which is saved. The same command goes on from there.") == 1
    saved = tmp_path / "broken" / "checkpoints" / "step-00000008"
    assert {path.name for path in saved.glob("random-*")} == {"random-0.safetensors", "random-1.safetensors"}
    launch(tmp_path, {"recipe": write("broken")})
    found, expected = (Report.load(tmp_path / name) for name in ("broken", "whole"))
    assert found.record["training"]["resumed_at"] == [8]
    for key in ("losses", "padding_share", "steps"):
        assert found.record["training"][key] == expected.record["training"][key]
    assert found.record["scores"] == expected.record["scores"]
    left, right = (load_file(report.model_path / "model.safetensors") for report in (found, expected))
    assert equal(left, right)
