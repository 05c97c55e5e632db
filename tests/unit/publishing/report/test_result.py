"""The report: read, written, shown."""

import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from nlp_transfer.contracts import Score
from nlp_transfer.errors import ArtifactError, DamageError, StorageError
from nlp_transfer.publishing.report.result import Report


def save(make, folder: Path, **settings) -> Report:
    record, predictions = make(**settings)
    folder.mkdir()
    predictions.to_parquet(folder / "predictions.parquet")
    report = Report(record, folder)
    report.save()
    return report


def test_saved_report_loads_to_the_same_record_scores_and_predictions(make, tmp_path):
    saved = save(make, tmp_path / "run")
    loaded = Report.load(tmp_path / "run")
    assert loaded.record == saved.record
    assert {split: len(scores) for split, scores in loaded.scores.items()} == {"validation": 5, "test": 5}
    assert loaded.scores["test"]["accuracy"] == Score(0.872, 0.835, 0.905, 330)
    assert len(loaded.predictions) == 660
    assert loaded.model_path == tmp_path / "run" / "model"
    assert loaded.recipe["strategy"] == {"kind": "full"}
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "predictions.parquet",
        "report.html",
        "report.json",
    ]


def test_figures_that_are_not_finite_become_null_and_the_input_stays_as_it_was(tmp_path):
    score = {"value": np.float64("nan"), "low": float("-inf"), "high": np.float32(0.5), "n": np.int64(3)}
    record = {
        "scores": {"test": {"mcc": score, "accuracy": Score(0.5, 0.25, 0.75, 4, 0.1, (0.4, 0.6))}},
        "sizes": (1, 2),
    }
    report = Report(record, tmp_path)
    report.save()
    text = (tmp_path / "report.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    stored = json.loads(text)["scores"]["test"]
    assert stored["mcc"] == {"value": None, "low": None, "high": 0.5, "n": 3}
    assert stored["accuracy"]["per_seed"] == [0.4, 0.6]
    assert math.isnan(report.scores["test"]["mcc"].value)
    assert math.isnan(score["value"])
    assert "undefined" in str(report)


def test_terminal_output_fits_80_columns_and_names_scores_controls_and_next_commands(make, tmp_path):
    looked = 0
    for kind, labels in (("classification", ("no", "yes")), ("regression", ("y",)), ("multi_label", ("a", "b", "c"))):
        record, _ = make(kind, labels)
        for score in record["scores"]["test"].values():
            score.update(spread=0.004, per_seed=[0.87, 0.88])
        text = str(Report(record, Path("runs/quick start")))
        lines = text.splitlines()
        looked += len(lines)
        assert max(map(len, lines)) <= 80
        assert "[0.835, 0.905]" in text
        assert "330" in text
        assert "TF-IDF" in text
        assert "nlp-transfer predict 'runs/quick start/model' INPUT.csv" in text
        assert "report.html" in text
    assert looked > 60


def test_terminal_output_keeps_markup_and_escape_sequences_of_the_data_as_text(make, tmp_path):
    record, _ = make()
    record["data"]["warnings"] = ["[bold]not markup[/] \x1b[31mred\u202e"]
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(Report(record, tmp_path))
    text = console.export_text()
    assert "[bold]not markup[/] \\u001b[31mred\\u202e" in text
    assert "\x1b" not in text


def test_repr_is_one_short_line(make, tmp_path):
    text = repr(Report(make()[0], "runs/x"))
    assert text == "Report('runs/x': Accuracy 0.872 [0.835, 0.905] on 330 test examples)"


def test_notebook_shows_tables_and_pictures_without_scripts_or_links(make, tmp_path):
    report = save(make, tmp_path / "run")
    fragment = report._repr_html_()
    assert fragment.count("<svg") == 4
    assert "<table" in fragment
    assert "<html" not in fragment
    for refused in ("<script", "src=", "@import", "url(http", "//cdn"):
        assert refused not in fragment
    links = re.findall(r"href=.(.)", fragment)
    assert len(links) > 10
    assert set(links) == {"#"}


def test_notebook_and_page_do_without_predictions(make, tmp_path):
    report = Report(make()[0], tmp_path)
    report.save()
    assert "0.872" in report._repr_html_()
    with pytest.raises(ArtifactError, match=r"predictions\.parquet: expected the run's predictions"):
        _ = report.predictions


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected the report of a finished run, found none"),
        (b"{", "expected the report of a finished run, got it is not valid JSON"),
        (b"\xff\xfe", "got it is not valid utf-8 text"),
        (b"[]", "got no object in it"),
        (b'{"version": 1}', "got no 'scores' in it"),
    ],
)
def test_folder_without_a_report_is_refused_with_the_way_out(tmp_path, content, message):
    if content is not None:
        (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=message) as caught:
        Report.load(tmp_path)
    assert str(tmp_path / "report.json") in str(caught.value)
    assert caught.value.exit_status == 2


def test_a_folder_by_the_name_of_the_report_is_no_failing_disk(tmp_path):
    (tmp_path / "report.json").mkdir()
    with pytest.raises(ArtifactError, match=r"report\.json: expected the report of a finished run"):
        Report.load(tmp_path)


def test_failing_disk_leaves_the_earlier_report_and_no_half_file(make, tmp_path, monkeypatch):
    save(make, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    record, _ = make(num=20)
    with pytest.raises(StorageError, match="No space left"):
        Report(record, tmp_path / "run").save()
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    assert len(before) == 3


def test_a_turned_digit_of_the_report_is_noticed_and_so_are_other_predictions(make, tmp_path):
    save(make, tmp_path / "run")
    path = tmp_path / "run" / "report.json"
    content = path.read_text()
    assert content.count("0.872") >= 1
    path.write_text(content.replace("0.872", "0.972"))
    with pytest.raises(DamageError, match=r"report\.json: is damaged"):
        Report.load(tmp_path / "run")
    path.write_text(content)
    report = Report.load(tmp_path / "run")
    assert "digests" not in report.record
    predictions = tmp_path / "run" / "predictions.parquet"
    predictions.write_bytes(predictions.read_bytes()[:-1] + b"X")
    with pytest.raises(DamageError, match=r"predictions\.parquet: is damaged"):
        _ = report.predictions
