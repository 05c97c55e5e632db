"""Gradients do not depend on how a window is split into microbatches or over processes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.engine.predict.forward import Microbatch
from nlp_transfer.engine.train.objectives import read_labels
from nlp_transfer.models.encoder import load_encoder
from tests.invariants.gradient_case import train_case
from tests.invariants.launched import launch
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
    def average(logits: torch.Tensor, batch: Microbatch) -> torch.Tensor:
        return functional.cross_entropy(logits, read_labels(batch)) * 8

    split, _ = train_case(encoder, 8, objective=average)
    assert find_largest_gap(whole, split) > 100 * TOLERANCE


def check_weights_of_two(out: Path, whole: dict[str, torch.Tensor]) -> None:
    """Hold what two processes left against one process in one piece."""
    with safe_open(out, "pt") as file:
        assert file.metadata()["processes"] == "2"
    assert find_largest_gap(whole, load_file(out)) <= TOLERANCE


@pytest.mark.xdist_group("launched")
def test_weights_are_the_same_over_two_processes(whole: dict[str, torch.Tensor], launched: Path) -> None:
    check_weights_of_two(launched / "weights.safetensors", whole)


@pytest.mark.slow
def test_whole_windows_over_two_processes_give_the_same_weights(
    encoder: Path, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    out = tmp_path / "weights.safetensors"
    launch(tmp_path, {"encoder": str(encoder), "microbatch_size": None, "weights": str(out)})
    check_weights_of_two(out, whole)
