import pytest
from torch import nn

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import RecipeError
from nlp_transfer.models.encoder import load_encoder
from nlp_transfer.models.heads import find_head_modules
from nlp_transfer.models.layers import ATTENTION_TARGETS, find_lora_targets, list_linear_layers
from nlp_transfer.recipe.schema import EncoderConfig
from tests.tiny import FAMILIES

LABELS = LabelSpace("classification", ("a", "b"))
NUM_LAYERS = 2
SHARED = ("albert",)
FUSED = ("modernbert",)


@pytest.fixture
def model(family, tiny_encoder):
    return load_encoder(EncoderConfig(name=str(tiny_encoder(family))), LABELS, seed=0).model


def test_every_family_has_targets_of_its_own(tiny_encoder):
    types = set()
    for family in FAMILIES:
        loaded = load_encoder(EncoderConfig(name=str(tiny_encoder(family))), LABELS, seed=0)
        types.add(loaded.family)
    assert len(types) >= 9
    assert types <= set(ATTENTION_TARGETS)


def test_targets_are_query_and_value_of_every_layer(model, family):
    found = find_lora_targets(model, None)
    layers = 1 if family in SHARED else NUM_LAYERS
    assert len(found) == layers * (1 if family in FUSED else 2)
    assert len(set(found)) == len(found)
    for name in found:
        assert isinstance(model.get_submodule(name), nn.Linear)
        assert name.startswith(f"{model.base_model_prefix}.")
        assert "attn" in name or "attention" in name


def test_all_linear_is_every_linear_layer_of_the_encoder_and_none_of_the_head(model):
    heads = tuple(f"{name}." for name in find_head_modules(model))
    wanted = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not f"{name}.".startswith(heads)
    ]
    found = find_lora_targets(model, ["all-linear"])
    assert found == wanted
    assert len(found) > len(find_lora_targets(model, None))


def test_a_layer_that_is_not_there_is_refused_with_those_that_are(model):
    with pytest.raises(RecipeError, match=r"strategy\.targets: 'nothing'") as caught:
        find_lora_targets(model, ["nothing"])
    assert all(name in str(caught.value) for name in list_linear_layers(model))


def test_a_name_that_only_the_head_has_is_refused(tiny_encoder):
    model = load_encoder(EncoderConfig(name=str(tiny_encoder("distilbert"))), LABELS, seed=0).model
    with pytest.raises(RecipeError, match="pre_classifier"):
        find_lora_targets(model, ["pre_classifier"])


def test_names_given_are_used(tiny_encoder):
    model = load_encoder(EncoderConfig(name=str(tiny_encoder("bert"))), LABELS, seed=0).model
    found = find_lora_targets(model, ["key"])
    assert [name.rpartition(".")[2] for name in found] == ["key"] * NUM_LAYERS
    # `dense` also names the pooler's layer, which belongs to the head.
    assert not [name for name in find_lora_targets(model, ["dense"]) if "pooler" in name]
