import json

import numpy as np
import pandas as pd
import pytest

import nlp_transfer as nt
from nlp_transfer.errors import DataError, RecipeError
from nlp_transfer.evaluation.calibration import expected_calibration_error
from nlp_transfer.runs import pipeline, seed

SHOPS = ["north", "south", None]


@pytest.fixture(scope="module")
def tables():
    """Splits with a column that groups rows, one that does not, and labels that are wrong one time in four."""
    draw = np.random.default_rng(0)
    words = {"good": ["superb", "lovely", "great", "happy"], "bad": ["awful", "rude", "broken", "sad"]}

    def make(num_rows, start):
        rows = []
        for number in range(start, start + num_rows):
            name = ("good", "bad")[number % 2]
            given = name if draw.random() > 0.25 else ("bad", "good")[number % 2]
            text = " ".join(draw.choice(words[name], 1 + number % 7)) + f" {number}"
            rows.append({"text": text, "label": given, "shop": SHOPS[number % 3], "number": str(number)})
        return pd.DataFrame(rows)

    return {"train": make(160, 0), "validation": make(80, 1000), "test": make(120, 2000)}


def run_tiny(tables, encoder, folder, **overrides):
    plain = {
        "encoder.name": str(encoder),
        "training.epochs": 4,
        "training.learning_rate": 3e-3,
        "training.precision": "fp32",
        "evaluation.resamples": 100,
        "evaluation.tfidf": False,
        **{key.replace("__", "."): value for key, value in overrides.items()},
    }
    return nt.run({}, plain, data=tables, output_dir=folder, progress=False)


@pytest.fixture(scope="module", params=["temperature", "isotonic"])
def finished(request, tables, tiny_encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    extra = {"evaluation__slices": ["shop", "length", "label"], "evaluation__calibration": request.param}
    return run_tiny(tables, tiny_encoder("bert"), folder / "run", **extra)


def test_report_shows_calibration_before_and_after_with_the_same_accuracy(finished, tables):
    section = finished.record["calibration"]
    assert section["num_rows"] == 80
    assert set(section["splits"]) == {"validation", "test"}
    for split, sides in section["splits"].items():
        before, after = sides["before"]["scores"], sides["after"]["scores"]
        assert before["accuracy"] == after["accuracy"]
        assert set(before) == {"accuracy", "ece", "brier", "log_loss"}
        assert sum(sides["before"]["bins"]["counts"]) == len(tables[split])
    # The scores of the report are those after it.
    after = section["splits"]["test"]["after"]["scores"]
    assert finished.record["scores"]["test"]["ece"]["value"] == after["ece"]["value"]
    validation = section["splits"]["validation"]
    assert validation["after"]["scores"]["log_loss"]["value"] <= validation["before"]["scores"]["log_loss"]["value"]


def test_loaded_classifier_gives_the_probabilities_of_the_report(finished, tables):
    classifier = nt.Classifier.from_pretrained(finished.model_path, precision="fp32")
    stated = classifier.predict_proba(list(tables["test"].text))
    frame = finished.predictions[finished.predictions.split == "test"]
    assert stated == pytest.approx(frame[["probability_bad", "probability_good"]].to_numpy(), abs=1e-5)
    assert classifier.predict(list(tables["test"].text)) == list(frame.predicted)
    record = json.loads((finished.model_path / "nlp_transfer.json").read_text())
    assert record["calibration"]["kind"] == finished.record["calibration"]["kind"]
    assert (record["temperature"] is None) == (record["calibration"]["kind"] == "isotonic")
    truth = np.array([["bad", "good"].index(name) for name in tables["test"].label])
    ece = finished.record["scores"]["test"]["ece"]["value"]
    assert expected_calibration_error(stated, truth) == pytest.approx(ece, abs=1e-3)


def test_classifier_abstains_below_the_limit_and_says_so_in_a_table(finished, tables):
    classifier = nt.Classifier.from_pretrained(finished.model_path, precision="fp32")
    texts = list(tables["test"].text)
    top = classifier.predict_proba(texts).max(axis=1)
    limit = float(np.median(top))
    whole, careful = classifier.predict(texts), classifier.predict(texts, abstain_below=limit)
    assert 0 < sum(name is None for name in careful) < len(texts)
    assert [name is None for name in careful] == list(top < limit)
    assert all(given in (None, name) for given, name in zip(careful, whole, strict=True))
    assert classifier.predict_table(tables["test"], abstain_below=limit)["predicted"][:] == careful
    with pytest.raises(DataError, match="expected a probability"):
        classifier.predict(texts, abstain_below=1.5)


def test_slices_count_every_row_and_the_page_shows_them(finished, tables):
    section = finished.record["slices"]
    assert section["split"] == "test"
    assert list(section["columns"]) == ["shop", "length", "label"]
    for table in section["columns"].values():
        assert sum(row["n"] for row in table["groups"]) == len(tables["test"]) == 120
    predictions = finished.predictions[finished.predictions.split == "test"].reset_index(drop=True)
    right = predictions.label == predictions.predicted
    found = {row["name"]: row["value"] for row in section["columns"]["shop"]["groups"]}
    assert set(found) == {"north", "south", "(none)"}
    assert found["south"] == pytest.approx(right[tables["test"].shop == "south"].mean())
    page = (finished.folder / "report.html").read_text()
    for text in ("How far can it be trusted?", "Reliability, before and after", "Risk and coverage", "By <bdi>shop"):
        assert text in page


def test_abstention_of_the_report_is_that_of_its_predictions(finished):
    section = finished.record["abstention"]
    frame = finished.predictions[finished.predictions.split == "test"]
    top = frame[["probability_bad", "probability_good"]].max(axis=1)
    assert section["n"] == len(frame)
    assert len(section["selective"]) == 6
    for row in section["selective"]:
        answered = frame[top >= row["abstain_below"]]
        assert len(answered) == row["n"]
        assert (answered.label == answered.predicted).mean() == pytest.approx(row["accuracy"])


def test_what_cannot_be_measured_is_refused_before_training(tables, tiny_encoder, tmp_path):
    encoder = tiny_encoder("bert")
    with pytest.raises(DataError, match="expected a column of validation, or length or label"):
        run_tiny(tables, encoder, tmp_path / "a", evaluation__slices=["store"])
    with pytest.raises(DataError, match="expected a column that groups rows, came 'number'"):
        run_tiny(tables, encoder, tmp_path / "b", evaluation__slices=["number"])
    small = {**tables, "validation": tables["validation"][:20]}
    with pytest.raises(DataError, match="isotonic expected 50 validation rows or more, came 20"):
        run_tiny(small, encoder, tmp_path / "c", evaluation__calibration="isotonic")
    with pytest.raises(RecipeError, match="temperature does not apply to task"):
        run_tiny(tables, encoder, tmp_path / "d", evaluation__calibration="temperature", task__kind="regression")
    with pytest.raises(RecipeError, match="is listed more than once"):
        run_tiny(tables, encoder, tmp_path / "e", evaluation__slices=["shop", "shop"])
    assert not list(tmp_path.glob("*/model"))


def test_a_run_that_asks_for_nothing_has_no_calibration_and_no_slices(tables, tiny_encoder, tmp_path):
    extra = {"training__max_steps": 2, "evaluation__coverages": []}
    report = run_tiny(tables, tiny_encoder("bert"), tmp_path / "run", **extra)
    assert not {"calibration", "slices", "abstention"} & set(report.record)
    assert "How far can it be trusted?" not in (report.folder / "report.html").read_text()
    assert json.loads((report.model_path / "nlp_transfer.json").read_text())["temperature"] is None


def test_a_threshold_is_kept_with_the_model_and_decides_everywhere(tables, tiny_encoder, tmp_path):
    extra = {"evaluation__threshold_goal": "precision_at_recall", "evaluation__threshold_label": "bad"}
    report = run_tiny(tables, tiny_encoder("bert"), tmp_path / "run", **extra)
    choice = report.record["thresholds"]["labels"]["bad"]
    assert choice["recall"] >= 0.9
    record = json.loads((report.model_path / "nlp_transfer.json").read_text())
    assert record["thresholds"] == {"bad": choice["threshold"]}
    frame = report.predictions
    assert list(frame.predicted == "bad") == list(frame.probability_bad >= choice["threshold"])
    validation = frame[frame.split == "validation"]
    own = validation.label == "bad"
    assert (validation.predicted[own] == "bad").mean() == pytest.approx(choice["recall"])
    test = frame[frame.split == "test"]
    accuracy = (test.label == test.predicted).mean()
    assert report.scores["test"]["accuracy"].value == pytest.approx(accuracy)
    classifier = nt.Classifier.from_pretrained(report.model_path, precision="fp32")
    assert classifier.predict(list(tables["test"].text)) == list(test.predicted)
    assert classifier.evaluate(tables["test"])["accuracy"].value == pytest.approx(accuracy)


def test_a_threshold_without_its_class_is_refused(tables, tiny_encoder, tmp_path):
    with pytest.raises(RecipeError, match="Name it in evaluation"):
        run_tiny(tables, tiny_encoder("bert"), tmp_path / "a", evaluation__threshold_goal="f1")
    extra = {"evaluation__threshold_goal": "f1", "evaluation__threshold_label": "ugly"}
    with pytest.raises(DataError, match="expected one of bad, good, came 'ugly'"):
        run_tiny(tables, tiny_encoder("bert"), tmp_path / "b", **extra)


def test_seeds_that_are_read_back_keep_their_maps_and_thresholds(tables, tiny_encoder, tmp_path, monkeypatch):
    extra = {"evaluation__calibration": "isotonic", "evaluation__threshold_goal": "f1", "training__epochs": 1}
    extra |= {"evaluation__threshold_label": "bad", "training__seeds": [0, 1]}

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(pipeline, "keep_best_seed", stop)
        with pytest.raises(KeyboardInterrupt):
            run_tiny(tables, tiny_encoder("bert"), tmp_path / "run", **extra)
    with monkeypatch.context() as watched:
        # Both seeds are finished: nothing is trained or predicted again.
        watched.setattr(seed, "train_with_methods", stop)
        resumed = run_tiny(tables, tiny_encoder("bert"), tmp_path / "run", **extra)
    whole = run_tiny(tables, tiny_encoder("bert"), tmp_path / "other", **extra)
    for section in ("scores", "calibration", "thresholds", "abstention"):
        assert resumed.record[section] == whole.record[section]
    assert list(resumed.predictions.predicted) == list(whole.predictions.predicted)


def test_the_terminal_names_the_error_before_and_after_and_the_worst_groups(finished):
    shown = " ".join(str(finished).split())
    kind = finished.record["calibration"]["kind"]
    assert f"Calibration ({kind}): ECE on test" in shown
    assert "Worst shop: " in shown
    assert "Worst length: " in shown
