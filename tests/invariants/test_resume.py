"""A run that was broken off and started again ends in the same weights, bit for bit."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from nlp_transfer.engine.train.checkpoint import CheckpointStore, capture_random, restore_random
from nlp_transfer.errors import OutputError
from nlp_transfer.recipe.schema import Recipe
from tests.training import Breaker, Killed, copy_weights, fit, make_recipe, prepare


@pytest.fixture
def recipe(tiny_encoder: Callable[..., Path]) -> Recipe:
    return make_recipe(
        tiny_encoder("bert"),
        encoder__dropout=0.1,
        training__batch_size=8,
        training__epochs=3.0,
        training__learning_rate=1e-3,
        training__checkpoint_every=2,
        training__evaluate_every=3,
        training__select_by="accuracy",
        training__early_stopping=6,
    )


def score_weights(model: nn.Module) -> dict[str, float]:
    """A made-up validation figure that falls and rises, so that the best weights lie in the middle."""
    return {"accuracy": float(torch.sin(1e4 * next(model.parameters()).detach().sum()))}


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    assert left.keys() == right.keys()
    assert len(left) > 10
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("strategy", ["full", "frozen", "lora"])
@pytest.mark.parametrize("broken_at", [1, 5, 9, 14])
def test_a_broken_run_ends_in_the_same_weights(recipe: Recipe, strategy: str, broken_at: int, tmp_path: Path) -> None:
    recipe = make_recipe(
        Path(recipe.encoder.name),
        strategy__kind=strategy,
        encoder__dropout=0.1,
        **{f"training__{key}": value for key, value in recipe.training.model_dump().items() if key != "trackers"},
    )
    splits, prepared = prepare(recipe, n=36)
    model, log = fit(recipe, splits, prepared, evaluate=score_weights)
    unbroken = copy_weights(model)
    assert log.steps == 15

    with pytest.raises(Killed):
        fit(recipe, splits, prepared, evaluate=score_weights, folder=tmp_path, hooks=(Breaker(broken_at),))
    torch.rand(7)  # whoever starts again has drawn other numbers before
    model, resumed = fit(recipe, splits, prepared, evaluate=score_weights, folder=tmp_path)

    assert resumed.resumed_at == ([] if broken_at < 2 else [(broken_at - 1) // 2 * 2])
    assert resumed.losses == log.losses
    assert resumed.best_step == log.best_step
    assert equal(unbroken, copy_weights(model))


def test_another_seed_ends_in_other_weights(recipe: Recipe, tmp_path: Path) -> None:
    splits, prepared = prepare(recipe, n=36)
    model, _ = fit(recipe, splits, prepared)
    other = recipe.model_copy(update={"training": recipe.training.model_copy(update={"seed": 1})})
    again, _ = fit(recipe, splits, prepared)
    different, _ = fit(other, splits, prepared)
    assert equal(copy_weights(model), copy_weights(again))
    assert not equal(copy_weights(model), copy_weights(different))


def test_a_run_does_not_go_on_with_other_rows(recipe: Recipe, tmp_path: Path) -> None:
    splits, prepared = prepare(recipe, n=36)
    with pytest.raises(Killed):
        fit(recipe, splits, prepared, folder=tmp_path, hooks=(Breaker(5),))
    splits, prepared = prepare(recipe, n=36, seed=1)
    with pytest.raises(OutputError, match="other rows"):
        fit(recipe, splits, prepared, folder=tmp_path)


def test_a_damaged_checkpoint_is_skipped_for_the_one_before(recipe: Recipe, tmp_path: Path) -> None:
    splits, prepared = prepare(recipe, n=36)
    fit(recipe, splits, prepared, folder=tmp_path)
    store = CheckpointStore(tmp_path, keep=2)
    steps = store.list_steps()
    assert [path.name for path in steps] == ["step-00000014", "step-00000015"]
    weights = steps[1] / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    snapshot = store.load_newest()
    assert snapshot is not None
    assert snapshot.state["log"]["steps"] == 14
    assert store.skipped == ["step-00000015: weights.safetensors is damaged"]
    manifest = json.loads((steps[0] / "manifest.json").read_text())
    assert len(manifest) >= 4
    _, log = fit(recipe, splits, prepared, folder=tmp_path)
    assert (log.resumed_at, log.damaged_checkpoints) == ([14], store.skipped)


def test_random_state_comes_back_exactly() -> None:
    import random

    import numpy as np

    random.gauss(0, 1)
    captured = capture_random()
    drawn = (random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(3).tolist())  # noqa: NPY002
    restore_random(captured)
    again = (random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(3).tolist())  # noqa: NPY002
    assert drawn == again
