import csv
import json

import numpy as np
import pandas as pd
import pytest

import nlp_transfer as nt
from nlp_transfer.errors import ArtifactError, DataError
from nlp_transfer.evidence.out_of_scope.command import SCOPE_FILE, fit_scope, score_scope
from tests.commands import run_command

STRATEGIES = {"full": {}, "lora": {"rank": 2}, "features": {}}


def make_frame(words, num_rows, start):
    rows = []
    for number in range(start, start + num_rows):
        name = ("good", "bad")[number % 2]
        rows.append({"text": f"{words[name]} {words[name].split()[number % 2]} {number}", "label": name})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Splits within scope, and texts of other words in a file of their own."""
    words = {"good": "superb lovely great", "bad": "awful rude broken"}
    folder = tmp_path_factory.mktemp("scope")
    for split, num_rows in (("train", 80), ("validation", 20), ("test", 40)):
        make_frame(words, num_rows, 100 * num_rows).to_csv(folder / f"{split}.csv", index=False)
    other = {"good": "7 8 9 ? ? ! train hotel", "bad": ", , . . ; 4 2 1"}
    make_frame(other, 30, 0)[["text"]].to_csv(folder / "other.txt", index=False)
    (folder / "other.txt").rename(folder.parent / "other.csv")
    return folder, folder.parent / "other.csv"


@pytest.fixture(scope="module", params=list(STRATEGIES))
def model(request, tables, tiny_encoder, tmp_path_factory):
    strategy = {"kind": request.param, **STRATEGIES[request.param]}
    recipe = {"encoder": {"name": str(tiny_encoder("bert"))}, "strategy": strategy, "data": {"path": str(tables[0])}}
    overrides = {"training.max_steps": 6, "training.precision": "fp32", "evaluation.tfidf": False}
    folder = tmp_path_factory.mktemp("model") / "run"
    return nt.run(recipe, overrides, output_dir=folder, progress=False).model_path


def test_energy_is_that_of_the_logits_and_mahalanobis_waits_for_its_fit(model, tables):
    classifier = nt.Classifier.from_pretrained(model, precision="fp32")
    test = tables[0] / "test.csv"
    energy = score_scope(classifier, test)
    assert energy.shape == (40,)
    assert np.isfinite(energy).all()
    with pytest.raises(ArtifactError, match="nlp-transfer out-of-scope"):
        score_scope(classifier, test, method="mahalanobis")
    place = fit_scope(classifier, tables[0] / "train.csv")
    try:
        assert place.name == SCOPE_FILE
        distance = score_scope(classifier, test, method="mahalanobis")
        assert distance.shape == (40,)
        assert (distance >= 0).all()
        # Another process that loads the artefact finds what was fitted.
        again = nt.Classifier.from_pretrained(model, precision="fp32")
        assert score_scope(again, test, method="mahalanobis") == pytest.approx(distance)
        assert again.predict(["superb lovely"]) == classifier.predict(["superb lovely"])
    finally:
        place.unlink()
    with pytest.raises(DataError, match="expected energy or mahalanobis, got 'entropy'"):
        score_scope(classifier, test, method="entropy")


def test_votes_of_neighbors_have_no_energy(tiny_encoder, tables, tmp_path):
    recipe = {
        "encoder": {"name": str(tiny_encoder("bert"))},
        "strategy": {"kind": "features", "head": "knn"},
        "data": {"path": str(tables[0])},
        "evaluation": {"tfidf": False, "resamples": 100},
    }
    classifier = nt.Classifier.from_pretrained(nt.run(recipe, output_dir=tmp_path / "run", progress=False).model_path)
    with pytest.raises(DataError, match="Use method mahalanobis"):
        score_scope(classifier, tables[0] / "test.csv")
    fit_scope(classifier, tables[0] / "train.csv")
    assert score_scope(classifier, tables[0] / "test.csv", method="mahalanobis").shape == (40,)


def test_command_fits_measures_and_predict_adds_the_column(model, tables, tmp_path, monkeypatch, capsys):
    def call(*arguments):
        return run_command(monkeypatch, capsys, *arguments)[:2]

    arguments = ("out-of-scope", model, tables[0], "--method", "mahalanobis", "--ood-data", tables[1], "--json")
    status, shown = call(*arguments)
    assert status == 0
    found = json.loads(shown)
    assert (found["num_inside"], found["num_outside"]) == (40, 30)
    assert found["low"] <= found["auroc"] <= found["high"]
    assert found["auroc"] > 0.9
    out = tmp_path / "out.csv"
    status, _ = call("predict", model, tables[1], "-o", out, "--ood", "mahalanobis", "--abstain-below", "1.0")
    assert status == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert all(float(row["out_of_scope"]) >= 0 for row in rows)
    assert all(row["predicted"] == "" for row in rows)
    kept = (model / SCOPE_FILE).read_bytes()
    # What is fitted is measured as it is, and is not replaced without a word.
    assert json.loads(call(*arguments)[1])["auroc"] == found["auroc"]
    assert call("out-of-scope", model, tables[1], "--method", "mahalanobis")[0] == 2
    assert (model / SCOPE_FILE).read_bytes() == kept
    one_class = tmp_path / "one.csv"
    with (tables[0] / "train.csv").open() as file:
        rows = file.read().splitlines()
    name = rows[1].rpartition(",")[2]
    one_class.write_text("\n".join([rows[0], *(row for row in rows if row.endswith(f",{name}"))]) + "\n")
    fit = ("out-of-scope", model, one_class, "--method", "mahalanobis", "--overwrite", "--label", "label")
    assert call(*fit)[0] == 2
    assert (model / SCOPE_FILE).read_bytes() == kept
    for wrong in (("nowhere.csv",), (tables[0], "--method", "entropy"), (tables[0], "--split", "dev")):
        assert call("out-of-scope", model, *wrong)[0] == 2
    assert json.loads(call("out-of-scope", model, tables[0], "--json")[1]) == {"method": "energy", "fitted_rows": None}
    (model / SCOPE_FILE).unlink()
    assert call("predict", model, tables[1], "--ood", "mahalanobis")[0] == 2
    assert call("out-of-scope", model, tables[0], "--ood-data", tables[1])[1].startswith("AUROC")
