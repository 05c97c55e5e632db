"""The running mean of the weights: what it is, where it stands, and that a broken run goes on with it."""

import pytest
import torch

from nlp_transfer.engine.train.average import Average
from nlp_transfer.errors import RecipeError
from nlp_transfer.recipe.load import load_recipe
from tests.training import Breaker, Killed, Watcher, adapt, copy_weights, find_largest_gap, fit, make_recipe, prepare

STEPS = 15


@pytest.fixture
def settings(tiny_encoder):
    return {
        "encoder": tiny_encoder("bert"),
        "encoder__dropout": 0.1,
        "training__batch_size": 8,
        "training__epochs": 3.0,
        "training__learning_rate": 1e-2,
        "training__checkpoint_every": 2,
        "training__evaluate_every": 3,
        "training__select_by": "accuracy",
    }


class Collector(Watcher):
    """Copies the trained weights after every step."""

    def __init__(self, model):
        self.model, self.seen = model, []

    def after_step(self, log, loss, learning_rate):
        self.seen.append({name: p.detach().clone() for name, p in self.model.named_parameters()})


def average_by_hand(start, seen, decay):
    """The mean, one number after the other, in float64."""
    mean = {name: tensor.double() for name, tensor in start.items()}
    for step, weights in enumerate(seen, 1):
        kept = min(decay, (1 + step) / (10 + step))
        mean = {name: kept * mean[name] + (1 - kept) * weights[name].double() for name in mean}
    return mean


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("decay", [0.9, 0.5])
def test_a_run_ends_with_the_mean_of_its_weights(settings, decay, half):
    recipe = make_recipe(**settings, training__ema_share=1 / (1 - decay) / STEPS)
    splits, prepared = prepare(recipe, n=36)
    adapted = adapt(recipe, prepared)
    start = copy_weights(adapted.model)
    collector = Collector(adapted.model)
    model, log = fit(recipe, splits, prepared, adapted=adapted, hooks=(collector,), half=half)
    assert len(collector.seen) == log.steps == STEPS
    names = [name for name in collector.seen[0] if "word_embeddings" not in name]
    assert len(names) > 10
    expected = average_by_hand({n: start[n] for n in names}, collector.seen, decay)
    found = {name: p.detach() for name, p in model.named_parameters() if name in expected}
    # bf16: what the hook sees is the model's rounded weights.
    assert find_largest_gap(found, expected) < (2e-2 if half else 1e-6)
    last = {name: collector.seen[-1][name] for name in names}
    assert find_largest_gap(found, last) > 1e-3


def test_the_whole_embedding_matrix_is_averaged_as_the_reached_rows_are(settings, monkeypatch):
    recipe = make_recipe(**settings, training__ema_share=10 / STEPS, training__weight_decay=0.5)
    splits, prepared = prepare(recipe, n=36)
    adapted = adapt(recipe, prepared)
    reached = copy_weights(fit(recipe, splits, prepared, adapted=adapted)[0])
    monkeypatch.setattr("nlp_transfer.engine.train.weights.reach_vocabulary", lambda *_: None)
    whole = copy_weights(fit(recipe, splits, prepared)[0])
    assert find_largest_gap(reached, whole) < 2e-5


def test_validation_sees_the_mean_and_training_goes_on_without_it(settings):
    looked = []

    def evaluate(model):
        looked.append(copy_weights(model))
        return {"accuracy": -float(len(looked))}  # the first look is the best

    recipe = make_recipe(**settings, training__ema_share=10 / STEPS)
    splits, prepared = prepare(recipe, n=36)
    adapted = adapt(recipe, prepared)
    collector = Collector(adapted.model)
    model, log = fit(recipe, splits, prepared, adapted=adapted, hooks=(collector,), evaluate=evaluate)
    plain_recipe = make_recipe(**settings)
    plain = adapt(plain_recipe, prepared)
    watcher = Collector(plain.model)
    fit(plain_recipe, splits, prepared, adapted=plain, hooks=(watcher,))
    # The steps themselves are those of a run without a mean, bit for bit.
    for ours, theirs in zip(collector.seen, watcher.seen, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert log.best_step == 3
    assert find_largest_gap(copy_weights(model), looked[0]) == 0
    assert find_largest_gap(looked[0], looked[1]) > 1e-4


@pytest.mark.parametrize("broken_at", [5, 9, 14])
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_a_broken_run_ends_in_the_same_mean(settings, broken_at, half, tmp_path):
    def evaluate(model):
        return {"accuracy": float(torch.sin(1e4 * next(model.parameters()).detach().double().sum()))}

    recipe = make_recipe(**settings, training__ema_share=10 / STEPS)
    splits, prepared = prepare(recipe, n=36)
    model, log = fit(recipe, splits, prepared, evaluate=evaluate, half=half)
    with pytest.raises(Killed):
        fit(recipe, splits, prepared, evaluate=evaluate, folder=tmp_path, hooks=(Breaker(broken_at),), half=half)
    again, resumed = fit(recipe, splits, prepared, evaluate=evaluate, folder=tmp_path, half=half)
    assert resumed.resumed_at == [(broken_at - 1) // 2 * 2]
    assert resumed.losses == log.losses
    assert resumed.best_step == log.best_step
    assert find_largest_gap(copy_weights(model), copy_weights(again)) == 0


def test_an_early_mean_is_not_held_at_the_start():
    weight = torch.zeros(1)
    average = Average({"weight": weight}, decay=0.999)
    weight += 1
    assert [round(average.take(step), 4) for step in (1, 10, 100_000)] == [0.8182, 0.45, 0.001]


def test_ranks_that_are_dropped_on_the_way_have_no_mean():
    with pytest.raises(RecipeError, match=r"training\.ema_share: does not go with strategy\.variant adalora"):
        load_recipe({"strategy": {"kind": "lora", "variant": "adalora"}, "training": {"ema_share": 0.9}})
