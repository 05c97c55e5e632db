"""Gradients do not depend on how a window is split into microbatches or over processes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.models.encoder import load_encoder
from tests.invariants.gradient_case import train_case
from tests.training import copy_weights, find_largest_gap, make_recipe

TOLERANCE = 1e-6
LEAST_MOVE = 1e-3


@pytest.fixture(scope="module")
def encoder(tiny_encoder: Callable[..., Path]) -> Path:
    return tiny_encoder("bert")


@pytest.fixture(scope="module")
def whole(encoder: Path) -> dict[str, torch.Tensor]:
    """Weights after windows of 32 in one piece."""
    return train_case(encoder, None)[0]


def test_weights_move_far_enough_to_be_compared(encoder: Path, whole: dict[str, torch.Tensor]) -> None:
    labels = LabelSpace("classification", ("class 0", "class 1"))
    start = copy_weights(load_encoder(make_recipe(encoder).encoder, labels, seed=0).model)
    assert find_largest_gap(start, whole) >= LEAST_MOVE


@pytest.mark.parametrize("microbatch_size", [32, 16, 8, 5, 1])
def test_weights_are_the_same_however_a_window_is_split(
    encoder: Path, whole: dict[str, torch.Tensor], microbatch_size: int
) -> None:
    split, _ = train_case(encoder, microbatch_size)
    assert find_largest_gap(whole, split) <= TOLERANCE


def test_a_wrong_divisor_is_noticed(encoder: Path, whole: dict[str, torch.Tensor]) -> None:
    def average(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits, labels) * 8

    split, _ = train_case(encoder, 8, objective=average)
    assert find_largest_gap(whole, split) > 100 * TOLERANCE


@pytest.mark.parametrize("microbatch_size", [pytest.param("none", marks=pytest.mark.slow), "4"])
def test_weights_are_the_same_over_two_processes(
    encoder: Path, whole: dict[str, torch.Tensor], tmp_path: Path, microbatch_size: str
) -> None:
    out = tmp_path / "weights.safetensors"
    root = Path(__file__).parents[2]
    # accelerate's own CPU launcher wants MPI; its launcher for several devices starts processes for gloo as well.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command += ["-m", "tests.invariants.launched_training", str(encoder), str(out), microbatch_size]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with safe_open(out, "pt") as file:
        assert file.metadata()["processes"] == "2"
    assert find_largest_gap(whole, load_file(out)) <= TOLERANCE
