"""Groups, rates and schedules; schedules beside transformers' own."""

import pytest
import torch
from torch import nn
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from nlp_transfer.engine.train.optimizer import build_optimizer, build_schedule, group_parameters
from nlp_transfer.recipe.schema import TrainingConfig


def make_model() -> nn.Module:
    model = nn.Sequential()
    model.add_module("body", nn.Linear(4, 4))
    model.add_module("norm", nn.LayerNorm(4))
    model.add_module("head", nn.Linear(4, 2))
    model.body.weight.requires_grad_(True)
    return model


def test_groups_split_by_decay_and_by_rate_and_hold_every_trainable_parameter_once():
    model = make_model()
    model.norm.bias.requires_grad_(False)
    training = TrainingConfig(learning_rate=1e-4, head_learning_rate=1e-2, weight_decay=0.1)
    groups = group_parameters(model, training, {"head.weight", "head.bias"})
    found = {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["names"]}
    assert found == {
        "body.weight": (1e-4, 0.1),
        "body.bias": (1e-4, 0.0),
        "norm.weight": (1e-4, 0.0),
        "head.weight": (1e-2, 0.1),
        "head.bias": (1e-2, 0.0),
    }


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize(("steps", "share"), [(50, 0.1), (7, 0.06), (10, 0.0), (1, 0.5)])
def test_schedules_are_those_of_transformers(kind, steps, share):
    training = TrainingConfig(learning_rate=1.0, schedule=kind, warmup_share=share)
    make = {"linear": get_linear_schedule_with_warmup, "cosine": get_cosine_schedule_with_warmup}[kind]
    rates = []
    for build in (lambda o: build_schedule(o, training, steps), lambda o: make(o, -(-steps * share // 1), steps)):
        optimizer = build_optimizer(make_model(), training)
        schedule = build(optimizer)
        seen = []
        for _ in range(steps):
            seen.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        rates.append(seen)
    assert len(rates[0]) == steps
    assert rates[0] == pytest.approx(rates[1])


def test_constant_schedule_stays_after_the_warm_up():
    training = TrainingConfig(learning_rate=1.0, schedule="constant", warmup_share=0.2)
    schedule = build_schedule(build_optimizer(make_model(), training), training, 10)
    assert [schedule.lr_lambdas[0](step) for step in range(10)] == [0.0, 0.5, *[1.0] * 8]


def test_sgd_is_plain():
    optimizer = build_optimizer(make_model(), TrainingConfig(optimizer="sgd", learning_rate=0.1))
    assert isinstance(optimizer, torch.optim.SGD)
    assert all(group["momentum"] == 0 for group in optimizer.param_groups)
