"""A command that is asked to end at any moment and started again ends in the same weights and figures, bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import torch
from safetensors.torch import load_file

from nlp_transfer.recipe.methods.table import METHODS
from nlp_transfer.recipe.schema import STRATEGY_CONFIGS
from tests.contracts.variants import CHECKPOINTS, TEACHER, VARIANTS
from tests.invariants.run_case import make_tables

ATTEMPTS = 20
"""Starts of a run until one signal met it alive; chosen, more than any run took."""

NUM_LABELS = 3
"""As many classes as the tiny classifiers know, which teach and are reused."""

TERMINATED = 128 + signal.SIGTERM

TIMES = {"seconds", "training_seconds", "elapsed_seconds", "peak_memory_bytes", "costs", "after_seconds", "digests"}
"""What a record holds of time and memory, which no two runs have alike, and its digest, which covers them."""


class Server:
    """Runs commands in children of a process that has imported everything."""

    def __init__(self, folder: Path) -> None:
        self.errors = (folder / "errors.txt").open("w", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.invariants.stopped_runs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        # A run is timed to choose moments for signals, and the imports of the server are not a part of it.
        assert self.read_answer() == 0

    def ask(self, line: str) -> int:
        """Send a line and read the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.read_answer()

    def read_answer(self) -> int:
        """Wait for a line, and read it."""
        assert self.process.stdout is not None
        answer = self.process.stdout.readline()
        assert answer, self.read_errors()
        return int(answer)

    def read_errors(self) -> str:
        """The last of what was said."""
        return Path(self.errors.name).read_text(encoding="utf-8")[-2000:]

    def run(self, arguments: Sequence[str]) -> float:
        """Run a command to its end; gives its seconds."""
        started = time.perf_counter()
        self.ask(json.dumps(arguments))
        assert self.ask("") == 0, self.read_errors()
        return time.perf_counter() - started

    def end(self, arguments: Sequence[str], seconds: float, number: int) -> bool:
        """Start a command and send it a signal after a while; gives whether it was still running."""
        child = self.ask(json.dumps(arguments))
        time.sleep(seconds)
        # An ended child stays a zombie until it is asked for, so its number is not another process's yet.
        os.kill(child, number)
        status = self.ask("")
        # Before the command is at work, a signal ends the process as it does any other.
        expected = (-number, TERMINATED) if number == signal.SIGTERM else (-number,)
        assert status in (0, *expected), (status, self.read_errors())
        return status != 0

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


Maker = Callable[[str, str], list[str]]
"""Makes the command that runs something into a folder: given its name and the folder's."""


@pytest.fixture
def make_run(tiny_encoder: Callable[..., Path], tmp_path: Path) -> Maker:
    """Makes a run with a checkpoint after every few steps, by the name of its strategy."""
    (tmp_path / "data").mkdir()
    for split, table in make_tables(40, num_labels=NUM_LABELS).items():
        table.to_parquet(tmp_path / "data" / f"{split}.parquet")
    texts = [f"A text of which nobody knows the label, number {number}." for number in range(24)]
    (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")

    def make(name: str, place: str) -> list[str]:
        case = place.partition("-")[0]
        unlabelled = str(tmp_path / "texts.txt") if case in METHODS and METHODS[case].needs_texts else None
        encoder, teacher = tiny_encoder("bert", CHECKPOINTS.get(name, "masked_lm")), tiny_encoder("bert", "classifier")
        section = {key: str(teacher) if value is TEACHER else value for key, value in VARIANTS[name].items()}
        settings = {
            "encoder": {"name": str(encoder), "dropout": 0.1},
            "data": {"path": str(tmp_path / "data"), "max_length": 48, "unlabelled": unlabelled},
            "strategy": section,
            "methods": [{"kind": case, **METHOD_SETTINGS[case]}] if case in METHODS else [],
            "training": {
                "max_steps": 12,
                "batch_size": 8,
                "learning_rate": 1e-3,
                "device": "cpu",
                "precision": "fp32",
                "checkpoint_every": 1,
                "evaluate_every": 3,
                **TRAINING.get(case, {}),
            },
            "evaluation": {"resamples": 100, "tfidf": False, **EVALUATION.get(case, {})},
            "report": {"output_dir": str(tmp_path / place)},
        }
        path = tmp_path / f"{place}.yaml"
        path.write_text(json.dumps(settings), encoding="utf-8")
        return ["run", str(path)]

    return make


TRAINING: dict[str, dict[str, Any]] = {
    "seeds": {"seeds": [0, 1], "checkpoint_every": 5},
    "stopping": {"early_stopping": 2, "ema_share": 0.3, "checkpoint_every": 5},
}
EVALUATION: dict[str, dict[str, Any]] = {
    "seeds": {"tfidf": True, "control": True, "control_learning_rates": [1e-3, 3e-3]},
}
"""Settings of runs that are more than a strategy: several seeds with all baselines, and early stopping."""

METHOD_SETTINGS: dict[str, dict[str, Any]] = {
    "r_drop": {"alpha": 0.5},
    "self_training": {"rounds": 2, "min_confidence": 0.0, "share": 1.0, "settled": 0.0},
    "domain_alignment": {"weight": 0.3, "hidden": 8},
    "domain_mlm": {"epochs": 1.0},
    "mixed_mlm": {"weight": 0.4},
}
"""Settings of runs with a method around the strategy."""


def read_outcome(folder: Path) -> tuple[dict[str, torch.Tensor], pd.DataFrame, dict[str, Any]]:
    """Every tensor of the artefact, the predictions, and the losses with the scores."""
    tensors = {
        f"{path.name}/{name}": tensor
        for path in sorted((folder / "model").rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    kept = {key: report["training"].get(key) for key in ("losses", "methods")} | {"scores": report["scores"]}
    return tensors, pd.read_parquet(folder / "predictions.parquet"), kept


def end_and_compare(
    server: Server, make: Maker, tmp_path: Path, name: str, kills: int, seed: int, number: int, *, case: str = ""
) -> int:
    """Kill runs at random moments, let each go on, and hold its outcome against the unbroken run's; gives the count."""
    case = case or name
    seconds = server.run(make(name, f"{case}-whole"))
    expected = read_outcome(tmp_path / f"{case}-whole")
    # What tells classes by entailment holds its encoder by name.
    assert len(expected[0]) >= 2 or name == "zero_shot-entailment"
    drawn = random.Random(seed)
    done = 0
    for kill in range(kills):
        place, command = end_somewhere(server, make, name, f"{case}-{kill}", drawn, seconds, number)
        if number == signal.SIGTERM:
            assert_clean(tmp_path / place)
        server.run(command)
        found = read_outcome(tmp_path / place)
        assert found[0].keys() == expected[0].keys()
        assert all(torch.equal(found[0][key], expected[0][key]) for key in expected[0]), (name, kill)
        pd.testing.assert_frame_equal(found[1], expected[1])
        assert found[2] == expected[2]
        assert not list(tmp_path.glob(f"{place}-2"))
        done += 1
    return done


def end_somewhere(
    server: Server, make: Maker, name: str, place: str, drawn: random.Random, seconds: float, number: int
) -> tuple[str, list[str]]:
    """Start a command until a signal met it alive; gives the name of its folder, and the command."""
    for _ in range(ATTEMPTS):
        command = make(name, place)
        if server.end(command, drawn.uniform(0.02, 0.95) * seconds, number):
            return place, command
        # It was through before the moment came: take another folder.
        place += "-again"
    pytest.fail(f"{name}: no run lived until it was to be killed")


def assert_clean(folder: Path) -> None:
    """What a run leaves that was asked to end: nothing half written, and no lock."""
    left = [path.name for path in folder.rglob("*") if "writing" in path.name or path.name == ".lock"]
    assert left == []


ASKED = [
    *("full", "full-l2_sp", "full-mixout", "full-probe", "layerwise", "layerwise-gradual", "lora", "lora-adalora"),
    *("frozen", "features", "features-mlp", "few_shot", "few_shot-prototypes", "few_shot-cloze"),
    *("zero_shot", "zero_shot-entailment", "zero_shot-reuse", "adapters", "prompts", "prompts-p_tuning"),
    *("distill", "distill-shallow"),
]
"""Every kind of strategy, every method of those that have several, and whatever lays down a state of its own."""


def test_every_kind_of_strategy_is_asked_to_end() -> None:
    assert {VARIANTS[name]["kind"] for name in ASKED} == set(STRATEGY_CONFIGS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("strategy", ASKED)
def test_a_run_that_is_asked_to_end_goes_on_to_the_same_bits(
    server: Server, make_run: Maker, tmp_path: Path, strategy: str
) -> None:
    assert end_and_compare(server, make_run, tmp_path, strategy, 3, 2, signal.SIGTERM) == 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", ["seeds", "stopping"])
def test_seeds_baselines_and_early_stopping_go_on_to_the_same_bits(
    server: Server, make_run: Maker, tmp_path: Path, case: str
) -> None:
    assert end_and_compare(server, make_run, tmp_path, "full", 4, 3, signal.SIGTERM, case=case) == 4


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("strategy", ["full", "lora"])
@pytest.mark.parametrize("method", METHODS)
def test_a_run_with_a_method_goes_on_to_the_same_bits(
    server: Server, make_run: Maker, tmp_path: Path, method: str, strategy: str, number: int
) -> None:
    assert end_and_compare(server, make_run, tmp_path, strategy, 3, 5, number, case=method) == 3


def drop_times(record: Any) -> Any:
    """A record without what hangs on time and memory."""
    if isinstance(record, dict):
        return {key: drop_times(value) for key, value in record.items() if key not in TIMES}
    return [drop_times(value) for value in record] if isinstance(record, list) else record


def end_and_hold(server: Server, make: Callable[[str], list[str]], tmp_path: Path, file: str, kills: int) -> int:
    """End a command of many fits at random moments, let it go on, and hold its record against the unbroken one's."""

    def read(place: str) -> Any:
        text = (tmp_path / place / file).read_text(encoding="utf-8").replace(str(tmp_path / place), "")
        return drop_times(json.loads(text))

    seconds = server.run(make("whole"))
    expected, drawn = read("whole"), random.Random(4)
    for kill in range(kills):
        place, command = end_somewhere(
            server, lambda _, place: make(place), file, f"{kill}", drawn, seconds, signal.SIGTERM
        )
        assert_clean(tmp_path / place)
        server.run(command)
        assert read(place) == expected
    return kills


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_comparison_that_is_asked_to_end_goes_on_to_the_same_figures(
    server: Server, make_run: Maker, tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    rungs = [f"--rung={name}" for name in ("majority", "tfidf", "features", "layerwise", "full")]

    def make(place: str) -> list[str]:
        options = ["--encoder", str(tiny_encoder("bert")), "--seeds", "2", *rungs, "--out", str(tmp_path / place)]
        return ["compare", str(tmp_path / "data"), *options]

    assert end_and_hold(server, make, tmp_path, "compare.json", 6) == 6


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_search_that_is_asked_to_end_goes_on_to_the_same_trials(
    server: Server, make_run: Maker, tmp_path: Path
) -> None:
    recipe = make_run("frozen", "searched")[1]

    def make(place: str) -> list[str]:
        return ["tune", recipe, "--trials", "9", "--confirm", "1", "--out", str(tmp_path / place)]

    assert end_and_hold(server, make, tmp_path, "tuning.json", 6) == 6


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_workers_of_a_search_end_with_it(server: Server, make_run: Maker, tmp_path: Path, number: int) -> None:
    recipe = make_run("frozen", "searched")[1]
    command = ["tune", recipe, "training.max_steps=1000000", "--jobs", "2", "--out", str(tmp_path / "search")]
    child = server.ask(json.dumps(command))
    until = time.monotonic() + 300
    while len(workers := psutil.Process(child).children(recursive=True)) < 2:
        assert time.monotonic() < until, server.read_errors()
        time.sleep(0.1)
    time.sleep(2)
    os.kill(child, number)
    assert server.ask("") in (-number, TERMINATED)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
