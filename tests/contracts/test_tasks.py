"""Every task, way of reading and option of training goes once through a whole run."""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from nlp_transfer.classifier import Classifier
from nlp_transfer.errors import DataError, MissingExtraError
from nlp_transfer.publishing.report.result import Report
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import DEFAULT_METRICS, METRICS
from nlp_transfer.runs.pipeline import run
from tests.tiny import make_splits

Train = Callable[..., Report]
ROWS = 24


def test_columns_said_beside_the_data_hold(train, tiny_encoder, tmp_path):
    tables = {split: table.rename_columns({"text": "a", "label": "b"}) for split, table in make_tables().items()}
    tables = {split: table.add_column("c", table["a"][:]) for split, table in tables.items()}
    said = {"data.text": "a", "data.label": "b"}
    assert check_reload(train(tables, said)).labels == ["class 0", "class 1", "class 2"]
    settings = {
        "encoder.name": str(tiny_encoder("bert")),
        "training.max_steps": 1,
        "training.device": "cpu",
        "evaluation.resamples": 100,
        "evaluation.tfidf": False,
    }
    for number, overrides in enumerate(
        (settings | said, [f"{key}={value}" for key, value in (settings | said).items()])
    ):
        # The shipped recipe names another column for its own data.
        report = run("question/full", overrides, data=tables, output_dir=tmp_path / f"it's {number}")
        assert (report.recipe["data"]["text"], report.recipe["data"]["label"]) == ("a", "b")
        assert report.folder == tmp_path / f"it's {number}"
    with pytest.raises(DataError, match=r"data\.label"):
        run("question/full", settings | {"data.text": "a"}, data=tables, output_dir=tmp_path / "none")


def make_tables(kind: str = "classification", num_labels: int = 3, **options: Any) -> dict[str, Dataset]:
    """Splits as a user has them: labels as names."""
    splits = make_splits(ROWS, num_labels, kind=kind, **options)  # type: ignore[arg-type]
    names = splits.labels.names
    tables = {}
    for split, table in splits.tables.items():
        columns = {name: table[name][:] for name in table.column_names if name != "id"}
        if kind == "multi_label":
            labels = [[names[column] for column, on in enumerate(row) if on] for row in columns["label"]]
        elif kind == "regression":
            labels = columns["label"]
        else:
            labels = [names[index] for index in columns["label"]]
        tables[split] = Dataset.from_dict(columns | {"label": labels})
    return tables


@pytest.fixture
def train(tiny_encoder, tmp_path) -> Train:
    """Run a recipe on tables with a tiny encoder, two steps unless told otherwise."""

    def train(tables: Mapping[str, Dataset], overrides: Mapping[str, Any], *, name: str = "run") -> Report:
        base = {
            "encoder.name": str(tiny_encoder("bert")),
            "data.max_length": 64,
            "training.max_steps": 2,
            "training.batch_size": 8,
            "training.device": "cpu",
            "evaluation.resamples": 100,
            "evaluation.tfidf": False,
        }
        recipe = load_recipe({}, {**base, **overrides})
        return run(recipe, data=tables, output_dir=tmp_path / name)

    return train


def check_reload(report: Report) -> Classifier:
    """The artefact, loaded again, says what the run wrote down."""
    table = report.predictions
    classifier = Classifier.from_pretrained(report.folder)
    texts_b = table["text_b"].tolist() if "text_b" in table else None
    texts = table["text"].tolist()
    stated = table["predicted"].tolist()
    said = classifier.predict(texts, texts_b)
    assert len(said) == len(stated) == ROWS
    found = classifier.predict_proba(texts, texts_b)
    if classifier.space.kind == "regression":
        assert np.allclose(said, stated, atol=1e-5)
        return classifier
    columns = [f"probability_{name}" for name in classifier.labels]
    assert np.allclose(found, table[columns].to_numpy(), atol=1e-6)
    for one, other in zip(said, stated, strict=True):
        assert (one == list(other)) if isinstance(one, list) else (one == other)
    return classifier


KINDS = {
    "classification": {"task.kind": "classification"},
    "multi_label": {"task.kind": "multi_label"},
    "regression": {"task.kind": "regression"},
    "ordinal": {"task.kind": "ordinal", "task.labels": ["class 2", "class 0", "class 1"]},
}


def test_every_kind_of_task_is_tried():
    assert set(KINDS) == set(METRICS) == set(DEFAULT_METRICS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_runs_end_to_end(kind, train):
    report = train(make_tables(kind), KINDS[kind])
    assert set(report.scores) == {"validation", "test"}
    for scores in report.scores.values():
        assert tuple(scores) == DEFAULT_METRICS[kind]
        assert all(score.n == ROWS // 2 for score in scores.values())
    names = ["label"] if kind == "regression" else ["class 0", "class 1", "class 2"]
    names = KINDS[kind].get("task.labels", names)
    probabilities = [] if kind == "regression" else [f"probability_{name}" for name in names]
    wanted = ["split", "id", "text", "label", "predicted", *probabilities]
    assert list(report.predictions.columns) == wanted
    assert report.predictions["split"].value_counts().to_dict() == {"validation": ROWS // 2, "test": ROWS // 2}
    classifier = check_reload(report)
    assert classifier.labels == list(names)
    assert classifier.space.kind == kind


ADDED = ("lora", "adapters")


@pytest.mark.parametrize("strategy", ["adapters", pytest.param("prompts", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_added_to_an_encoder_serves_every_kind_of_task(kind, strategy, train):
    report = train(make_tables(kind), {**KINDS[kind], "strategy.kind": strategy})
    assert check_reload(report).space.kind == kind


@pytest.mark.parametrize("kind", KINDS)
def test_every_metric_of_a_task_can_be_reported(kind, train):
    report = train(make_tables(kind), {**KINDS[kind], "evaluation.metrics": list(METRICS[kind])})
    found = set(report.scores["test"])
    per_class = {name for name in METRICS[kind] if name.endswith("_per_class")}
    assert set(METRICS[kind]) - per_class <= found
    for name in per_class:
        assert sum(key.startswith(name.removesuffix("_per_class")) for key in found) >= 3, name


def test_multi_label_reads_several_columns_of_zero_and_one(train):
    splits = make_splits(ROWS, 3, kind="multi_label")
    tables = {
        split: Dataset.from_dict(
            {"text": table["text"][:]}
            | {name: [int(row[column]) for row in table["label"]] for column, name in enumerate("abc")}
        )
        for split, table in splits.tables.items()
    }
    report = train(tables, {"task.kind": "multi_label", "data.label": ["a", "b", "c"]})
    assert check_reload(report).labels == ["a", "b", "c"]


def test_pairs_run_end_to_end(train):
    report = train(make_tables(pairs=True), {})
    assert list(report.predictions.columns)[:4] == ["split", "id", "text", "text_b"]
    check_reload(report)


@pytest.mark.parametrize("kind", ["full", "prompts", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ADDED)])
@pytest.mark.parametrize("long_text", ["head_tail", "windows"])
def test_long_texts_are_read_the_same_way_after_a_reload(long_text, kind, train):
    overrides = {"data.long_text": long_text, "data.max_length": 16, "strategy.kind": kind}
    report = train(make_tables(), overrides)
    classifier = check_reload(report)
    assert (report.record["data"]["truncated"]["train"] == 0) == (long_text == "windows")
    # The end of a long text is read, too.
    head = "the story " * 20
    one, other = classifier.predict_proba([head + "superb lovely bright", head + "awful rude cold"])
    assert not np.allclose(one, other, atol=1e-6)


def test_truncation_is_counted_and_reads_the_start_only(train):
    report = train(make_tables(), {"data.max_length": 8})
    assert report.record["data"]["truncated"]["test"] > 0
    classifier = check_reload(report)
    one, other = classifier.predict_proba(["the " * 20 + "superb", "the " * 20 + "awful"])
    assert np.allclose(one, other, atol=1e-6)


OPTIONS = {
    "balanced": {"training.class_weights": "balanced"},
    "given_weights": {"training.class_weights": {"class 0": 1.0, "class 1": 2.0, "class 2": 0.5}},
    "label_smoothing": {"training.label_smoothing": 0.1},
    "focal": {"training.focal_gamma": 2.0},
    "sgd": {"training.optimizer": "sgd"},
    "no_clipping": {"training.max_grad_norm": 0.001},
}


@pytest.mark.parametrize(
    "option",
    [pytest.param(each, marks=[] if each in ("given_weights", "focal") else [pytest.mark.slow]) for each in OPTIONS],
)
def test_an_option_of_training_changes_what_is_learned(option, train):
    tables = make_tables()
    # Unequal classes, so that balanced weights differ from 1.
    tables["train"] = tables["train"].select([*range(12), *range(12, 24, 3)])
    base = {"training.learning_rate": 1e-2}
    plain = train(tables, base, name="plain")
    changed = train(tables, {**base, **OPTIONS[option]}, name="changed")
    assert len(changed.predictions) == len(plain.predictions) == ROWS
    column = "probability_class 0"
    assert not np.array_equal(plain.predictions[column], changed.predictions[column])


@pytest.mark.parametrize(
    "kind",
    ["full", "lora", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("frozen", "adapters", "prompts"))],
)
@pytest.mark.parametrize("option", [{"training.gradient_checkpointing": True}, {"training.microbatch_size": 3}])
def test_an_option_that_saves_memory_changes_no_result(kind, option, train):
    # In bf16, parts of a window are rounded one by one.
    base = {"strategy.kind": kind, "training.learning_rate": 1e-2, "training.precision": "fp32"}
    base |= {"strategy.dropout": 0.0} if kind == "lora" else {}
    plain = train(make_tables(), base, name="plain").predictions
    saving = train(make_tables(), {**base, **option}, name="saving").predictions
    columns = [name for name in plain if name.startswith("probability_")]
    assert len(columns) == 3
    assert np.allclose(plain[columns], saving[columns], atol=1e-4)


def test_early_stopping_and_looks_at_validation_follow_the_recipe(train):
    report = train(
        make_tables(),
        {
            "training.max_steps": 12,
            "training.evaluate_every": 2,
            "training.early_stopping": 2,
            "training.learning_rate": 1e-8,  # nothing improves
        },
    )
    training = report.record["training"]
    assert training["stopped_early"] is True
    assert [look["step"] for look in training["evaluations"]] == [2, 4, 6]
    assert training["steps"] == 6
    assert training["best_step"] == 2
    check_reload(report)


def test_the_best_weights_are_the_ones_saved(train):
    report = train(
        make_tables(),
        {
            "training.max_steps": 9,
            "training.evaluate_every": 3,
            "training.learning_rate": 3e-2,
            "training.schedule": "constant",
        },
    )
    training = report.record["training"]
    looks = {look["step"]: look["metrics"]["accuracy"] for look in training["evaluations"]}
    assert list(looks) == [3, 6, 9]
    assert looks[training["best_step"]] == max(looks.values()) == report.scores["validation"]["accuracy"].value


def test_several_seeds_are_reported_with_spread_and_the_best_is_kept(train):
    report = train(make_tables(), {"training.seeds": [0, 1], "training.learning_rate": 3e-2, "training.max_steps": 4})
    record = report.record
    assert record["seeds"] == [0, 1]
    for split in ("validation", "test"):
        for metric, score in report.scores[split].items():
            assert len(score.per_seed) == 2, metric
            assert score.spread is not None
            assert score.value == pytest.approx(np.mean(score.per_seed))
            assert score.spread == pytest.approx(np.std(score.per_seed, ddof=1))
    per_seed = report.scores["validation"]["accuracy"].per_seed
    best = per_seed.index(max(per_seed))
    assert record["training"]["seed"] == best
    kept, chosen = report.folder / "model", report.folder / f"seed-{best}" / "model"
    assert (kept / "model.safetensors").read_bytes() == (chosen / "model.safetensors").read_bytes()
    other = report.folder / f"seed-{1 - best}" / "model"
    assert (kept / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()
    check_reload(report)


def test_several_seeds_of_an_adapter_reload_from_the_kept_folder(train):
    report = train(make_tables(), {"training.seeds": [3, 4], "strategy.kind": "lora"})
    check_reload(report)
    check_reload_card(report.model_path)


def check_reload_card(folder: Path) -> None:
    assert str(folder) in (folder / "README.md").read_text(encoding="utf-8")


def test_a_seed_alone_gives_what_it_gives_among_others(train):
    together = train(make_tables(), {"training.seeds": [5, 6], "training.learning_rate": 1e-2}, name="together")
    alone = train(make_tables(), {"training.seed": 6, "training.learning_rate": 1e-2}, name="alone")
    one, other = (
        (folder / "model" / "model.safetensors").read_bytes() for folder in (together.folder / "seed-6", alone.folder)
    )
    assert one == other


def test_random_weights_are_trained_without_transfer(train):
    report = train(make_tables(), {"encoder.init": "random"})
    model = report.record["model"]
    assert model["trainable"] == model["parameters"] > 0
    plain = train(make_tables(), {}, name="plain")
    column = "probability_class 0"
    assert not np.array_equal(report.predictions[column], plain.predictions[column])
    check_reload(report)


def test_the_control_and_tfidf_stand_beside_the_model(train):
    report = train(
        make_tables(),
        {"evaluation.control": True, "evaluation.tfidf": True, "evaluation.control_learning_rates": [1e-3, 1e-2]},
    )
    baselines = report.record["baselines"]
    assert {"majority", "tfidf", "no_transfer"} <= set(baselines)
    assert set(baselines["no_transfer"]["tried"]) == {"0.001", "0.01"}
    assert baselines["no_transfer"]["learning_rate"] in (1e-3, 1e-2)
    for name in ("majority", "tfidf", "no_transfer"):
        assert baselines[name]["test"]["accuracy"]["n"] == ROWS // 2
    gain = report.record["gain"]
    assert set(gain) == set(DEFAULT_METRICS["classification"])
    over = {score["over"] for score in gain.values()}
    validation = {name: baselines[name]["validation"]["accuracy"]["value"] for name in ("tfidf", "no_transfer")}
    assert len(over) == 1
    assert validation[over.pop()] == max(validation.values())
    model = report.scores["test"]["accuracy"].value
    rival = baselines[gain["accuracy"]["over"]]["test"]["accuracy"]["value"]
    assert gain["accuracy"]["value"] == pytest.approx(model - rival)


def test_an_unlabelled_test_split_is_predicted_and_not_scored(train):
    tables = make_tables()
    tables["test"] = tables["test"].remove_columns("label")
    report = train(tables, {"evaluation.tfidf": True})
    assert set(report.scores) == {"validation"}
    test = report.predictions[report.predictions["split"] == "test"]
    assert len(test) == ROWS // 2
    assert test["label"].isna().all()
    assert test["predicted"].notna().all()


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_gets_the_figures(train):
    report = train(make_tables(), {"training.trackers": ["tensorboard"]})
    assert [path for path in (report.folder / "trackers").rglob("*tfevents*") if path.stat().st_size > 0]


def test_a_tracker_that_is_not_installed_is_refused_before_training(train, monkeypatch, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "mlflow" else real(name, *rest)
    )
    with pytest.raises(MissingExtraError, match="mlflow"):
        train(make_tables(), {"training.trackers": ["mlflow"]})
    assert not list(tmp_path.rglob("model.safetensors"))
