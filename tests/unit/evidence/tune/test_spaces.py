import json
import random

import pytest

from nlp_transfer.errors import RecipeError
from nlp_transfer.evidence.tune.runner import change_recipe
from nlp_transfer.evidence.tune.spaces import SPACES, Knob, build_space, list_first_tries, read_key
from nlp_transfer.recipe.fields import get_annotation
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.methods.table import METHODS
from nlp_transfer.recipe.schema import STRATEGY_CONFIGS

STRATEGIES = {
    "full": {"kind": "full"},
    "layerwise": {"kind": "layerwise"},
    "frozen": {"kind": "frozen"},
    "features": {"kind": "features"},
    "contrastive": {"kind": "few_shot"},
    "cloze": {"kind": "few_shot", "method": "cloze"},
    "prototypes": {"kind": "few_shot", "method": "prototypes"},
    **{name: {"kind": "lora", "variant": name} for name in ("lora", "dora", "adalora", "vera", "ia3", "fourierft")},
    **{name: {"kind": "lora", "variant": name} for name in ("oft", "loha", "lokr", "miss")},
    "adapters": {"kind": "adapters"},
    "prompts": {"kind": "prompts"},
    "distill": {"kind": "distill", "teacher": "teacher"},
}


def draw(dimension, generator):
    if dimension.choices:
        return generator.choice(dimension.choices)
    return dimension.clip(dimension.low * (dimension.high / dimension.low) ** generator.random())


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_whatever_is_drawn_from_a_space_is_a_valid_recipe(name, kind):
    recipe = load_recipe({"task": {"kind": kind}, "strategy": STRATEGIES[name]})
    space, generator = build_space(recipe), random.Random(0)
    drawn = [{dimension.key: draw(dimension, generator) for dimension in space} for _ in range(20)]
    changed = [change_recipe(recipe, changes) for changes in drawn]
    assert len({recipe.model_dump_json() for recipe in changed}) > 2
    for changes, found in zip(drawn, changed, strict=True):
        for key, value in changes.items():
            section, key_name = key.split(".")
            assert getattr(getattr(found, section), key_name) == value


def find_foreign_keys(spaces):
    """Keys of a table of spaces that no recipe has, and how many keys were looked at."""
    knobs = [knob for knobs in spaces.values() for knob in knobs]
    return [knob.key for knob in knobs if get_annotation(*knob.key.split(".")) is None], len(knobs)


def test_every_strategy_has_a_space_and_every_key_is_a_recipe_s():
    assert {place.partition("/")[0] for place in SPACES} == set(STRATEGY_CONFIGS)
    foreign, num_keys = find_foreign_keys(SPACES)
    assert foreign == []
    assert num_keys > 50
    assert find_foreign_keys({"full": (Knob("training.learning_rat", reach=2.0),)})[0] == ["training.learning_rat"]


def test_a_space_holds_the_recipe_s_own_values_and_tries_them_first():
    recipe = load_recipe(
        {"strategy": {"kind": "lora", "rank": 5}, "encoder": {"dropout": 0.15}, "training": {"batch_size": 7}}
    )
    space = build_space(recipe)
    first = list_first_tries(space)
    assert len(first) == 3
    usual = {dimension.key: dimension.usual for dimension in space}
    assert usual["strategy.rank"] == 5
    assert usual["encoder.dropout"] == 0.15
    assert usual["training.batch_size"] == 7
    for dimension in space:
        if dimension.choices:
            assert dimension.usual in dimension.choices
        else:
            assert dimension.low <= dimension.usual <= dimension.high
    assert first[0] == usual
    assert [tried["training.learning_rate"] for tried in first] == [1e-3, 2e-3, 5e-4]


def test_a_rate_far_from_the_strategy_s_own_can_be_mended():
    recipe = load_recipe({"training": {"learning_rate": 1e-8}})
    rate = next(dimension for dimension in build_space(recipe) if dimension.key == "training.learning_rate")
    assert rate.low < 1e-8
    assert rate.high == 5e-5


def test_keys_that_say_nothing_in_a_recipe_are_left_out():
    plain = {dimension.key: dimension for dimension in build_space(load_recipe({}))}
    assert {"training.epochs", "training.label_smoothing", "strategy.l2_sp", "training.head_learning_rate"} <= {*plain}
    # A recipe that is silent about it leaves the encoder's own rate, which is one of those tried.
    assert plain["encoder.dropout"].choices == (None, 0.0, 0.1, 0.2)
    assert plain["encoder.dropout"].usual is None
    steps = {dimension.key for dimension in build_space(load_recipe({"training": {"max_steps": 5}}))}
    assert "training.epochs" not in steps
    focal = {dimension.key for dimension in build_space(load_recipe({"training": {"focal_gamma": 2.0}}))}
    assert "training.label_smoothing" not in focal
    small = build_space(load_recipe({"training": {"batch_size": 32, "microbatch_size": 32}}))
    assert next(each for each in small if each.key == "training.batch_size").choices == (32, 64)


def test_layers_that_the_encoder_lacks_are_not_tried():
    recipe = load_recipe({"strategy": {"kind": "features"}})

    def layers(num_layers):
        return next(
            each for each in build_space(recipe, num_layers=num_layers) if each.key == "strategy.layers"
        ).choices

    assert [-1, -2, -3, -4] in layers(6)
    assert sorted(map(json.dumps, layers(2))) == ["[-1, -2]", "[-1]", "[-2]"]


def test_a_recipe_with_nothing_to_search_is_refused():
    with pytest.raises(RecipeError, match="zero_shot trains nothing"):
        build_space(load_recipe({"strategy": {"kind": "zero_shot"}}))


@pytest.mark.parametrize("kind", METHODS)
def test_what_a_method_may_change_is_searched_beside_the_strategy(kind):
    texts = {"path": "a.csv", "unlabelled": "b.txt"} if METHODS[kind].needs_texts else {}
    recipe = load_recipe({"strategy": {"kind": "lora"}, "methods": [kind], "data": texts})
    space, generator = build_space(recipe), random.Random(0)
    own = [dimension for dimension in space if dimension.key.startswith(f"methods.{kind}.")]
    assert own, "a method has something to search"
    assert len(space) - len(own) == len(build_space(load_recipe({"strategy": {"kind": "lora"}, "data": texts})))
    for _ in range(20):
        changes = {dimension.key: draw(dimension, generator) for dimension in space}
        changed = change_recipe(recipe, changes)
        assert all(read_key(changed, key) == value for key, value in changes.items())
