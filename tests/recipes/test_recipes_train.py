"""Every YAML under recipes/ trains two steps, reports, and leaves an artefact that predicts."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from nlp_transfer.benchmarks.suite import list_suites
from nlp_transfer.classifier import Classifier
from nlp_transfer.publishing.report.result import Report
from nlp_transfer.recipe import list_shipped, load_recipe
from nlp_transfer.runs.pipeline import run
from tests.cards import check_card
from tests.tiny import HEADS, make_splits

ROOT = Path(__file__).parents[2] / "recipes"
PATHS = sorted(path for path in ROOT.rglob("*.yaml") if path.parent.name != "benchmarks")
NAMES = [path.relative_to(ROOT).with_suffix("").as_posix() for path in PATHS]
PAIR_FOLDERS = ("pair", "nli")
ROWS = {"train": 24, "validation": 12, "test": 12}

STABLE_KEYS = {
    "": {"version", "recipe", "environment", "data", "model", "training", "scores", "artifact"},
    "environment": {"versions", "device", "precision"},
    "data": {"rows", "label_counts", "truncated", "dropped", "leaked"},
    "model": {"encoder", "revision", "parameters", "trainable"},
    "training": {
        "steps",
        "seconds",
        "examples_per_second",
        "tokens_per_second",
        "padding_share",
        "peak_memory_bytes",
        "losses",
    },
}
"""Keys of report.json that DESIGN section 6 promises."""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[bool, Path]:
    """Folders of csv splits: single texts, and pairs."""
    folders = {}
    for is_pair in (False, True):
        folder = tmp_path_factory.mktemp("pairs" if is_pair else "texts")
        splits = make_splits(ROWS["train"], 3, pairs=is_pair, names=["low", "middle", "high"])
        columns = ["text", "text_b", "label"] if is_pair else ["text", "label"]
        for split, table in splits.tables.items():
            with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                for row in table:
                    row["label"] = splits.labels.names[row["label"]]
                    writer.writerow([row[column] for column in columns])
        folders[is_pair] = folder
    return folders


@pytest.fixture(scope="module")
def teacher(tiny_encoder, tmp_path_factory) -> Path:
    """A tiny classifier of the labels of ``data``."""
    folder = tmp_path_factory.mktemp("teacher") / "model"
    shutil.copytree(tiny_encoder("bert", "classifier"), folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = ("middle", "high", "low")
    assert len(names) == len(HEADS["classifier"])
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_every_yaml_is_a_shipped_recipe_and_is_counted():
    assert list(list_shipped()) == sorted(NAMES)
    assert len(NAMES) == len(list(ROOT.rglob("*.yaml"))) - len(list_suites()) >= 28
    assert sum(name.startswith(PAIR_FOLDERS) for name in NAMES) >= 7


LIKE_OTHERS = tuple(
    f"{folder}/{kind}"
    for folder in ("emotion", "intent", "nli", "pair", "question", "toxicity", "topic")
    for kind in ("full", "lora", "frozen", "adapters")
    if f"{folder}/{kind}" != "nli/full"
)
"""Recipes that differ from others in their data and numbers alone."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LIKE_OTHERS else []) for name in NAMES]
)
def test_a_recipe_trains_two_steps_and_leaves_what_it_promises(name, data, teacher, tiny_encoder, tmp_path):
    is_pair = name.startswith(PAIR_FOLDERS)
    overrides: dict[str, object] = {
        "encoder.name": str(tiny_encoder("bert")),
        "data.path": str(data[is_pair]),
        "training.max_steps": 2,
        "training.device": "cpu",
        "evaluation.resamples": 100,
    }
    if name.startswith("domain/"):
        # The domains of the recipe went with its data; texts without labels take their place.
        overrides["data.unlabelled"] = str(data[is_pair])
    recipe = load_recipe(name, overrides)
    if recipe.strategy.kind == "distill":
        overrides |= {"strategy.teacher": str(teacher), "strategy.keep_layers": 1}
    # The recipe's own columns belong to its own data set; with data.path they must have gone.
    report = run(load_recipe(name, overrides), output_dir=tmp_path / "run")

    folder = tmp_path / "run"
    record = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    for section, keys in STABLE_KEYS.items():
        assert keys <= set(record[section] if section else record), section
    assert record["data"]["rows"] == ROWS
    assert record["data"]["labels"] == ["high", "low", "middle"]
    is_fitted_apart = recipe.strategy.kind in ("features", "zero_shot")
    assert record["training"]["steps"] == (0 if is_fitted_apart else 2)
    assert record["artifact"] == "model"
    assert record["recipe"]["description"] == list_shipped()[name]
    wanted = load_recipe(name).evaluation.metrics
    for split in ("validation", "test"):
        assert list(record["scores"][split]) == wanted
        for metric, score in record["scores"][split].items():
            assert score["n"] == ROWS[split], metric
            assert {"value", "low", "high", "n"} == set(score)
            assert score["low"] <= score["high"]
    assert check_card((folder / "model" / "README.md").read_text(encoding="utf-8"))
    assert {"recipe.yaml", "report.html", "predictions.parquet", "model"} <= {path.name for path in folder.iterdir()}
    # A resolved recipe runs again to the same result, so it must be a recipe.
    assert load_recipe(folder / "recipe.yaml") == load_recipe(name, {**overrides, "report.output_dir": str(folder)})
    assert Report.load(folder).scores == report.scores

    classifier = Classifier.from_pretrained(folder)
    table = report.predictions
    test = table[table["split"] == "test"]
    assert len(table) == ROWS["validation"] + ROWS["test"]
    texts_b = test["text_b"].tolist() if is_pair else None
    assert classifier.predict(test["text"].tolist(), texts_b) == test["predicted"].tolist()
