"""Every YAML under recipes/, found recursively, is a recipe that loads and says what it is for."""

from pathlib import Path

import pytest

from nlp_transfer.recipe import list_shipped, load_recipe, parse_yaml, recipe_to_yaml
from nlp_transfer.recipe.schema import LEARNING_RATES, DataConfig

ROOT = Path(__file__).parents[2] / "recipes"
PATHS = sorted(path for path in ROOT.rglob("*.yaml") if path.parent.name != "benchmarks")
NAMES = [path.relative_to(ROOT).with_suffix("").as_posix() for path in PATHS]
FOLDERS = ("emotion", "intent", "nli", "pair", "question", "sentiment", "topic", "toxicity")
SOURCE_KEYS = ("name", "revision", "text", "text_b", "label", "id", "splits", "domain", "source", "target")


def test_every_folder_has_the_three_strategies_and_all_recipes_are_listed():
    wanted = {"quickstart", *(f"{folder}/{kind}" for folder in FOLDERS for kind in ("full", "lora", "frozen"))}
    assert wanted <= set(NAMES)
    assert list(list_shipped()) == sorted(NAMES)
    assert len(NAMES) >= 28


def test_no_recipe_has_another_suffix():
    assert list(ROOT.rglob("*.yml")) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_loads_by_name_and_by_file_and_survives_being_resolved(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe == load_recipe(ROOT / f"{name}.yaml")
    resolved = tmp_path / "recipe.yaml"
    resolved.write_text(recipe_to_yaml(recipe), encoding="utf-8")
    assert load_recipe(resolved) == recipe
    assert recipe.report.output_dir == f"runs/{name.replace('/', '-')}"


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_in_one_line_what_it_is_for(name):
    description = list_shipped()[name]
    assert 20 <= len(description) <= 100
    assert description.endswith(".")
    assert description.isprintable()
    assert list(list_shipped().values()).count(description) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_states_its_choices(name):
    content = parse_yaml((ROOT / f"{name}.yaml").read_text(encoding="utf-8"))
    assert content["encoder"]["name"]
    assert content["data"]["path"]
    kind = name.split("/")[-1]
    if kind in ("full", "lora", "frozen"):
        assert content["strategy"]["kind"] == kind
    if content["strategy"]["kind"] in LEARNING_RATES:
        assert {"epochs", "learning_rate", "batch_size"} <= set(content["training"])


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_takes_a_local_folder_in_place_of_its_data(name):
    # Domains are those of the recipe's own data; with other data, texts without labels are named.
    further = ["data.unlabelled=TEXTS"] if name.startswith("domain/") else []
    data = load_recipe(name, ["data.path=FOLDER", *further]).data
    assert data.path == "FOLDER"
    defaults = DataConfig()
    kept = [key for key in SOURCE_KEYS if getattr(data, key) != getattr(defaults, key)]
    assert kept == []


def test_hub_recipes_name_an_owner_and_nothing_runs_foreign_code():
    paths = {name: load_recipe(name).data.path for name in NAMES}
    bundled = [name for name, path in paths.items() if path == "reviews"]
    domains = [f"domain/{name}" for name in ("coral", "dann", "mixed_mlm", "mlm", "self_training")]
    assert bundled == [*domains, "quickstart", "sentiment/r_drop", "sentiment/reviews"]
    assert all(path.count("/") == 1 for name, path in paths.items() if name not in bundled)
    assert not any(load_recipe(name).encoder.trust_remote_code for name in NAMES)
