"""A whole ladder of tiny fits, from a table to the page, twice."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nlp_transfer.errors import DataError, OutputError, RecipeError
from nlp_transfer.evidence.compare import curve
from nlp_transfer.evidence.compare.command import compare
from nlp_transfer.evidence.compare.result import Comparison
from nlp_transfer.evidence.compare.rungs import RUNGS
from tests.tiny import make_splits

pytestmark = pytest.mark.xdist_group("compare")
"""One ladder serves all of it."""

NAME = "<b>bold</b>"
RUNG_NAMES = ["majority", "tfidf", "zero_shot", "features", "layerwise"]


def write_table(folder: Path, num_train: int) -> Path:
    splits = make_splits(num_train, 2, names=["plain", NAME])
    folder.mkdir()
    for split, table in splits.tables.items():
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows([row["text"], splits.labels.names[row["label"]]] for row in table)
    return folder


@pytest.fixture(scope="module")
def ladder(tiny_encoder, tmp_path_factory) -> dict:
    """A comparison of five rungs with a curve, and what it was asked."""
    folder = tmp_path_factory.mktemp("compare")
    asked = {
        "data": str(write_table(folder / "table", 48)),
        "encoder": str(tiny_encoder("bert")),
        "rungs": RUNG_NAMES,
        "seeds": 2,
        "curve_rungs": ["tfidf", "features"],
        "output_dir": folder / "out",
        "progress": False,
    }
    return {"asked": asked, "found": compare(**asked)}


def test_every_rung_has_every_column_filled(ladder):
    rows = ladder["found"].rows
    assert [row["rung"] for row in rows] == RUNG_NAMES
    for row in rows:
        for split in ("validation", "test"):
            assert set(row[split]) == {"accuracy", "f1_macro"}
            assert row[split]["accuracy"]["low"] <= row[split]["accuracy"]["value"] <= row[split]["accuracy"]["high"]
        assert row["test"]["accuracy"]["n"] == row["difference"]["n"] == 24
        assert len(row["seeds"]) == (2 if RUNGS[row["rung"]].is_seeded else 1)
        assert row["seconds"] >= row["training_seconds"] >= 0
        assert row["peak_memory_bytes"] > 10**8
        assert row["saved_bytes"] > 0
        assert 0 <= row["trainable_share"] <= 1
        assert 0 < row["p_holm"] <= 1
    assert sum(row["is_best"] for row in rows) == sum(row["is_recommended"] for row in rows) == 1
    layerwise = rows[-1]
    assert layerwise["epochs"] == 20
    assert 0 < layerwise["trainable_share"] < 1
    assert ladder["found"].recommended in ladder["found"].recommendation


def test_what_comes_after_training_is_measured_apart(ladder):
    found = {}
    for path in sorted((Path(ladder["asked"]["output_dir"]) / "runs").rglob("measured.json")):
        found[path.parent.relative_to(path.parents[2]).as_posix()] = json.loads(path.read_text(encoding="utf-8"))
    assert len(found) == 7
    for name in ("features/seed-0", "layerwise/seed-1"):
        assert 0 < found[name]["after_seconds"] < found[name]["seconds"], name


def test_scores_are_those_of_the_saved_predictions(ladder):
    checked = 0
    for row in ladder["found"].rows:
        for number, folder in enumerate(row["folders"]):
            frame = pd.read_parquet(Path(folder) / "predictions.parquet")
            test = frame[frame["split"] == "test"]
            reached = float((test["label"] == test["predicted"]).mean())
            score = row["test"]["accuracy"]
            assert reached == pytest.approx(score["per_seed"][number] if "per_seed" in score else score["value"])
            checked += 1
    assert checked == 5


def test_curve_has_a_point_for_every_size_and_ends_in_the_ladder(ladder):
    points = ladder["found"].record["curve"]["points"]
    assert [(point["rung"], point["examples"]) for point in points] == [
        ("tfidf", 32),
        ("tfidf", 48),
        ("features", 32),
        ("features", 48),
    ]
    row = next(row for row in ladder["found"].rows if row["rung"] == "features")
    assert points[-1]["test"]["accuracy"] == row["test"]["accuracy"]
    assert points[-1]["seeds"] == [0, 1]


def test_it_is_read_back_equal_and_shows_itself_without_foreign_markup(ladder):
    found, out = ladder["found"], Path(ladder["asked"]["output_dir"])
    assert Comparison.load(out).record == found.record
    json.dumps(found.record, allow_nan=False)
    shown = str(found)
    assert all(name in shown for name in RUNG_NAMES)
    assert max(len(line) for line in shown.splitlines()) <= 100
    for html in ((out / "report.html").read_text(encoding="utf-8"), found._repr_html_()):
        assert html.count("<svg") == 2
        assert NAME not in html
        assert "<script" not in html


def test_the_same_call_runs_nothing_again_and_other_data_are_refused(ladder, monkeypatch, tmp_path):
    asked, calls = ladder["asked"], []
    monkeypatch.setattr("nlp_transfer.evidence.compare.trials.run", lambda *_, **__: calls.append(1))
    again = compare(**asked)
    assert calls == []
    assert again.rows == ladder["found"].rows
    with pytest.raises(OutputError, match="holds another comparison"):
        compare(**asked | {"limit": 40})
    with pytest.raises(OutputError, match=r"holds another comparison \(other rows; there -> now\)"):
        compare(**asked | {"data": str(write_table(tmp_path / "table", 40))})
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds files that no comparison left, such as notes\.txt"):
        compare(**asked | {"output_dir": other})
    assert [entry.name for entry in other.iterdir()] == ["notes.txt"]


def test_a_curve_keeps_its_other_points_where_a_rung_is_refused(ladder, monkeypatch, tmp_path):
    run_trial = curve.run_trial

    def refuse_features(rung, *arguments):
        if rung.name == "features":
            raise RecipeError("strategy.layers: there is no such layer.")
        return run_trial(rung, *arguments)

    monkeypatch.setattr(curve, "run_trial", refuse_features)
    asked = {"rungs": ["majority"], "curve_rungs": ["features", "tfidf"], "output_dir": tmp_path / "out", "seeds": 1}
    found = compare(**ladder["asked"] | asked)
    assert {point["rung"] for point in found.record["curve"]["points"]} == {"tfidf"}
    assert any("there is no such layer" in note for note in found.record["curve"]["notes"])
    # Points that are there cost nothing, so that no time at all is time enough for them.
    monkeypatch.setattr("nlp_transfer.evidence.compare.costs.Costs.predict", lambda *_: 1e9)
    monkeypatch.setattr("nlp_transfer.evidence.compare.command.measure_steps", lambda _: 1.0)
    again = compare(**ladder["asked"] | asked | {"budget": "10m"})
    assert [row["rung"] for row in again.rows] == ["majority"]
    assert again.record["curve"]["points"] == found.record["curve"]["points"]


def test_a_run_that_was_scored_on_other_rows_is_refused(ladder):
    path = Path(ladder["asked"]["output_dir"]) / "runs" / "features" / "seed-0" / "predictions.parquet"
    report = path.with_name("report.json")
    kept = {each: each.read_bytes() for each in (path, report)}
    frame = pd.read_parquet(path)
    try:
        frame.iloc[::-1].to_parquet(path, index=False)
        record = json.loads(kept[report])
        del record["digests"]  # as by somebody who means the change
        report.write_text(json.dumps(record), encoding="utf-8")
        with pytest.raises(OutputError, match="was scored on other validation rows"):
            compare(**ladder["asked"])
    finally:
        for each, content in kept.items():
            each.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rungs": ["layerwse"]}, 'rung: expected a rung of the ladder, got "layerwse". Did you mean "layerwise"'),
        ({"curve_rungs": ["zero_shot"]}, "curve_rung: zero_shot learns from no rows"),
        ({"budget": "soon"}, "budget: expected a time"),
        ({"seeds": 0}, "seeds: expected at least 1"),
        ({"task": "clasification"}, "task.kind"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(ladder, change, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        compare(**ladder["asked"] | {"output_dir": tmp_path / "out"} | change)


def test_a_test_split_without_labels_is_refused(ladder, tmp_path):
    table = write_table(tmp_path / "table", 16)
    frame = pd.read_csv(table / "test.csv").drop(columns="label")
    frame.to_csv(table / "test.csv", index=False)
    with pytest.raises(DataError, match="expected labels in test, found none"):
        compare(**ladder["asked"] | {"data": str(table), "output_dir": tmp_path / "out"})


def test_a_fit_beyond_its_budget_is_stopped_and_told(tiny_encoder, tmp_path, monkeypatch):
    train = make_splits(96, 2).tables["train"]
    names = np.where(np.asarray(train["label"][:]), "a", "b")
    frame = pd.DataFrame({"text": train["text"][:], "label": names})
    # Foreseen to take nothing, so that only the deadline can stop it.
    monkeypatch.setattr("nlp_transfer.evidence.compare.costs.Costs.predict", lambda *_: 0.0)
    monkeypatch.setattr("nlp_transfer.evidence.compare.climb.measure_steps", lambda _: 0.0)
    monkeypatch.setattr("nlp_transfer.evidence.compare.command.measure_steps", lambda _: 0.0)
    monkeypatch.setattr("nlp_transfer.evidence.compare.costs.Costs.predict_ending", lambda _: 1e6)
    found = compare(
        frame,
        encoder=str(tiny_encoder("bert")),
        rungs=["majority", "full"],
        budget="1h",
        seeds=3,
        output_dir=tmp_path / "out",
        progress=False,
    )
    assert [row["rung"] for row in found.rows] == ["majority"]
    (left,) = found.record["left_out"]
    assert left["rung"] == "full"
    assert left["seeds"] == [0, 1, 2]
    assert left["why"].startswith("stopped at step")
