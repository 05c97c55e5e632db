"""From names, files, mappings and recipes to checked recipes, and back."""

import subprocess
import sys
from pathlib import Path

import pytest

from nlp_transfer.errors import RecipeError
from nlp_transfer.recipe import Recipe, dump_yaml, export_json_schema, list_dropped, load_recipe, recipe_to_yaml
from nlp_transfer.recipe.schema import LEARNING_RATES, STRATEGY_CONFIGS

KINDS = ", ".join(f'"{kind}"' for kind in STRATEGY_CONFIGS)


def write(folder: Path, content: str | bytes, name: str = "my.yaml") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_shipped_name_a_file_a_mapping_and_a_recipe_give_the_same_recipe(tmp_path):
    content = {"data": {"path": "a.csv"}, "strategy": {"kind": "lora", "rank": 4}, "report": {"output_dir": "out"}}
    mapping = load_recipe(content)
    file = write(tmp_path, dump_yaml(content))
    assert mapping == load_recipe(file) == load_recipe(str(file)) == load_recipe(mapping)
    assert load_recipe("sentiment/lora") == load_recipe("sentiment/lora.yaml")
    assert mapping.strategy.kind == "lora"


def test_scientific_numbers_are_numbers_and_no_is_text(tmp_path):
    recipe = load_recipe(write(tmp_path, "training: {learning_rate: 2e-5}\ntask: {labels: [no, yes]}\n"))
    assert recipe.training.learning_rate == 2e-5
    assert recipe.task.labels == ["no", "yes"]


def test_the_output_folder_is_named_after_the_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = Path(__file__).parents[3]
    write(tmp_path, "description: x")
    assert load_recipe("sentiment/lora").report.output_dir == "runs/sentiment-lora"
    assert load_recipe(root / "recipes" / "sentiment" / "lora.yaml").report.output_dir == "runs/sentiment-lora"
    assert load_recipe("my.yaml").report.output_dir == "runs/my"
    assert load_recipe("my.yaml", ["report.output_dir=there"]).report.output_dir == "there"
    assert load_recipe({}).report.output_dir == Recipe().report.output_dir


def test_a_local_file_goes_before_a_shipped_recipe_of_that_file_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "description: local", "quickstart.yaml")
    assert load_recipe("quickstart.yaml").description == "local"
    assert load_recipe("quickstart").description != "local"


def test_a_recipe_for_a_hub_set_runs_on_a_local_copy():
    recipe = load_recipe("question/lora", ["data.path=../trec", "data.limit=100"])
    assert recipe.data.path == "../trec"
    assert recipe.data.label is None
    assert recipe.data.limit == 100
    assert load_recipe("question/lora").data.label is not None


def test_a_table_in_place_of_a_recipe_is_told(tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("text,label\na: b,c\n")
    with pytest.raises(RecipeError, match=r"got a table\. Name a recipe, and pass the table as data\.path="):
        load_recipe(str(table))


def test_another_strategy_takes_its_own_rate():
    for kind, rate in LEARNING_RATES.items():
        needed = ["strategy.teacher=runs/teacher"] if kind == "distill" else []
        recipe = load_recipe("sentiment/imdb", [f"strategy.kind={kind}", *needed])
        assert (recipe.strategy.kind, recipe.training.learning_rate) == (kind, rate)
    assert load_recipe("intent/lora", ["strategy.kind=full"]).training.learning_rate == LEARNING_RATES["full"]
    # Only what is fitted without gradients has no rate.
    assert set(STRATEGY_CONFIGS) - set(LEARNING_RATES) == {"features", "zero_shot"}


def test_what_an_override_takes_along_is_listed(tmp_path):
    path = write(tmp_path, "data: {path: old.csv, text: body, label: topic}\nstrategy: {kind: lora, rank: 4}\n")
    assert list_dropped(path, ["data.path=new.csv", "training.epochs=2"]) == [
        "data.path=new.csv: dropped data.text=body, data.label=topic of the recipe, which were written for other data; "
        "name them again to keep them."
    ]
    assert list_dropped(path, {"data.path": "new.csv"}) == list_dropped(str(path), ["data.path=new.csv"])
    assert list_dropped(path, ["training.epochs=2", "nonsense"]) == []
    assert list_dropped(write(tmp_path, "- 1"), ["data.path=new.csv"]) == []


def test_a_loaded_recipe_loses_only_what_differs_from_the_defaults():
    recipe = load_recipe({"data": {"path": "old.csv"}, "strategy": {"kind": "lora"}})
    assert list_dropped(recipe, ["strategy.kind=full", "task.kind=ordinal", "data.path=new.csv"]) == []
    recipe = load_recipe(recipe, ["training.learning_rate=0.003"])
    (note,) = list_dropped(recipe, ["strategy.kind=full"])
    assert note.startswith("strategy.kind=full: dropped training.learning_rate=0.003 of the recipe, which was written")


def test_overrides_as_texts_and_as_a_mapping_agree():
    texts = ["training.epochs=2", "training.seeds=[0, 1]", "data.text=5", "strategy.kind=lora", "strategy.rank=16"]
    mapping = {"training.epochs": 2, "training.seeds": [0, 1], "data.text": "5"}
    mapping |= {"strategy.kind": "lora", "strategy.rank": 16}
    assert load_recipe("quickstart", texts) == load_recipe("quickstart", mapping)
    assert load_recipe("quickstart", texts) != load_recipe("quickstart")


def test_nothing_that_is_passed_in_is_changed():
    content = {"data": {"path": "x", "text": "t"}, "training": {"seeds": [0]}}
    overrides = {"data.path": "y", "training.seeds": [1]}
    load_recipe(content, overrides)
    assert content == {"data": {"path": "x", "text": "t"}, "training": {"seeds": [0]}}
    assert overrides == {"data.path": "y", "training.seeds": [1]}


def test_all_problems_of_overrides_fields_and_file_come_in_one_error(tmp_path):
    path = write(tmp_path, "training: {epochs: two, learning_rat: 1}\nstrategy: {kind: lra}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, ["nonsense", "training.batch_size=0"])
    assert caught.value.problems == (
        'override "nonsense": expected key=value, such as training.epochs=2.',
        f'strategy.kind: expected one of {KINDS}, got the text "lra". Did you mean "lora"?',
        'training.epochs: expected a number, got the text "two".',
        "training.batch_size: expected a number above 0, got the number 0.",
        'training.learning_rat: unknown key. Did you mean "learning_rate"?',
    )
    assert str(caught.value).startswith(f"{path}: 5 problems:")


def test_bad_overrides_and_conflicts_come_together():
    with pytest.raises(RecipeError) as caught:
        load_recipe({"training": {"select_by": "mse"}}, ["training=3", "training.microbatch_size=64"])
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "training",
        "training.microbatch_size",
        "training.select_by",
    ]


def test_mistakes_and_conflicts_come_together():
    content = {
        "training": {"epochz": 2, "batch_size": 8, "microbatch_size": 16},
        "data": {"text": "review", "text_b": "review"},
    }
    with pytest.raises(RecipeError) as caught:
        load_recipe(content)
    assert caught.value.problems == (
        'training.epochz: unknown key. Did you mean "epochs"?',
        'data.text_b: expected another column than data.text, got "review" for both.',
        "training.microbatch_size: expected at most training.batch_size = 8, got 16.",
    )
    with pytest.raises(RecipeError, match="6 problems") as caught:
        load_recipe({**content, "strategy": {"kind": "lorra", "rank": 4}, "methods": 3, 7: 1})
    assert len(caught.value.problems) == 6


BAD_FILES = [
    (b"", "got an empty file"),
    (b"# only a comment", "got an empty file"),
    (b"- 1", "got a list"),
    (b"text", 'got the text "text"'),
    (b"5", "got the number 5"),
    (b"a: 1\nb: caf\xe9", "line 2: expected UTF-8 text, got the byte 0xe9"),
    ("a: 1".encode("utf-16"), "line 1: expected UTF-8 text, got the byte 0xff"),
    (b"a: \x00", "line 1, column 4: a null byte"),
    (b"a: [1\nb: 2", "line 2, column 2"),
    (b"training: {epochs: 1, epochs: 2}", 'the key "epochs" occurs twice here'),
    (b"data: !!python/name:os.system {}", "the tag"),
    (b"a" * 4_100_000, "Is this a data file?"),
]


@pytest.mark.parametrize(("content", "part"), BAD_FILES, ids=[part for _, part in BAD_FILES])
def test_a_file_that_is_no_recipe_is_refused_by_name(tmp_path, content, part):
    path = write(tmp_path, content)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert part in str(caught.value)


def test_a_source_that_is_no_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.yaml").mkdir()
    sources = [
        ("folder.yaml", "got a folder"),
        ("none.yaml", "no such file"),
        (Path("sentiment/lora"), "no such file"),
        ("../pyproject", "no such file"),
        ("~nobody-of-that-name/x.yaml", "no such file"),
        ("/dev/null", "got a device or pipe"),
        ("a\0b.yaml", "cannot be opened"),
        ("x" * 5000 + ".yaml", "cannot be opened"),
        ("x" * 5000, "no shipped recipe and no file"),
        ("", "got an empty text"),
        (5, "expected a name, a file, a mapping or a Recipe, got the number 5"),
        (None, "got nothing"),
    ]
    for source, part in sources:
        with pytest.raises(RecipeError) as caught:
            load_recipe(source)
        assert part in str(caught.value), source
    assert len(sources) == 12


def test_a_users_own_file_loads_even_where_the_shipped_recipes_are_gone(tmp_path, monkeypatch):
    monkeypatch.setattr("nlp_transfer.recipe.shipped.__file__", str(tmp_path / "a" / "b" / "c.py"))
    assert load_recipe(write(tmp_path, "description: mine")).description == "mine"


FULL = {
    "description": "no: 2e-5 # odd",
    "task": {"kind": "multi_label", "labels": ["no", "1.0", "a: b"]},
    "data": {"path": "null", "label": ["x", "y"], "splits": {"test": "on"}},
    "training": {"learning_rate": 1e-7, "seeds": [0, 4294967295], "max_grad_norm": None, "trackers": ["wandb"]},
    "report": {"title": "Zürich\nzwei \u2028 Zeilen", "output_dir": "~"},
}


def test_a_resolved_recipe_is_complete_and_loads_back_equal(tmp_path):
    for source in ({}, FULL, "sentiment/lora"):
        recipe = load_recipe(source)
        written = recipe_to_yaml(recipe)
        assert load_recipe(write(tmp_path, written)) == recipe
    assert "learning_rate: 0.001" in written
    assert "class_weights: null" in written


def test_the_json_schema_describes_every_key_and_fits_a_recipe():
    schema = export_json_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    assert set(schema["properties"]) == set(Recipe.model_fields)
    described = [
        bool(field.get("description")) or name == "kind"
        for model in schema["$defs"].values()
        for name, field in model["properties"].items()
    ]
    assert len(described) > 60
    assert all(described)
    assert all(model["additionalProperties"] is False for model in schema["$defs"].values())


def test_loading_a_recipe_imports_no_heavy_library():
    code = (
        "import sys; from nlp_transfer.recipe import load_recipe; load_recipe('quickstart');"
        "print(sorted({'torch', 'transformers', 'datasets', 'numpy', 'pandas', 'yaml', 'pydantic'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['pydantic', 'yaml']"


def test_the_guard_brings_the_control_that_it_needs():
    for control in ({}, {"control": False}):
        evaluation = load_recipe({"evaluation": {"guard": True, **control}}).evaluation
        assert (evaluation.guard, evaluation.control) == (True, True)
    assert not load_recipe({}, ["evaluation.control=false"]).evaluation.control
