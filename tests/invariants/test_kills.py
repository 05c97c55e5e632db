"""A run that is killed at any moment and started again ends in the same weights and predictions, bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from nlp_transfer.engine.train.checkpoint import CheckpointStore
from tests.invariants.run_case import make_tables
from tests.training import fit, make_recipe, prepare

STRATEGIES: dict[str, dict[str, Any]] = {
    "full": {"kind": "full"},
    "lora": {"kind": "lora", "rank": 4},
    "layerwise": {"kind": "layerwise", "freeze_layers": 1},
    "few_shot": {"kind": "few_shot", "method": "contrastive"},
}

ATTEMPTS = 20
"""Starts of a run until one kill met it alive; chosen, more than any run took."""

CALLS = 40
"""Most calls of functions between a change on the disk and the kill; chosen, enough to write a small file."""


class Server:
    """Runs recipes in children of a process that has imported everything."""

    def __init__(self, folder: Path) -> None:
        self.errors = (folder / "errors.txt").open("w", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.invariants.killed_runs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )

    def ask(self, line: str) -> int:
        """Send a line and read the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, Path(self.errors.name).read_text(encoding="utf-8")[-2000:]
        return int(answer)

    def run(self, recipe: Path) -> int:
        """Run a recipe to its end; gives how many changes it made on the disk."""
        self.ask(str(recipe))
        assert self.ask("") == 0, Path(self.errors.name).read_text(encoding="utf-8")[-2000:]
        return int(recipe.with_suffix(".changes").read_text(encoding="utf-8"))

    def kill(self, recipe: Path, change: int, calls: int) -> bool:
        """Start a recipe that dies some calls of functions after a change on the disk; gives whether it came so far."""
        self.ask(f"{recipe}\t{change}\t{calls}")
        return self.ask("") == -signal.SIGKILL

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()
        self.errors.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("server"))
    yield found
    found.close()


@pytest.fixture
def write_recipe(tiny_encoder: Callable[..., Path], tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes a recipe with a checkpoint after every step, by strategy and name of its folder."""
    (tmp_path / "data").mkdir()
    for split, table in make_tables(40).items():
        table.to_parquet(tmp_path / "data" / f"{split}.parquet")

    def write(strategy: str, name: str) -> Path:
        settings = {
            "encoder": {"name": str(tiny_encoder("bert")), "dropout": 0.1},
            "data": {"path": str(tmp_path / "data"), "max_length": 48},
            "strategy": STRATEGIES[strategy],
            "training": {
                "max_steps": 12,
                "batch_size": 8,
                "learning_rate": 1e-3,
                "device": "cpu",
                "checkpoint_every": 1,
                "evaluate_every": 3,
            },
            "evaluation": {"resamples": 100, "tfidf": False},
            "report": {"output_dir": str(tmp_path / name)},
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(settings), encoding="utf-8")
        return path

    return write


def read_outcome(folder: Path) -> tuple[dict[str, torch.Tensor], pd.DataFrame, dict[str, Any]]:
    """Every tensor of the artefact, the predictions, and the losses with the scores."""
    tensors = {
        f"{path.name}/{name}": tensor
        for path in sorted((folder / "model").rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    kept = {"losses": report["training"]["losses"], "scores": report["scores"]}
    return tensors, pd.read_parquet(folder / "predictions.parquet"), kept


def kill_and_compare(
    server: Server, write_recipe: Callable[[str, str], Path], tmp_path: Path, strategy: str, kills: int, seed: int
) -> int:
    """Kill runs at random moments, let each go on, and hold its outcome against the unbroken run's; gives the count."""
    changes = server.run(write_recipe(strategy, f"{strategy}-whole"))
    assert changes > 100
    expected = read_outcome(tmp_path / f"{strategy}-whole")
    assert len(expected[0]) > 5
    drawn = random.Random(seed)
    done = 0
    for number in range(kills):
        name = f"{strategy}-{number}"
        recipe = write_recipe(strategy, name)
        for _ in range(ATTEMPTS):
            was_killed = server.kill(recipe, drawn.randint(1, changes), drawn.randint(0, CALLS))
            # The report is the last that is written: a run that has one is finished, and is left alone.
            if was_killed and not (tmp_path / name / "report.json").is_file():
                break
            # It was through before the moment came: take another folder.
            name += "-again"
            recipe = write_recipe(strategy, name)
        else:
            pytest.fail(f"{strategy}: no run lived until it was to be killed")
        server.run(recipe)
        found = read_outcome(tmp_path / name)
        assert found[0].keys() == expected[0].keys()
        assert all(torch.equal(found[0][key], expected[0][key]) for key in expected[0]), (strategy, number)
        pd.testing.assert_frame_equal(found[1], expected[1])
        assert found[2] == expected[2]
        assert not list(tmp_path.glob(f"{name}-2"))
        done += 1
    return done


@pytest.mark.xdist_group("kills")
@pytest.mark.parametrize(("strategy", "kills"), [("full", 2), ("lora", 2), ("layerwise", 1), ("few_shot", 1)])
def test_a_killed_run_ends_in_the_same_bits(
    server: Server, write_recipe: Callable[[str, str], Path], tmp_path: Path, strategy: str, kills: int
) -> None:
    assert kill_and_compare(server, write_recipe, tmp_path, strategy, kills, seed=0) == kills


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_killed_runs_end_in_the_same_bits(
    server: Server, write_recipe: Callable[[str, str], Path], tmp_path: Path
) -> None:
    shares = {"full": 13, "lora": 13, "layerwise": 12, "few_shot": 12}
    done = [kill_and_compare(server, write_recipe, tmp_path, name, kills, seed=1) for name, kills in shares.items()]
    assert sum(done) == 50


def damage(path: Path, how: int, drawn: random.Random) -> None:
    """Change one file of a checkpoint: a bit, its end, everything, or the file's being there."""
    content = bytearray(path.read_bytes())
    if how == 0:
        content[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
    elif how == 1:
        del content[drawn.randrange(len(content)) :]
    elif how == 2:
        content[:] = bytes(len(content))
    else:
        path.unlink()
        return
    path.write_bytes(content)


def test_every_damaged_checkpoint_is_told_and_the_one_before_is_used(
    tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = make_recipe(tiny_encoder("bert"), training__batch_size=8, training__checkpoint_every=2)
    splits, prepared = prepare(recipe, n=36)
    fit(recipe, splits, prepared, folder=tmp_path)
    steps = CheckpointStore(tmp_path, keep=2).list_steps()
    whole = {path: path.read_bytes() for path in steps[-1].iterdir()}
    assert len(whole) >= 4
    drawn, told = random.Random(2), 0
    for number in range(20):
        path = drawn.choice(sorted(whole))
        damage(path, number % 4, drawn)
        store = CheckpointStore(tmp_path, keep=2)
        snapshot = store.load_newest()
        assert snapshot is not None
        assert snapshot.state["log"]["steps"] == int(steps[-2].name.split("-")[1]), (path.name, number % 4)
        assert len(store.skipped) == 1
        assert store.skipped[0].startswith(steps[-1].name)
        told += 1
        for each, content in whole.items():
            each.write_bytes(content)
        assert CheckpointStore(tmp_path, keep=2).load_newest() is not None
    assert told == 20
