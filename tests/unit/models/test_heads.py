import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.models.encoder import load_encoder, load_tokenizer
from nlp_transfer.models.heads import (
    can_fold,
    find_head_modules,
    find_new_modules,
    fold_linear,
    list_head_parameters,
    reinitialize_head,
)
from nlp_transfer.models.vector_classifier import read_layers
from nlp_transfer.recipe.schema import EncoderConfig
from tests.tiny import FAMILIES, make_texts

LABELS = LabelSpace("classification", ("a", "b", "c"))

HEADS = {
    "bert": ["bert.pooler", "classifier"],
    "roberta": ["classifier"],
    "xlm-roberta": ["classifier"],
    "distilbert": ["pre_classifier", "classifier"],
    "albert": ["albert.pooler", "classifier"],
    "electra": ["classifier"],
    "deberta-v2": ["pooler", "classifier"],
    "deberta-v3": ["pooler", "classifier"],
    "mpnet": ["classifier"],
    "modernbert": ["head", "classifier"],
}
"""Head of every family, read from its class by hand."""


def load(folder, seed=0):
    return load_encoder(EncoderConfig(name=str(folder)), LABELS, seed=seed)


def test_the_head_of_every_family_is_known(family, tiny_encoder):
    assert set(HEADS) == set(FAMILIES)
    model = load(tiny_encoder(family)).model
    assert find_head_modules(model) == HEADS[family]
    names = list_head_parameters(model)
    assert names
    assert all(name.startswith(tuple(f"{head}." for head in HEADS[family])) for name in names)


def test_head_and_encoder_are_all_there_is(family, tiny_encoder):
    model = load(tiny_encoder(family)).model
    head = set(list_head_parameters(model))
    rest = {name for name, _ in model.named_parameters()} - head
    assert rest
    assert all(name.startswith(f"{model.base_model_prefix}.") for name in rest)


def test_new_modules_cover_every_new_parameter_and_nothing_else(family, tiny_encoder):
    for checkpoint in ("base", "masked_lm"):
        loaded = load(tiny_encoder(family, checkpoint))
        found = find_new_modules(loaded.model, loaded.new_parameters)
        held = {f"{name}.{key}" for name in found for key, _ in loaded.model.get_submodule(name).named_parameters()}
        assert held == set(loaded.new_parameters)
        assert not [one for one in found for other in found if one.startswith(f"{other}.")]


def test_a_checkpoint_without_a_pooler_makes_the_pooler_new(tiny_encoder):
    new = {checkpoint: load(tiny_encoder("bert", checkpoint)).new_parameters for checkpoint in ("base", "masked_lm")}
    assert set(new["masked_lm"]) - set(new["base"]) == {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}


def test_a_module_that_is_new_in_part_is_not_taken_whole():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    assert find_new_modules(model, ["0.weight", "0.bias", "1.weight"]) == ["0"]
    assert find_new_modules(model, ["1.weight"]) == []
    assert find_new_modules(model, []) == []


def test_drawing_a_head_anew_draws_although_transformers_marks_loaded_weights(family, tiny_encoder, tmp_path):
    # A classifier that was saved and loaded: every tensor carries the mark that initialisers pass over.
    load(tiny_encoder(family)).model.save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    before = {name: value.clone() for name, value in model.named_parameters()}
    torch.manual_seed(7)
    drawn = reinitialize_head(model)
    outside = {name for name in list_head_parameters(model) if not name.startswith(f"{model.base_model_prefix}.")}
    assert set(drawn) == outside
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    # Biases and norms are drawn to the same constants; matrices never.
    assert changed == {name for name in drawn if before[name].ndim > 1}
    assert changed
    for name in changed:
        value = dict(model.named_parameters())[name]
        assert 0.2 * before[name].std() < value.std() < 5 * before[name].std()


def test_a_classifier_loses_its_head_and_only_that_whatever_its_size(family, tiny_encoder, tmp_path):
    first = load(tiny_encoder(family)).model
    first.save_pretrained(tmp_path)
    earlier = dict(first.named_parameters())
    for names in (("no", "yes"), ("a", "b", "c", "d")):
        loaded = load_encoder(EncoderConfig(name=str(tmp_path)), LabelSpace("classification", names), seed=3)
        outer = {n for n in list_head_parameters(loaded.model) if not n.startswith(f"{first.base_model_prefix}.")}
        assert set(loaded.new_parameters) == outer
        now = dict(loaded.model.named_parameters())
        kept = [name for name in now if name not in outer]
        assert len(kept) > 10
        assert all(torch.equal(now[name], earlier[name]) for name in kept)
        assert not any(
            now[n].shape == earlier[n].shape and torch.equal(now[n], earlier[n])
            for n in outer
            if n.endswith("weight") and now[n].ndim > 1
        )


def test_drawing_a_head_anew_depends_on_the_seed_alone(tiny_encoder):
    model = load(tiny_encoder("roberta")).model
    drawn = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        reinitialize_head(model)
        drawn.append(model.classifier.dense.weight.clone())
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_the_pooler_transfers_and_stays(family, tiny_encoder):
    model = load(tiny_encoder(family)).model
    pooler = {name: value.clone() for name, value in model.named_parameters() if ".pooler" in name}
    assert pooler
    reinitialize_head(model)
    assert all(torch.equal(dict(model.named_parameters())[name], value) for name, value in pooler.items())


FOLDED = {"distilbert", "electra", "deberta-v2", "deberta-v3"}


def load_classes(folder, count):
    labels = LabelSpace("classification", tuple(f"class {index}" for index in range(count)))
    return load_encoder(EncoderConfig(name=str(folder)), labels, seed=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folded_head_gives_the_logits_of_the_linear_one(family, tiny_encoder):
    loaded = load_classes(tiny_encoder(family), 4)
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
    assert can_fold(load_classes(tiny_encoder("distilbert"), 16).model, 16)
    assert not can_fold(load_classes(tiny_encoder("distilbert"), 17).model, 17)
