"""The promise as a whole: how many bad inputs are refused, and what is odd but usable warns and is counted."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bad_inputs import call_cli, hash_tree, make_csv, make_rows, make_run, write
from tests.invariants import (
    test_bad_inputs_artifact,
    test_bad_inputs_data,
    test_bad_inputs_recipe,
    test_bad_inputs_storage,
)

TABLES = (test_bad_inputs_data, test_bad_inputs_recipe, test_bad_inputs_artifact)


def test_at_least_sixty_bad_inputs_are_refused() -> None:
    """Each table's own file proves that its cases ran."""
    names = [case.name for table in TABLES for case in table.CASES]
    assert len(set(names)) == len(names) >= 60
    assert len(test_bad_inputs_storage.FAULTS) >= 10


@pytest.fixture
def place(work_dir: Path, tiny_encoder: Callable[..., Path]) -> Path:
    """The current folder, with an encoder."""
    shutil.copytree(tiny_encoder(), work_dir / "encoder")
    return work_dir


def read_facts(folder: Path) -> dict[str, object]:
    facts: dict[str, object] = json.loads((folder / "runs/try/report.json").read_text(encoding="utf-8"))["data"]
    return facts


def test_conflicting_duplicates_warn_and_are_counted(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = make_rows(24)
    write("splits/train.csv", make_csv([*rows, ("said twice", "bad"), ("said twice", "good"), (rows[0][0], "good")]))(
        place
    )
    for split in ("validation", "test"):
        write(f"splits/{split}.csv", make_csv([(f"{split} {text}", label) for text, label in rows]))(place)
    outcome = call_cli(make_run("splits"), monkeypatch, capsys)
    assert outcome.status == 0, outcome
    warning = "train: 4 rows have a text that also occurs with another label. Look at them."
    assert f"warning: {warning}" in outcome.said
    facts = read_facts(place)
    assert facts["conflicting"] == 4
    assert warning in facts["warnings"]


def test_text_of_ten_megabytes_warns_and_is_counted(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = make_rows(24)
    write("splits/train.csv", make_csv([*rows, ("many words " * 1_000_000, "good")]))(place)
    for split in ("validation", "test"):
        write(f"splits/{split}.csv", make_csv([(f"{split} {text}", label) for text, label in rows]))(place)
    outcome = call_cli(make_run("splits"), monkeypatch, capsys)
    assert outcome.status == 0, outcome
    warning = "train: 1 text of more than a million bytes (the longest has 11,000,000)"
    assert f"warning: {warning}" in outcome.said
    facts = read_facts(place)
    assert [line for line in facts["warnings"] if line.startswith(warning)]
    assert facts["truncated"]["train"] == 1
    assert facts["rows"]["train"] == 25


def test_finished_run_is_left_alone_and_the_new_one_says_where_it_goes(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("d.csv", make_csv(make_rows()))(place)
    assert call_cli(make_run("d.csv"), monkeypatch, capsys).status == 0
    before = hash_tree(place)
    outcome = call_cli(make_run("d.csv"), monkeypatch, capsys)
    assert outcome.status == 0, outcome
    assert "runs/try holds a finished run of this recipe and is left alone; this run goes to runs/try-2" in outcome.said
    after = hash_tree(place)
    assert {path: after.get(path) for path in before} == before
    assert "runs/try-2/report.json" in after


def test_run_that_was_refused_works_in_the_same_folder_once_the_data_is_corrected(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("d.csv", make_csv([*make_rows(), ("", "bad")]))(place)
    assert call_cli(make_run("d.csv"), monkeypatch, capsys).status == 2
    assert not (place / "runs").exists()
    outcome = call_cli(make_run("d.csv", "data.invalid=drop"), monkeypatch, capsys)
    assert outcome.status == 0, outcome
    assert read_facts(place)["dropped"] == {"empty_text": 1}
