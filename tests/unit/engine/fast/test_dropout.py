"""Cheap dropout does what torch's does, at another's expense."""

import math

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from nlp_transfer.engine.fast.dropout import cheap_dropout, draw_mask, drop
from tests.tiny import FAMILIES


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.25, 0.5, 0.9])
def test_the_share_of_zeros_and_the_expected_value_are_those_asked_for(rate):
    torch.manual_seed(0)
    count = 1_000_003  # not a multiple of four
    out = drop(torch.ones(count), rate)
    share = float((out == 0).float().mean())
    assert abs(share - rate) < 5 * math.sqrt(rate * (1 - rate) / count)
    kept = out[out != 0]
    assert kept.unique().numel() == 1
    assert float(kept[0]) == pytest.approx(1 / (1 - rate), rel=1e-4)
    assert abs(float(out.double().mean()) - 1) < 5 * math.sqrt(rate / (1 - rate) / count)


def test_elements_are_dropped_independently_of_each_other():
    torch.manual_seed(1)
    zeros = (drop(torch.ones(400_000), 0.3) == 0).double()
    for lag in (1, 2, 3, 4, 5, 8, 64, 384):
        joint = float((zeros[:-lag] * zeros[lag:]).mean())
        assert abs(joint - 0.09) < 5 * math.sqrt(0.09 * 0.91 / 400_000), lag
    for place in range(4):
        assert abs(float(zeros[place::4].mean()) - 0.3) < 5 * math.sqrt(0.21 / 100_000)
    again = (drop(torch.ones(400_000), 0.3) == 0).double()
    assert abs(float((zeros * again).mean()) - 0.09) < 5 * math.sqrt(0.09 * 0.91 / 400_000)


def test_any_number_of_threads_draws_the_same_mask():
    found, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        torch.manual_seed(4)
        found.append(draw_mask(torch.Size([5, 131_079]), 9_000, torch.bfloat16))
    torch.set_num_threads(before)
    assert all(torch.equal(found[0], each) for each in found[1:])
    assert not torch.equal(found[0][0], found[0][1])


def test_the_same_seed_draws_the_same_mask_and_gradients_take_it():
    values = torch.randn(7, 5, requires_grad=True)
    torch.manual_seed(3)
    out = drop(values, 0.4)
    torch.manual_seed(3)
    assert torch.equal(drop(values, 0.4), out)
    weights = torch.randn(7, 5)
    (out * weights).sum().backward()
    mask = (out / values).detach()
    assert 0 < int((mask == 0).sum()) < mask.numel()
    assert mask[mask > 0] == pytest.approx(1 / 0.6, rel=1e-4)
    assert torch.allclose(values.grad, weights * mask)


@pytest.mark.parametrize("rate", [0.0, 1e-9])
def test_no_rate_is_no_change(rate):
    values = torch.randn(9)
    assert drop(values, rate) is values


def test_rates_near_one_and_other_formats_are_left_to_torch():
    layer = nn.Dropout(1.0)
    with cheap_dropout(layer):
        assert not layer(torch.ones(50)).any()
        layer.p = 0.999999
        assert torch.isfinite(layer(torch.ones(50))).all()
        layer.p = 0.5
        assert layer(torch.ones(50, dtype=torch.bfloat16)).dtype == torch.bfloat16
        values = torch.ones(50)
        assert layer.eval()(values) is values
    assert "forward" not in vars(layer)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_draws_cheaply_while_it_trains(family, tiny_encoder, monkeypatch):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_encoder(family))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    inputs = {"input_ids": torch.arange(5, 13)[None], "attention_mask": torch.ones(1, 8, dtype=torch.int64)}
    calls = []

    def count(values, rate):
        calls.append(rate)
        return drop(values, rate)

    monkeypatch.setattr("nlp_transfer.engine.fast.dropout.drop", count)
    expected = model.eval()(**inputs).logits
    with cheap_dropout(model):
        assert torch.equal(model.eval()(**inputs).logits, expected)
        assert not calls
        first, second = (model.train()(**inputs).logits for _ in range(2))
    assert len(calls) >= 4
    assert not torch.equal(first, second)
    model.train()(**inputs)
    assert not [module for module in model.modules() if "forward" in vars(module)]
