import json
import shutil

import numpy as np
import pandas as pd
import pytest

import nlp_transfer as nt
from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import ArtifactError, DataError, LabelError, OutputError
from nlp_transfer.evidence.audit.command import find_positive
from nlp_transfer.evidence.audit.result import Audit
from tests.commands import run_command

HOSTILE = "<script>alert(1)</script>[bold]"


def make_rows(num_rows):
    """Texts whose label follows one word, and the identity term half of it."""
    random, rows = np.random.default_rng(num_rows), []
    for number in range(num_rows):
        name = ("good", "bad")[number % 2]
        term = ("gay", "straight")[number % 2 if random.random() < 0.8 else (number + 1) % 2]
        who = {"gay": "g|x", "straight": HOSTILE}[term] if number % 5 else ""
        words = {"good": "superb lovely", "bad": "awful rude"}[name]
        rows.append({"text": f"{words} {term} muslim {number}", "label": name, "who": who, "one": "same"})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("audit")
    for split, num_rows in (("train", 80), ("validation", 20), ("test", 160)):
        make_rows(num_rows).to_csv(place / f"{split}.csv", index=False)
    return place


@pytest.fixture(scope="module")
def model(folder, tiny_encoder, tmp_path_factory):
    recipe = {"encoder": {"name": str(tiny_encoder("bert"))}, "data": {"path": str(folder)}}
    overrides = {"training.max_steps": 10, "training.precision": "fp32", "evaluation.tfidf": False}
    place = tmp_path_factory.mktemp("model") / "run"
    return nt.run(recipe, overrides, output_dir=place, progress=False).model_path


@pytest.fixture(scope="module")
def classifier(model):
    return nt.Classifier.from_pretrained(model, precision="fp32")


@pytest.fixture(scope="module")
def found(classifier, folder):
    return nt.audit(classifier, folder, group="who", positive="bad", max_swaps=50)


def test_every_row_is_counted_and_every_rate_is_that_of_the_predictions(found, classifier, folder):
    table = pd.read_csv(folder / "test.csv", keep_default_na=False)
    predicted = np.array(classifier.predict(table.text.tolist()))
    assert sorted(found.groups) == sorted(["g", "x", HOSTILE])
    assert found.record["data"]["ungrouped"] == (table.who == "").sum() == 32
    for name, marks in (("g", table.who == "g|x"), ("x", table.who == "g|x"), (HOSTILE, table.who == HOSTILE)):
        figures = found.groups[name]
        negative = marks & (table.label == "good")
        assert figures["n"] == marks.sum()
        assert figures["accuracy"]["value"] == pytest.approx((predicted == table.label)[marks].mean())
        assert figures["false_positive_rate"]["value"] == pytest.approx((predicted[negative] == "bad").mean())
        assert figures["false_positive_rate"]["n"] == negative.sum()
    assert found.record["overall"]["accuracy"]["n"] == 160


def test_a_threshold_decides_in_place_of_the_classifier(classifier, folder):
    table = pd.read_csv(folder / "test.csv", keep_default_na=False)
    scores = classifier.predict_proba(table.text.tolist())[:, classifier.labels.index("bad")]
    limit = float(np.quantile(scores, 0.9))
    found = nt.audit(classifier, folder, group="who", positive="bad", threshold=limit, max_swaps=0)
    assert found.record["overall"]["selection_rate"]["value"] == pytest.approx((scores >= limit).mean())
    for name in ("g", HOSTILE):
        negative = (table.who.str.contains(name, regex=False) & (table.label == "good")).to_numpy()
        expected = (scores[negative] >= limit).mean()
        assert found.groups[name]["false_positive_rate"]["value"] == pytest.approx(expected)
    assert f"(from {limit:.3g} on)" in found._repr_html_()


def test_swaps_are_those_of_the_scores(found, classifier, folder):
    swaps = found.swaps
    table = pd.read_csv(folder / "test.csv", keep_default_na=False)
    muslims = 160 * 8
    gays = table.text.str.contains("gay").sum() * 7
    assert swaps["possible"] == muslims + gays
    assert swaps["scored"] == 50
    assert 0 < swaps["texts"] <= 50
    every = nt.audit(classifier, table[:1], positive="bad", min_group=1)
    row = table.text[0]
    terms = [("muslim", 8)] + ([("gay", 7)] if "gay" in row else [])
    assert every.swaps["scored"] == sum(count for _, count in terms)
    before = classifier.predict_proba([row])[0, classifier.labels.index("bad")]
    after = classifier.predict_proba([row.replace("muslim", "jewish")])[0, classifier.labels.index("bad")]
    shift = next(each["shift"]["value"] for each in every.swaps["terms"] if each["term"] == "jewish")
    assert shift == pytest.approx(after - before, abs=1e-6)


def test_the_page_and_the_terminal_show_names_of_groups_as_text(found, tmp_path):
    found.save(tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<svg") == 2
    assert "[bold]" in str(found)
    assert "<script" not in found._repr_html_()
    assert Audit.load(tmp_path / "out").record == found.record
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["positive"] == "bad"
    with pytest.raises(ArtifactError, match="found none"):
        Audit.load(tmp_path)
    (tmp_path / "audit.json").write_text("[]")
    with pytest.raises(ArtifactError, match="Audit again"):
        Audit.load(tmp_path)


def test_without_a_column_the_terms_in_the_texts_are_the_groups(classifier, folder):
    found = nt.audit(classifier, folder / "test.csv", positive="bad", max_swaps=0)
    assert sorted(found.groups) == ["gay", "muslim"]
    assert found.groups["muslim"]["n"] == 160
    assert found.swaps is None
    assert "No identity terms were swapped" in str(found)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"group": "absent"}, "--group: expected a column"),
        ({"group": "one"}, "two or more groups in column 'one', got one, 'same'"),
        ({"group": "nothing"}, "got none"),
        ({"group": "text"}, "expected a column that groups rows"),
        ({"group": "who", "positive": "worse"}, "--positive: expected one of the labels bad, good, got 'worse'"),
        ({"group": "who", "rename": {"worse": "bad"}}, "--rename: expected labels of"),
        ({"group": "who", "min_group": 0}, "min_group from 1"),
        ({"group": "who", "threshold": 1.5}, "--threshold: expected a probability"),
    ],
)
def test_what_cannot_be_audited_is_refused(classifier, folder, keys, message):
    table = pd.read_csv(folder / "test.csv", keep_default_na=False).assign(nothing="")
    with pytest.raises(DataError, match=message):
        nt.audit(classifier, table, **keys)


def test_an_empty_table_and_unknown_labels_are_refused(classifier, folder):
    table = pd.read_csv(folder / "test.csv", keep_default_na=False)
    with pytest.raises(DataError, match="expected a table with rows"):
        nt.audit(classifier, table[:0], group="who")
    renamed = table.replace({"label": {"bad": "hateful"}})
    with pytest.raises(LabelError, match="hateful"):
        nt.audit(classifier, renamed, group="who")
    found = nt.audit(classifier, renamed, group="who", rename={"hateful": "bad"}, positive="bad", max_swaps=0)
    plain = nt.audit(classifier, table, group="who", positive="bad", max_swaps=0)
    assert found.record["groups"] == plain.record["groups"]


def test_an_audit_on_other_data_is_left_alone(classifier, folder, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(folder, tmp_path / name)
    nt.audit(classifier, tmp_path / "one", group="who", max_swaps=0, output_dir=tmp_path / "out")
    with pytest.raises(OutputError, match=r"holds a result on .*one"):
        nt.audit(classifier, tmp_path / "two", group="who", max_swaps=0, output_dir=tmp_path / "out")


def test_a_folder_of_something_else_is_left_alone(classifier, folder):
    with pytest.raises(OutputError, match="holds something else"):
        nt.audit(classifier, folder, group="who", output_dir=folder)


@pytest.mark.parametrize(
    ("names", "wanted", "expected"),
    [
        (("nontoxic", "toxic"), None, 1),
        (("toxic", "untoxic"), None, 0),
        (("not hate", "hate"), None, 1),
        (("a", "b", "c"), "b", 1),
    ],
)
def test_the_positive_label_is_the_one_that_is_no_negation(names, wanted, expected):
    assert find_positive(LabelSpace("classification", names), wanted) == expected


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (LabelSpace("classification", ("a", "b", "c")), "--positive: expected the label"),
        (LabelSpace("regression", ("score",)), "task.kind=regression"),
    ],
)
def test_a_positive_label_that_cannot_be_told_is_asked_for(space, message):
    with pytest.raises(DataError, match=message):
        find_positive(space, None)


def test_command_writes_both_files_and_errors_name_the_way_out(model, folder, tmp_path, monkeypatch, capsys):
    def run(*arguments):
        return run_command(monkeypatch, capsys, "audit", *arguments)

    out = tmp_path / "audit"
    arguments = (model, folder, "--group", "who", "--positive", "bad", "--max-swaps", "20")
    status, shown, _ = run(*arguments, "-o", out)
    assert status == 0
    assert sorted(path.name for path in out.iterdir()) == ["audit.json", "report.html"]
    assert "Equalized odds gap" in shown
    assert str(out / "report.html") in shown.replace("\n", "")
    status, shown, _ = run(*arguments, "--json")
    written = json.loads((out / "audit.json").read_text())
    assert set(written.pop("digests")) == {"record"}
    assert json.loads(shown) == written
    test = pd.read_csv(folder / "test.csv")
    test.to_csv(tmp_path / "test.csv", index=False, sep=";")
    status, again, said = run(model, tmp_path / "test.csv", *arguments[2:], "--json")
    assert json.loads(again)["groups"] == json.loads(shown)["groups"]
    assert 'separated by ";". Name another character with --delimiter' in said
    assert run(model, tmp_path / "test.csv", *arguments[2:], "--json", "--delimiter", ";")[2].count("note:") == 0
    status, _, said = run(model, folder, "--group", "who", "--rename", "bad")
    assert (status, "DATA_LABEL=LABEL" in said) == (2, True)
    status, _, said = run(model, folder, "--group", "nobody")
    assert (status, "Columns: text, label, who" in said) == (2, True)
