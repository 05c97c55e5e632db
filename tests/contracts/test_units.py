"""The unit of a regression's target does not matter, whatever the strategy and the family."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoModelForSequenceClassification

from nlp_transfer import Classifier
from nlp_transfer.contracts import Prepared
from nlp_transfer.data.load import load_splits
from nlp_transfer.data.target_scale import TargetScale
from nlp_transfer.errors import DataError
from nlp_transfer.fitting.fit import fit_model, predict_split
from nlp_transfer.models.encoder import load_tokenizer, quiet_loading
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.publishing.artifact import save_artifact
from nlp_transfer.recipe.schema import DataConfig, TaskConfig
from nlp_transfer.runs.pipeline import run
from tests.contracts.variants import CELLS, TEACHER, VARIANTS, make_recipe, prepare
from tests.tiny import FAMILIES, make_splits
from tests.training import Breaker, Killed

UNITS = ((1e-3, 0.0), (100.0, -250.0), (2e5, 1e5), (1e6, 0.0))
"""Factor and shift of each unit that is held against the first, which has neither."""

WITHOUT = ("few_shot", "zero_shot")
"""Strategies that name classes and refuse numbers."""

NUMBERS = [(name, family) for name, family in CELLS if VARIANTS[name]["kind"] not in WITHOUT]


FORMS = ("features-svm", "features-knn", "features-first", "features-mlp", "lora-pissa", "full-probe")
"""Variants whose head is fitted, or whose model is finished, in a way of its own."""


def list_cells() -> list[object]:
    """By default every strategy and form on one family, families by turns; everything with -m slow."""
    cells = []
    for number, name in enumerate(dict.fromkeys(name for name, _ in NUMBERS)):
        families = [family for variant, family in NUMBERS if variant == name]
        for place, family in enumerate(families):
            is_default = (name in FORMS or name == VARIANTS[name]["kind"]) and place == number % len(families)
            marks = [] if is_default else [pytest.mark.slow]
            cells.append(pytest.param(name, family, marks=marks, id=f"{name}-{family}"))
    return cells


def convert(prepared: Prepared, factor: float, shift: float) -> Prepared:
    """The same rows with targets in another unit."""
    splits = {name: replace(each, labels=each.labels * factor + shift) for name, each in prepared.splits.items()}
    return replace(prepared, splits=splits)


@pytest.fixture(scope="module")
def splits():
    return make_splits(24, kind="regression")


@pytest.fixture(scope="module")
def teach(tiny_encoder, tmp_path_factory, splits):
    """A function from family and unit to a teacher that was trained in that unit."""
    built: dict[tuple[str, float, float], Path] = {}

    def teach(family: str, factor: float, shift: float) -> Path:
        key = (family, factor, shift)
        if key not in built:
            recipe = make_recipe("full", tiny_encoder(family, "masked_lm"), kind="regression", max_steps=2)
            prepared = convert(prepare(recipe, splits), factor, shift)
            folder = tmp_path_factory.mktemp("teacher") / "model"
            built[key] = save(recipe, fit_model(recipe, splits, prepared, Accelerator(cpu=True)), splits, folder)
        return built[key]

    return teach


def save(recipe, fitted, splits, folder: Path) -> Path:
    """Write the artefact of a fit, as a run does."""
    save_artifact(
        folder,
        fitted.adapted.model,
        load_tokenizer(resolve_encoder(recipe.encoder)),
        labels=splits.labels,
        source=fitted.loaded.source,
        merge=fitted.adapted.merge,
        metadata={"reading": {"is_pair": False, "max_length": 48}},
    )
    return folder


def fit(name, family, unit, tiny_encoder, splits, teach):
    """Fit one variant in a unit; gives the recipe, what was fitted, and test's numbers in that unit."""
    encoder = tiny_encoder(family, "masked_lm")
    teacher = teach(family, *unit) if TEACHER in VARIANTS[name].values() else None
    recipe = make_recipe(name, encoder, teacher, kind="regression", max_steps=2, batch_size=12)
    prepared = convert(prepare(recipe, splits), *unit)
    fitted = fit_model(recipe, splits, prepared, Accelerator(cpu=True))
    return recipe, fitted, predict_split(fitted.adapted.model, prepared, "test", Accelerator(cpu=True), batch_size=64)


def test_every_strategy_that_gives_numbers_is_held_against_every_unit():
    kinds = {str(VARIANTS[name]["kind"]) for name, _ in NUMBERS}
    assert len(kinds) == 8
    by_default = {cell.values[0] for cell in list_cells() if not cell.marks}
    assert by_default == kinds | set(FORMS)
    # The layer that holds the unit is found in every family by tests of its own.
    assert len({cell.values[1] for cell in list_cells()}) == len(FAMILIES)


@pytest.mark.parametrize(("name", "family"), list_cells())
def test_a_fit_gives_the_same_numbers_in_every_unit(name, family, tiny_encoder, splits, teach):
    _, plain, expected = fit(name, family, (1.0, 0.0), tiny_encoder, splits, teach)
    assert expected.std() > 0
    # One unit a cell, by turns: the whole matrix holds each against each.
    factor, shift = UNITS[(list(VARIANTS).index(name) + FAMILIES.index(family)) % len(UNITS)]
    _, fitted, found = fit(name, family, (factor, shift), tiny_encoder, splits, teach)
    assert fitted.target is not None
    assert fitted.target.deviation == pytest.approx(plain.target.deviation * factor)
    # What float32 rounds near the shift, and what that rounding does to a training of two steps.
    assert np.abs((found - shift) / factor - expected).max() < 2e-5 + 1e-6 * abs(shift) / factor
    assert np.allclose(fitted.log.losses, plain.log.losses, rtol=1e-4)


@pytest.mark.parametrize(
    "name", ["full", "lora", "features-first", "features", "features-knn", "features-mlp", "adapters"]
)
def test_an_artifact_gives_numbers_in_the_unit_of_the_target_without_this_package(
    name, tiny_encoder, splits, teach, tmp_path
):
    factor, shift = 2e5, 1e5
    family = "distilbert" if name == "features-first" else "bert"
    recipe, fitted, found = fit(name, family, (factor, shift), tiny_encoder, splits, teach)
    folder = save(recipe, fitted, splits, tmp_path / "model")
    assert np.abs(found - (shift + factor / 2)).max() < 3 * factor
    classifier = Classifier.from_pretrained(folder, device="cpu")
    texts = splits.tables["test"]["text"][:]
    assert classifier.predict(texts) == pytest.approx(found[:, 0].tolist(), rel=1e-6)
    loader = json.loads((folder / "nlp_transfer.json").read_text())["loader"]
    assert loader == {"lora": "peft", "full": "transformers", "features-first": "transformers"}.get(
        name, "nlp_transfer"
    )
    if loader == "nlp_transfer":
        return
    if loader == "peft":
        # What peft's own call warns of is not ours.
        with quiet_loading():
            model = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(folder)
    inputs = load_tokenizer(resolve_encoder(recipe.encoder))(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model.eval()(**inputs).logits[:, 0].double().numpy()
    assert np.abs(logits / found[:, 0] - 1).max() < 1e-6


def test_a_merged_update_holds_the_unit_too(tiny_encoder, splits, teach, tmp_path):
    recipe, fitted, found = fit("lora", "bert", (2e5, 1e5), tiny_encoder, splits, teach)
    fitted.adapted.merge = True
    folder = save(recipe, fitted, splits, tmp_path / "model")
    assert (folder / "model.safetensors").is_file()
    texts = splits.tables["test"]["text"][:]
    assert Classifier.from_pretrained(folder, device="cpu").predict(texts) == pytest.approx(found[:, 0], rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp32", marks=pytest.mark.slow)])
def test_numbers_near_a_large_offset_keep_what_float32_can_hold(precision, tiny_encoder, tmp_path):
    found = []
    for shift in (0.0, 1e6):
        settings = {"training.precision": precision, "evaluation.tfidf": False}
        report = train(make_tables(1.0, shift), tiny_encoder, tmp_path / f"{shift:g}", **settings)
        assert report.record["environment"]["precision"] == precision
        found.append(report.predictions["predicted"].to_numpy() - shift)
    # There neighbors of float32 lie a sixteenth apart, those of bf16 thousands.
    assert found[0].std() > 0.01
    assert np.abs(found[0] - found[1]).max() <= 2 / 16


def make_tables(factor: float = 1.0, shift: float = 0.0, n: int = 24) -> dict[str, pd.DataFrame]:
    """Frames with targets in a unit; texts give them away."""
    found = {}
    for split, table in make_splits(n, kind="regression").tables.items():
        targets = np.asarray(table["label"][:], dtype=np.float64) * factor + shift
        found[split] = pd.DataFrame({"text": table["text"][:], "score": targets})
    return found


def train(tables, tiny_encoder, folder, watch=None, **overrides):
    settings = {
        "task.kind": "regression",
        "encoder.name": str(tiny_encoder("bert")),
        "data.max_length": 48,
        "training.batch_size": 8,
        "training.epochs": 2,
        "training.learning_rate": 3e-3,
        "training.device": "cpu",
        "training.precision": "fp32",
        "evaluation.resamples": 100,
        "evaluation.metrics": ["mse", "rmse", "mae", "r2", "pearson", "spearman"],
    }
    return run({}, {**settings, **overrides}, data=tables, output_dir=folder, progress=False, watch=watch)


DRAWS_PICTURES = True
"""The unit stands beside curves, too."""

UNIT_FREE = ("r2", "pearson", "spearman")


@pytest.fixture(scope="module")
def reports(tiny_encoder, tmp_path_factory):
    """The same run in two units, with a control and TF-IDF beside it."""
    place = tmp_path_factory.mktemp("units")
    overrides = {"evaluation.control": True, "evaluation.control_learning_rates": [1e-3, 3e-3]}
    return [
        train(make_tables(factor, shift), tiny_encoder, place / f"{factor:g}", **overrides)
        for factor, shift in ((1.0, 0.0), (2e5, 1e5))
    ]


def test_a_report_says_the_same_in_every_unit_and_errors_in_the_target_s_own(reports):
    one, other = (report.record for report in reports)
    checked = 0
    for section in ("scores", "tfidf", "no_transfer", "majority"):
        sides = [each["scores"] if section == "scores" else each["baselines"][section] for each in (one, other)]
        for split in ("validation", "test"):
            for metric in ("mse", "rmse", "mae", *UNIT_FREE):
                left, right = (side[split][metric] for side in sides)
                size = {"mse": 4e10, "rmse": 2e5, "mae": 2e5}.get(metric, 1.0)
                for key in ("value", "low", "high"):
                    assert right[key] == pytest.approx(left[key] * size, rel=1e-3, abs=1e-3 * size), (section, metric)
                    checked += 1
    assert checked == 4 * 2 * 6 * 3
    assert [each["baselines"]["no_transfer"]["learning_rate"] for each in (one, other)] in ([1e-3] * 2, [3e-3] * 2)
    assert one["gain"]["mse"]["over"] == other["gain"]["mse"]["over"]
    assert one["training"]["best_step"] == other["training"]["best_step"]


def test_verdicts_do_not_depend_on_the_unit(reports):
    one, other = (report.record["transfer"] for report in reports)
    assert one["kept"] == other["kept"]
    verdicts = [[each["verdict"] for each in record["comparisons"]] for record in (one, other)]
    assert verdicts[0] == verdicts[1]
    assert len(verdicts[0]) == 1


def test_losses_are_in_standard_deviations_and_looks_in_the_unit_and_a_note_says_so(reports):
    one, other = (report.record for report in reports)
    losses = [[point["loss"] for point in record["training"]["losses"]] for record in (one, other)]
    assert np.allclose(*losses, rtol=1e-3)
    assert losses[0][0] < 10
    looks = [[look["metrics"]["mse"] for look in record["training"]["evaluations"]] for record in (one, other)]
    assert np.allclose(np.array(looks[0]) * 4e10, looks[1], rtol=1e-3)
    said = [note for note in other["data"]["notes"] if "standard deviations" in note]
    assert len(said) == 1
    mean = np.mean(make_tables(2e5, 1e5)["train"]["score"])
    assert f"from the mean of train ({mean:,.0f})" in said[0]
    assert "squared standard deviations" in (reports[1].folder / "report.html").read_text(encoding="utf-8")
    kept = TargetScale.read(json.loads((reports[1].model_path / "nlp_transfer.json").read_text(encoding="utf-8")))
    assert kept.mean == pytest.approx(mean)


def test_tables_and_pages_of_large_and_small_errors_stay_readable(reports, tiny_encoder, tmp_path):
    small = train(make_tables(1e-3), tiny_encoder, tmp_path / "small", **{"evaluation.tfidf": False})
    for report, wanted in ((reports[1], r"MSE +[0-9.]+e(9|10) "), (small, r"MSE +[0-9.]+e-7 ")):
        lines = str(report).splitlines()
        assert max(map(len, lines)) <= 80
        assert "…" not in str(report)
        row = next(line for line in lines if re.match(r"MSE  ", line))
        assert re.match(wanted, row), row
        assert " 0.000" not in row
        page = (report.folder / "report.html").read_text(encoding="utf-8")
        assert f">{row.split()[1]}<" in page


def test_several_seeds_of_large_errors_fit_eighty_columns(tiny_encoder, tmp_path):
    report = train(make_tables(2e5, 1e5), tiny_encoder, tmp_path / "run", **{"training.seeds": [0, 1]})
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 80
    assert "±" in next(line for line in lines if re.match(r"MSE  ", line))
    assert "…" not in "\n".join(lines)


@pytest.mark.parametrize(
    "strategy", ["full", *(pytest.param(each, marks=pytest.mark.slow) for each in ("lora", "frozen"))]
)
def test_a_broken_regression_ends_in_the_same_bits(strategy, tiny_encoder, tmp_path):
    tables = make_tables(2e5, 1e5)
    settings = {"strategy.kind": strategy, "training.checkpoint_every": 1, "evaluation.tfidf": False}
    whole = train(tables, tiny_encoder, tmp_path / "whole", **settings)

    with pytest.raises(Killed):
        train(tables, tiny_encoder, tmp_path / "broken", lambda *_: (Breaker(4),), **settings)
    assert list((tmp_path / "broken" / "checkpoints").iterdir())
    again = train(tables, tiny_encoder, tmp_path / "broken", **settings)
    assert again.record["training"]["resumed_at"] == [3]
    name = "adapter_model.safetensors" if strategy == "lora" else "model.safetensors"
    assert (again.model_path / name).read_bytes() == (whole.model_path / name).read_bytes()
    assert again.predictions.equals(whole.predictions)


def test_a_chain_starts_anew_in_the_unit_of_its_own_target(tiny_encoder, tmp_path):
    first = train(make_tables(2e5, 1e5), tiny_encoder, tmp_path / "first", **{"evaluation.tfidf": False})
    found = []
    for factor, shift in ((1.0, 0.0), (1e4, 0.0)):
        folder = tmp_path / f"second-{factor:g}"
        settings = {"encoder.name": str(first.folder), "evaluation.tfidf": False, "evaluation.guard": False}
        report = train(make_tables(factor, shift), tiny_encoder, folder, **settings)
        found.append(report.predictions["predicted"].to_numpy() / factor)
    assert np.abs(found[0] - found[1]).max() < 1e-4


def test_an_explanation_is_the_same_in_every_unit(reports):
    one, other = (
        Classifier.from_pretrained(report.folder, device="cpu").explain("A superb hotel, but the waiter was rude.")
        for report in reports
    )
    left, right = (dict(each.top(20)) for each in (one, other))
    assert left.keys() == right.keys()
    assert len(left) == 10
    largest = max(map(abs, left.values()))
    for word, value in left.items():
        assert right[word] / 2e5 == pytest.approx(value, abs=0.02 * largest)
    assert other.record["is_complete"]
    assert "e" in str(other) or "," in str(other)


@pytest.mark.parametrize(
    "spell", ["{:d}00000", *(pytest.param(each, marks=pytest.mark.slow) for each in ("{:d}0", "{:d} stars"))]
)
def test_ordered_classes_are_their_order_however_they_are_spelled(spell, tiny_encoder, tmp_path):
    splits = make_splits(24, 3)
    found = []
    for number, names in enumerate((["1", "2", "10"], [spell.format(each) for each in (1, 2, 10)])):
        tables = {
            split: pd.DataFrame({"text": table["text"][:], "label": [names[index] for index in table["label"]]})
            for split, table in splits.tables.items()
        }
        report = train(
            tables,
            tiny_encoder,
            tmp_path / str(number),
            **{
                "task.kind": "ordinal",
                # Names other than numbers have no order of their own.
                **({} if names[0].isdecimal() else {"task.labels": names}),
                "training.max_steps": 2,
                "evaluation.metrics": ["mae", "mse", "quadratic_kappa", "spearman"],
                "evaluation.tfidf": False,
            },
        )
        # The order is that of the numbers, not of their letters, and a miss counts classes.
        assert report.record["data"]["labels"] == names
        figures = {metric: score.value for metric, score in report.scores["test"].items()}
        found.append((figures, [names.index(name) for name in report.predictions["predicted"]]))
    assert found[0] == found[1]
    assert found[0][0]["mae"] <= 2


def test_targets_that_float32_cannot_tell_apart_are_warned_of():
    warned = []
    for factor, shift in ((1e-3, 1e6), (1.0, 1e3), (0.0, 1e8)):
        data, task = DataConfig(path="in-memory"), TaskConfig(kind="regression")
        facts = load_splits(data, task, seed=0, source=make_tables(factor, shift)).facts
        warned.append([line for line in facts.warnings if "float32" in line])
        assert len([note for note in facts.notes if "standard deviations" in note]) == 1
    assert [len(lines) for lines in warned] == [1, 0, 0]
    assert "Subtract a constant from the column, such as 1e+06" in warned[0][0]


def test_a_target_beyond_float32_is_refused_by_its_row():
    tables = make_tables()
    tables["validation"].loc[4, "score"] = 1e39
    with pytest.raises(DataError, match=r"row 5: expected a number in 'score' that float32 can hold.*1e\+39"):
        load_splits(DataConfig(path="in-memory"), TaskConfig(kind="regression"), seed=0, source=tables)
