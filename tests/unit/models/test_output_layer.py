"""The layer that gives a regression's number is found in every family, and holds the unit of the target."""

import copy

import pytest
import torch
from peft import LoraConfig, TaskType
from torch import nn
from transformers import GPT2Config, GPT2ForSequenceClassification

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import EncoderError
from nlp_transfer.models.custom import CustomClassifier
from nlp_transfer.models.encoder import load_encoder, load_tokenizer
from nlp_transfer.models.heads import find_head_modules
from nlp_transfer.models.output_layer import find_output_layer, rescale_output
from nlp_transfer.recipe.schema import EncoderConfig
from nlp_transfer.strategies.wrapping import wrap_encoder
from tests.tiny import FAMILIES, make_texts

SPACE = LabelSpace("regression", ("price",))


def load(folder):
    return load_encoder(EncoderConfig(name=str(folder)), SPACE, seed=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_its_number_in_the_unit_that_is_written_into_it(family, tiny_encoder):
    loaded = load(tiny_encoder(family))
    # In float64, so that what differs is the unit and not a rounding.
    model = loaded.model.eval().double()
    inputs = load_tokenizer(loaded.source)(make_texts(6), padding=True, return_tensors="pt")
    with torch.no_grad():
        before = model(**inputs).logits
        rescale_output(model, 2e5, 1e5)
        after = model(**inputs).logits
    assert before.std() > 0
    assert (after - (before * 1e5 + 2e5)).abs().max() < 1e-6


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_of_a_wrapped_model_the_copy_that_is_saved_holds_the_unit(family, tiny_encoder):
    loaded = load(tiny_encoder(family))
    heads = [name for name in find_head_modules(loaded.model) if "." not in name]
    settings = LoraConfig(task_type=TaskType.SEQ_CLS, target_modules=["query"], modules_to_save=heads)
    wrapped = wrap_encoder(loaded.model, settings)
    before = copy.deepcopy(find_output_layer(wrapped.get_base_model()))
    rescale_output(wrapped, 3.0, 2.0)
    saved = {name: value for name, value in wrapped.named_parameters() if ".modules_to_save." in name}
    last = [name for name, value in saved.items() if value.shape[0] == 1]
    assert len(last) == 2
    weight, bias = (saved[name] for name in sorted(last, key=lambda name: name.endswith("bias")))
    assert torch.equal(weight, before.weight * 2)
    assert torch.equal(bias, before.bias * 2 + 3)


def test_a_head_without_a_bias_is_refused():
    model = GPT2ForSequenceClassification(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=11, num_labels=1))
    with pytest.raises(EncoderError, match=r"one linear layer with a bias.*no bias in it"):
        find_output_layer(model)


def test_a_head_of_several_such_layers_is_refused(tiny_encoder):
    model = load(tiny_encoder("bert")).model
    model.classifier = nn.ModuleList([nn.Linear(32, 1), nn.Linear(32, 1)])
    with pytest.raises(EncoderError, match="2 such layers"):
        find_output_layer(model)


def test_a_form_that_gives_no_numbers_says_so(tiny_encoder):
    class Named(CustomClassifier):
        kind = "named"

        def compute(self, inputs):
            raise AssertionError

    model = Named(load(tiny_encoder("bert")).model, SPACE, {})
    with pytest.raises(NotImplementedError, match="Named gives no numbers"):
        rescale_output(model, 0.0, 1.0)
