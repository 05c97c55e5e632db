"""What must not change a result, for the strategies that steer the loop or run a part of the encoder only once."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from nlp_transfer.contracts import Prepared, RunLog, Splits
from nlp_transfer.engine.predict import forward
from nlp_transfer.fitting.fit import Fitted, fit_model
from nlp_transfer.recipe.schema import Recipe
from tests.tiny import FAMILIES
from tests.training import Breaker, Killed, copy_weights, find_largest_gap, make_recipe, prepare

QUICK_PREFIXES = [("truncate", "bert", "frozen"), ("windows", "bert", "layerwise"), ("windows", "deberta-v3", "frozen")]
"""Cells of the default run, beside every family's frozen layers; the others with -m slow."""

STEERED: dict[str, dict[str, Any]] = {
    "l2_sp": {"strategy__kind": "full", "strategy__l2_sp": 0.5},
    "mixout": {"strategy__kind": "full", "strategy__mixout": 0.3},
    "probe": {"strategy__kind": "full", "strategy__head_init": "probe", "strategy__probe_epochs": 2},
    "gradual": {"strategy__kind": "layerwise", "strategy__unfreeze": "gradual"},
    "decay": {"strategy__kind": "layerwise", "strategy__layer_decay": 0.5},
    "reinit": {"strategy__kind": "layerwise", "strategy__reinit_layers": 1, "strategy__freeze_layers": 1},
    "frozen": {"strategy__kind": "frozen"},
    "adalora": {"strategy__kind": "lora", "strategy__variant": "adalora"},
    "dora": {"strategy__kind": "lora", "strategy__variant": "dora"},
    "vera": {"strategy__kind": "lora", "strategy__variant": "vera", "strategy__dropout": 0.0},
    "pissa": {"strategy__kind": "lora", "strategy__init": "pissa"},
    "few_shot": {"strategy__kind": "few_shot", "training__early_stopping": 5},
    "oft": {"strategy__kind": "lora", "strategy__variant": "oft"},
    "parallel": {"strategy__kind": "adapters", "strategy__variant": "parallel"},
    "prefix": {"strategy__kind": "prompts", "strategy__variant": "prefix"},
    "p_tuning": {"strategy__kind": "prompts", "strategy__variant": "p_tuning"},
    "distill": {"strategy__kind": "distill", "strategy__keep_layers": 1},
}

NUM_LABELS = {"distill": 3}
"""Classes, where they are not two: as many as the tiny teacher knows."""


def steer(name: str, tiny_encoder: Callable[..., Path]) -> dict[str, Any]:
    """Keys of a recipe; a student gets a teacher."""
    teacher = {"strategy__teacher": str(tiny_encoder("bert", "classifier"))} if name == "distill" else {}
    return STEERED[name] | teacher


def train(recipe: Recipe, splits: Splits, prepared: Prepared, folder: Path | None = None, *hooks: Any) -> Fitted:
    accelerator = Accelerator(cpu=True)
    make_hooks = lambda *_: hooks  # noqa: E731
    return fit_model(recipe, splits, prepared, accelerator, make_hooks=make_hooks, checkpoints=folder)


class LateBreaker(Breaker):
    """Breaks off after a step of the training itself, not of a probe before it."""

    def after_step(self, log: RunLog, loss: float | None, learning_rate: float) -> None:
        if log.steps == self.step and log.evaluations:
            raise Killed


BROKEN = ("probe", "gradual", "adalora", "few_shot", "parallel", "distill")
"""What has a state of its own, or none but weights; others with -m slow."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in BROKEN else [pytest.mark.slow]) for name in STEERED]
)
def test_a_broken_run_ends_in_the_same_weights(name: str, tiny_encoder: Callable[..., Path], tmp_path: Path) -> None:
    steered = steer(name, tiny_encoder)
    settings = {"training__batch_size": 12, "training__epochs": 3.0, "training__learning_rate": 1e-3}
    recipe = make_recipe(
        tiny_encoder("bert"), **{**settings, "encoder__dropout": 0.1, "training__checkpoint_every": 2, **steered}
    )
    splits, prepared = prepare(recipe, n=36, num_labels=NUM_LABELS.get(name, 2))
    unbroken = train(recipe, splits, prepared)
    with pytest.raises(Killed):
        train(recipe, splits, prepared, tmp_path, LateBreaker(7))
    resumed = train(recipe, splits, prepared, tmp_path)
    assert resumed.log.resumed_at == [6]
    assert resumed.log.losses == unbroken.log.losses
    expected, found = copy_weights(unbroken.adapted.model), copy_weights(resumed.adapted.model)
    assert len(expected) > 10
    assert all(torch.equal(expected[key], found[key]) for key in expected)


@pytest.mark.parametrize(
    "name", ["l2_sp", "gradual", "decay", "frozen", "vera", "parallel", "prefix", "p_tuning", "distill"]
)
def test_weights_do_not_depend_on_how_a_window_is_split(name: str, tiny_encoder: Callable[..., Path]) -> None:
    found = []
    for size in (None, 5):
        recipe = make_recipe(
            tiny_encoder("bert"),
            training__optimizer="sgd",
            training__learning_rate=0.1,
            training__max_grad_norm=None,
            training__epochs=2.0,
            training__restore_best=False,
            training__microbatch_size=size,
            **steer(name, tiny_encoder),
        )
        splits, prepared = prepare(recipe, n=36, num_labels=NUM_LABELS.get(name, 2))
        found.append(copy_weights(train(recipe, splits, prepared).adapted.model))
    assert find_largest_gap(*found) <= 1e-6


PREFIXES = [
    pytest.param(
        *cell, marks=[] if cell in QUICK_PREFIXES or cell[::2] == ("truncate", "layerwise") else [pytest.mark.slow]
    )
    for cell in itertools.product(("truncate", "windows"), FAMILIES, ("frozen", "layerwise"))
]


@pytest.mark.parametrize(("long_text", "family", "kind"), PREFIXES)
def test_a_cached_prefix_gives_the_weights_of_one_that_runs_every_time(
    family: str, kind: str, long_text: str, tiny_encoder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    build = forward.cache_prefix

    def watch(*args: Any) -> Any:
        passes.append(1)
        return build(*args)

    monkeypatch.setattr("nlp_transfer.fitting.stages.cache_prefix", watch)
    found, losses = [], []
    for is_cached in (True, False):
        recipe = make_recipe(
            tiny_encoder(family),
            strategy__kind=kind,
            strategy__cache_prefix=is_cached,
            encoder__dropout=None,
            # Dropout in what moves would be drawn for other widths; in what is frozen it is off either way.
            data__max_length=16,
            data__long_text=long_text,
            training__optimizer="sgd",
            training__learning_rate=0.1,
            training__epochs=2.0,
            training__restore_best=False,
        )
        splits, prepared = prepare(recipe, n=36)
        fitted = train(recipe, splits, prepared)
        found.append(copy_weights(fitted.adapted.model))
        losses.append(fitted.log.losses)
    assert len(passes) == 1
    assert find_largest_gap(*found) <= 1e-6
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    start = copy_weights(fitted.loaded.model)
    assert start.keys() == found[0].keys()


def test_the_modules_of_a_prefix_work_as_ever_afterwards(tiny_encoder: Callable[..., Path]) -> None:
    recipe = make_recipe(tiny_encoder("bert"), strategy__kind="frozen", training__max_steps=2)
    splits, prepared = prepare(recipe, n=36)
    model = train(recipe, splits, prepared).adapted.model
    assert not [name for name, module in model.named_modules() if {"forward", "_gives_tuple"} & module.__dict__.keys()]


def test_the_pull_is_the_gradient_of_its_penalty(tiny_encoder: Callable[..., Path]) -> None:
    strength, rate = 0.5, 0.1
    settings: dict[str, Any] = {
        "training__optimizer": "sgd",
        "training__learning_rate": rate,
        "training__schedule": "constant",
        "training__warmup_share": 0.0,
        "training__weight_decay": 0.0,
        "training__max_grad_norm": None,
        "training__restore_best": False,
    }
    weights: dict[int, dict[str, torch.Tensor]] = {}
    for steps in (1, 2):
        recipe = make_recipe(
            tiny_encoder("bert"), training__max_steps=steps, strategy__kind="full", strategy__l2_sp=strength, **settings
        )
        splits, prepared = prepare(recipe, n=36)
        weights[steps] = copy_weights(train(recipe, splits, prepared).adapted.model)
    plain: dict[int, dict[str, torch.Tensor]] = {}
    for steps in (1, 2):
        recipe = make_recipe(tiny_encoder("bert"), training__max_steps=steps, **settings)
        plain[steps] = copy_weights(train(recipe, splits, prepared).adapted.model)
    # At the start there is no distance: the first step is the same. The second differs by rate * strength * distance.
    assert find_largest_gap(weights[1], plain[1]) == 0
    loaded = train(make_recipe(tiny_encoder("bert"), training__max_steps=1, **settings), splits, prepared).loaded
    head = ("classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias")
    from nlp_transfer.models.encoder import load_encoder

    start = dict(load_encoder(recipe.encoder, prepared.labels, seed=0).model.named_parameters())
    assert loaded.family == "bert"
    for name, first in start.items():
        pull = 0.0 if name in head else rate * strength * (weights[1][name] - first.detach())
        assert torch.allclose(plain[2][name] - weights[2][name], torch.as_tensor(pull), atol=2e-7), name


def test_gradual_unfreezing_opens_a_layer_more_each_epoch(tiny_encoder: Callable[..., Path]) -> None:
    recipe = make_recipe(
        tiny_encoder("bert"),
        strategy__kind="layerwise",
        strategy__unfreeze="gradual",
        training__warmup_share=0.0,
        strategy__freeze_embeddings=False,
        training__epochs=3.0,
        training__batch_size=36,
        training__learning_rate=1e-2,
        training__restore_best=False,
    )
    splits, prepared = prepare(recipe, n=36)
    seen: list[dict[str, torch.Tensor]] = []

    class Copy(Breaker):
        model: nn.Module

        def after_step(self, log: RunLog, loss: float | None, learning_rate: float) -> None:
            seen.append(copy_weights(models[0]))

    models: list[nn.Module] = []
    monkey = pytest.MonkeyPatch()
    from nlp_transfer.fitting import fit

    load = fit.load_encoder

    def catch(*args: Any, **rest: Any) -> Any:
        loaded = load(*args, **rest)
        models.append(loaded.model)
        seen.append(copy_weights(loaded.model))
        return loaded

    monkey.setattr(fit, "load_encoder", catch)
    train(recipe, splits, prepared, None, Copy(0))
    monkey.undo()
    assert len(seen) == 4
    groups = ("classifier", "encoder.layer.1.", "encoder.layer.0.", "embeddings.word")
    moved = [
        [any(not torch.equal(left[n], right[n]) for n in left if group in n) for group in groups]
        for left, right in itertools.pairwise(seen)
    ]
    assert moved == [[True, True, False, False], [True, True, True, False], [True, True, True, True]]


def test_rates_fall_from_the_top(tiny_encoder: Callable[..., Path]) -> None:
    from nlp_transfer.engine.train.optimizer import build_optimizer
    from tests.training import adapt

    recipe = make_recipe(
        tiny_encoder("bert"),
        strategy__kind="layerwise",
        strategy__freeze_layers=0,
        strategy__freeze_embeddings=False,
        strategy__layer_decay=0.5,
        training__learning_rate=1.0,
        training__head_learning_rate=3.0,
    )
    _, prepared = prepare(recipe, n=16)
    adapted = adapt(recipe, prepared)
    optimizer = build_optimizer(adapted.model, recipe.training, adapted.new_parameters, adapted.rates)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}
    assert len(rates) == len(list(adapted.model.parameters()))
    assert rates["classifier.weight"] == 3.0
    assert rates["bert.pooler.dense.weight"] == 1.0
    assert rates["bert.encoder.layer.1.output.dense.weight"] == 0.5
    assert rates["bert.encoder.layer.0.output.dense.weight"] == 0.25
    assert rates["bert.embeddings.word_embeddings.weight"] == 0.125


def test_mixout_keeps_the_share_it_should_and_the_mean_it_must() -> None:
    from nlp_transfer.strategies.full import Mixout

    torch.manual_seed(0)
    start, weight = torch.zeros(400, 400), torch.ones(400, 400)
    mixed = Mixout(start, 0.3).train()(weight)
    assert mixed.mean().item() == pytest.approx(1.0, abs=0.01)
    assert (mixed == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert torch.equal(Mixout(start, 0.3).eval()(weight), weight)


def test_the_probe_moves_the_head_alone_and_leaves_the_loss_lower(tiny_encoder: Callable[..., Path]) -> None:
    losses = {}
    for init in ("random", "probe"):
        recipe = make_recipe(
            tiny_encoder("bert"),
            strategy__kind="full",
            strategy__head_init=init,
            strategy__probe_epochs=30,
            strategy__probe_learning_rate=1e-2,
            training__max_steps=1,
            training__batch_size=36,
            training__learning_rate=1e-12,
            training__restore_best=False,
        )
        splits, prepared = prepare(recipe, n=36)
        fitted = train(recipe, splits, prepared)
        losses[init] = fitted.log.losses[0]
        weights = copy_weights(fitted.adapted.model)
        if init == "random":
            start = weights
    assert losses["probe"] < losses["random"] - 0.02
    still = [name for name in start if "encoder.layer" in name or "embeddings" in name]
    assert len(still) > 20
    assert max(float((start[name] - weights[name]).abs().max()) for name in still) < 1e-6
    assert not torch.equal(start["classifier.weight"], weights["classifier.weight"])


def test_states_that_are_many_lie_in_a_file_and_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from nlp_transfer.engine.fast import prefix
    from nlp_transfer.errors import StorageError

    monkeypatch.setattr(prefix, "MOST_IN_MEMORY", 1000)
    small, large = prefix.allocate_states(10, 10), prefix.allocate_states(100, 10)
    assert not isinstance(small, np.memmap)
    assert isinstance(large, np.memmap)
    large[:] = 1.5
    assert large.sum() == 1500

    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prefix.os, "posix_fallocate", refuse)
    with pytest.raises(StorageError, match=r"cache_prefix.*No space left.*cache_prefix=false"):
        prefix.allocate_states(100, 10)
