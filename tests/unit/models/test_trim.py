"""What the last layer leaves out is not missed: same logits, same gradients, on every family."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.models.encoder import load_encoder
from nlp_transfer.models.layers import find_parts
from nlp_transfer.models.trim import LAST_MEETINGS, read_first_token
from nlp_transfer.recipe.schema import EncoderConfig
from tests.tiny import FAMILIES, make_texts

LEFT_AS_THEY_ARE = ("albert", "modernbert")


@pytest.fixture
def case(family, tiny_encoder):
    folder = tiny_encoder(family)
    labels = LabelSpace("classification", ("a", "b", "c"))
    model = load_encoder(EncoderConfig(name=str(folder), dropout=0.0), labels, seed=0).model
    inputs = dict(AutoTokenizer.from_pretrained(folder)(make_texts(6, seed=3), padding=True, return_tensors="pt"))
    assert inputs["attention_mask"].min() == 0
    return model, inputs


def step(model, inputs):
    model.zero_grad()
    logits = model(**inputs).logits
    cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1, 2])).backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def watch_last_layer(model, seen):
    last = model.get_submodule(find_parts(model).layers[-1])
    return last.register_forward_hook(lambda *all: seen.append(all[2][0] if isinstance(all[2], tuple) else all[2]))


def test_logits_and_gradients_are_those_of_the_whole_layer(case, family):
    model, inputs = case
    model.train()
    logits, gradients = step(model, inputs)
    seen = []
    handle = watch_last_layer(model, seen)
    with read_first_token(model):
        found, others = step(model, inputs)
    handle.remove()
    width = inputs["input_ids"].shape[1]
    assert seen[0].shape[1] == (width if family in LEFT_AS_THEY_ARE else 1)
    assert torch.allclose(found, logits, rtol=0, atol=1e-6)
    assert others.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(others[name], gradient, rtol=1e-4, atol=1e-6), name


def test_nothing_is_left_out_in_evaluation_and_nothing_stays_behind(case):
    model, inputs = case
    with torch.no_grad():
        expected = model.eval()(**inputs).logits
        with read_first_token(model):
            assert torch.equal(model(**inputs).logits, expected)
            model.train()
            assert torch.equal(model(**inputs).logits, expected)
    seen = []
    handle = watch_last_layer(model, seen)
    step(model, inputs)
    handle.remove()
    assert seen[0].shape[1] == inputs["input_ids"].shape[1]


def test_every_family_is_in_the_table_or_has_a_reason():
    types = {"deberta-v3": "deberta-v2"}
    assert {types.get(each, each) for each in FAMILIES} == (set(LAST_MEETINGS) - {"camembert"}) | set(LEFT_AS_THEY_ARE)
