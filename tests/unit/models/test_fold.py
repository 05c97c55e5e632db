"""A linear head written into a family's own gives the same logits."""

import pytest
import torch
from torch import nn

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.models.encoder import load_encoder, load_tokenizer
from nlp_transfer.models.fold import can_fold, fold_linear
from nlp_transfer.models.vector_classifier import read_layers
from nlp_transfer.recipe.schema import EncoderConfig
from tests.tiny import FAMILIES, make_texts

FOLDED = {"distilbert", "electra", "deberta-v2", "deberta-v3"}


def load(folder, count):
    labels = LabelSpace("classification", tuple(f"class {index}" for index in range(count)))
    return load_encoder(EncoderConfig(name=str(folder)), labels, seed=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folded_head_gives_the_logits_of_the_linear_one(family, tiny_encoder):
    loaded = load(tiny_encoder(family), 4)
    # In float64, where what is left is the fold and not the order of a float32 sum, which differs between processors.
    model = loaded.model.eval().double()
    assert can_fold(model, 4) == (family in FOLDED)
    if family not in FOLDED:
        return
    head = nn.Linear(32, 4).double()
    with torch.no_grad():
        head.weight.mul_(50)
        inputs = load_tokenizer(loaded.source)(make_texts(8), padding=True, return_tensors="pt")
        encoder = getattr(model, model.base_model_prefix)
        expected = head(read_layers(encoder, inputs, layers=[2], pooling="first")[0])
        assert expected.abs().max() > 5
        fold_linear(model, head)
        assert (model(**inputs).logits - expected).abs().max() < 1e-9


def test_more_classes_than_the_first_layer_has_room_for_are_not_folded(tiny_encoder):
    assert can_fold(load(tiny_encoder("distilbert"), 16).model, 16)
    assert not can_fold(load(tiny_encoder("distilbert"), 17).model, 17)
