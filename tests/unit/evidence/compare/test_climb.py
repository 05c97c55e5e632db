"""The plan of a ladder, without a fit: fits are replaced by what they would take, on a clock of the test's own."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import EncoderError, OutOfTimeError
from nlp_transfer.evidence.clock import Clock
from nlp_transfer.evidence.compare import climb as module
from nlp_transfer.evidence.compare.climb import Climb, climb_ladder
from nlp_transfer.evidence.compare.costs import Costs
from nlp_transfer.evidence.compare.rungs import RUNGS, Facts, choose_rungs
from nlp_transfer.evidence.compare.trials import Reference, Trial
from tests.tiny import make_splits

ROWS = 12
SPACE = LabelSpace("classification", tuple("abcdef"))


@dataclass
class World:
    """A machine: true seconds of a step, and of what comes beside training; some rungs take longer than foreseen."""

    step: float
    overhead: float
    surprise: dict[str, float]
    now: float = 0.0

    def measure(self, facts: Facts, name: str) -> float:
        rung = RUNGS[name]
        return facts.count_steps(rung) * rung.work * self.step * self.surprise.get(name, 1.0)


def climb_in(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, budget: float | None) -> Climb:
    """Climb the whole ladder with three seeds, on a table of the size of trec."""
    monkeypatch.setattr("nlp_transfer.evidence.clock.time.monotonic", lambda: world.now)
    labels = np.arange(ROWS) % SPACE.num_outputs
    reference = Reference(
        replace(make_splits(12, 6), labels=SPACE), dict.fromkeys(("train", "validation", "test"), labels), {}
    )
    facts = Facts({"data.path": "reviews"}, SPACE, num_train=5452, width=384, epochs=4)
    guess = np.full((ROWS, SPACE.num_outputs), 1 / SPACE.num_outputs)

    def make(name: str, seed: int, seconds: float, training: float) -> Trial:
        return Trial(name, seed, {"validation": guess, "test": guess}, seconds, training, 1, 1, 1, 1, 1, 1.0, False)

    def fit(rung, recipe, _reference, _source, clock, after):
        training = world.measure(facts, rung.name)
        if training + world.overhead > clock.left:
            # As the deadline does: after a few steps it is clear.
            world.now += min(world.overhead + 15 * world.step, clock.left - after)
            raise OutOfTimeError("stopped at step 13")
        world.now += training + world.overhead
        return make(rung.name, recipe.training.seed, training + world.overhead, training)

    def fit_baseline(rung, _reference, _folder, *, select_by):
        world.now += 2.0
        return make(rung.name, 0, 2.0, 2.0)

    monkeypatch.setattr(module, "run_trial", fit)
    monkeypatch.setattr(module, "run_baseline", fit_baseline)
    climb = Climb(
        facts, reference, None, tmp_path, Clock(budget), Costs(facts, 1000, 500), "accuracy", Console(quiet=True)
    )
    climb.costs.step_seconds = world.step
    climb.clock.reserve = 20.0
    climb_ladder(climb, choose_rungs(None), 3)
    return climb


WORLDS = {
    "two cores": World(step=0.12, overhead=6.0, surprise={}),
    "slow start": World(step=0.12, overhead=20.0, surprise={}),
    "lora and adapters take twice as long": World(step=0.12, overhead=6.0, surprise={"lora": 2.0, "adapters": 2.0}),
    "everything takes longer": World(step=0.12, overhead=6.0, surprise=dict.fromkeys(RUNGS, 1.5)),
    "fast": World(step=0.01, overhead=3.0, surprise={}),
}


@pytest.mark.parametrize("name", WORLDS)
def test_ladder_ends_within_ten_minutes_with_full_in_it_and_accounts_for_every_seed(name, monkeypatch, tmp_path):
    kind = WORLDS[name]
    world = World(kind.step, kind.overhead, kind.surprise)
    climb = climb_in(world, monkeypatch, tmp_path, budget=600.0)
    assert world.now <= 580.0 + 1e-6
    for rung in ("majority", "tfidf", "zero_shot", "features", "layerwise", "full"):
        assert climb.trials[rung], rung
    held = {(name, trial.seed) for name, found in climb.trials.items() for trial in found}
    missing = {(each.rung, seed) for each in climb.omissions for seed in each.seeds}
    everything = {(rung.name, seed) for rung in RUNGS.values() for seed in range(3 if rung.is_seeded else 1)}
    assert held | missing == everything
    assert not held & missing
    assert all(each.why for each in climb.omissions)


def test_a_budget_that_holds_everything_leaves_nothing_out_and_one_that_is_tight_most(monkeypatch, tmp_path):
    fast = climb_in(World(0.005, 1.0, {}), monkeypatch, tmp_path, budget=600.0)
    assert fast.omissions == []
    assert sum(len(found) for found in fast.trials.values()) == 3 * 7 + 3
    tight = climb_in(World(0.12, 6.0, {}), monkeypatch, tmp_path, budget=60.0)
    assert "full" not in tight.trials
    assert "features" in tight.trials
    why = next(each.why for each in tight.omissions if each.rung == "full")
    assert why.startswith("a seed was foreseen to take")


def test_what_is_finished_is_taken_in_however_little_time_is_left(monkeypatch, tmp_path):
    folder = tmp_path / "runs" / "tfidf"
    folder.mkdir(parents=True)
    for name in ("predictions.npz", "measured.json"):
        (folder / name).write_bytes(b"")
    climb = climb_in(World(10.0, 60.0, {}), monkeypatch, tmp_path, budget=22.0)
    assert "tfidf" in climb.trials
    fresh = climb_in(World(10.0, 60.0, {}), monkeypatch, tmp_path / "fresh", budget=22.0)
    assert "tfidf" not in fresh.trials


def test_an_encoder_that_cannot_be_fine_tuned_costs_no_more_than_its_own_rungs(monkeypatch, tmp_path):
    climb = climb_in(World(0.01, 1.0, {}), monkeypatch, tmp_path, budget=600.0)

    def refuse(*_, **__):
        raise EncoderError("this one is frozen.")

    monkeypatch.setattr(module, "run", refuse)
    assert module.measure_steps(climb) == 0.0


def test_without_a_budget_every_seed_runs_rung_by_rung(monkeypatch, tmp_path):
    climb = climb_in(World(10.0, 60.0, {}), monkeypatch, tmp_path, budget=None)
    assert climb.omissions == []
    assert {name: len(found) for name, found in climb.trials.items()} == {
        rung.name: 3 if rung.is_seeded else 1 for rung in RUNGS.values()
    }
