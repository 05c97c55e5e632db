"""Attention in parts gives what plain attention gives with the same weights dropped."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from nlp_transfer.engine.fast import attention
from nlp_transfer.engine.fast.attention import Attention, attend_in_parts, hide
from nlp_transfer.engine.fast.dropout import draw_mask, find_threshold
from tests.tiny import FAMILIES

CALLING = ("bert", "roberta", "xlm-roberta", "distilbert", "albert", "electra", "modernbert")
"""Families that ask transformers for their attention; the others compute their own."""


def make_states(texts=5, heads=3, length=7, size=4, dtype=torch.float32):
    torch.manual_seed(0)
    states = [torch.randn(texts, heads, length, size, dtype=dtype, requires_grad=True) for _ in range(3)]
    mask = torch.ones(texts, 1, length, length, dtype=torch.bool)
    mask[1, ..., 4:] = False
    mask[3, ..., 1:] = False
    return states, mask


def attend(query, key, value, mask, rate, scale):
    bias = None if mask is None else hide(mask, query.dtype)
    return Attention.apply(query, key, value, bias, find_threshold(rate), scale)


def attend_plainly(query, key, value, mask, rate, scale, size):
    """The same with one matrix of weights for everything, and the masks of `attend` drawn part by part."""
    scores = query @ key.transpose(2, 3) * scale
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
    if rate:
        threshold = find_threshold(rate)
        parts = [draw_mask(part.shape, threshold, part.dtype) for part in weights.flatten(0, 1).split(size)]
        weights = weights * -torch.cat(parts).view_as(weights) / (1 - threshold / 65_536)
    return weights @ value


SIZES = {1: 1, 49 * 2: 1, 3 * 49 * 2: 6, 10**9: 15}
"""Most scores in a part, and how many of the fifteen texts and heads that is: heads of one text, or whole texts."""


@pytest.mark.parametrize("most", SIZES)
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("queries", [1, 7])
def test_outputs_and_gradients_are_those_of_plain_attention(rate, most, queries, monkeypatch):
    monkeypatch.setattr(attention, "SCORES_PER_PART", most * queries // 7 or 1)
    states, mask = make_states(dtype=torch.float64)
    found = []
    for way in (attend, lambda *arguments: attend_plainly(*arguments, SIZES[most])):
        torch.manual_seed(1)
        out = way(states[0][:, :, :queries], *states[1:], mask[:, :, :queries], rate, 0.3)
        gradients = torch.autograd.grad((out * torch.arange(out.numel()).reshape(out.shape)).sum(), states)
        found.append((out, *gradients))
    for ours, plain in zip(*found, strict=True):
        assert torch.allclose(ours, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("factor", [30.0, 300.0])
def test_large_scores_and_small_rows_are_raised_as_softmax_does(factor, monkeypatch):
    states, mask = make_states(dtype=torch.float64)
    with torch.no_grad():
        states[0].mul_(factor)
        states[0][0] -= 50 * factor  # rows whose every score is far below zero
        states[1][0].abs_()
    calls = []
    plain = torch.softmax
    monkeypatch.setattr(torch, "softmax", lambda *a, **k: calls.append(0) or plain(*a, **k))
    out = attend(*states, mask, 0.0, 1.0)
    gradients = torch.autograd.grad(out.square().sum(), states)
    assert calls, "plain softmax was to be needed"
    expected = attend_plainly(*states, mask, 0.0, 1.0, 15)
    assert torch.allclose(out, expected, rtol=1e-9, atol=1e-9)
    for ours, other in zip(gradients, torch.autograd.grad(expected.square().sum(), states), strict=True):
        assert torch.allclose(ours, other, rtol=1e-6, atol=1e-9)


def test_a_mask_for_all_texts_and_none_are_taken():
    states, mask = make_states()
    one = mask[1:2]
    assert torch.equal(attend(*states, one, 0.0, 0.3), attend(*states, one.expand(5, 1, 7, 7), 0.0, 0.3))
    assert torch.equal(attend(*states, None, 0.0, 0.3), attend(*states, torch.ones_like(mask), 0.0, 0.3))


def test_a_query_that_may_look_at_nothing_gives_finite_numbers():
    states, mask = make_states()
    mask[2] = False
    out = attend(*states, mask, 0.2, 0.3)
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(each).all() for each in torch.autograd.grad(out.sum(), states))


@pytest.mark.parametrize("family", FAMILIES)
def test_families_that_ask_for_attention_get_it_while_they_train(family, tiny_encoder, monkeypatch):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_encoder(family))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    inputs = {"input_ids": torch.arange(5, 21).reshape(2, 8), "attention_mask": torch.ones(2, 8, dtype=torch.int64)}
    inputs["attention_mask"][1, 5:] = 0
    calls, attend_once = [], attention.attend

    def count(*arguments):
        calls.append(arguments[4])
        return attend_once(*arguments)

    monkeypatch.setattr(attention, "attend", count)
    name = model.config._attn_implementation
    expected = model.eval()(**inputs).logits
    weights = [p for p in model.parameters() if p.requires_grad]
    plain = torch.autograd.grad(expected.square().sum(), weights, allow_unused=True)
    with attend_in_parts(model):
        assert torch.equal(model.eval()(**inputs).logits, expected)
        assert not calls
        for module in model.modules():
            if "Attention" in type(module).__name__:
                for key in ("attention_dropout", "dropout"):
                    held = getattr(module, key, None)
                    if isinstance(held, nn.Dropout):
                        held.p = 1e-9  # on, and of no effect
                    elif isinstance(held, float):
                        setattr(module, key, 1e-9)
        found = model.train()(**inputs).logits
        ours = torch.autograd.grad(found.square().sum(), weights, allow_unused=True)
    assert model.config._attn_implementation == name
    assert (len(calls) == model.config.num_hidden_layers) == (family in CALLING), calls
    assert torch.allclose(found, expected, atol=1e-6)
    for left, right in zip(ours, plain, strict=True):
        assert (left is None) == (right is None)
        assert left is None or torch.allclose(left, right, atol=1e-5)
