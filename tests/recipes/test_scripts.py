"""The scripts under recipes/scripts do what their first lines say."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from nlp_transfer import Classifier, Report

ROOT = Path(__file__).parents[2] / "recipes" / "scripts"
SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
TRIED = ["check_gpu.py", "measure_data_scale.py", "measure_step.py", "own_data.py"]


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Run a script as the shell would; gives exit status and stdout."""

    def run_script(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / name), run_name="__main__")
        return stop.value.code, capsys.readouterr().out

    return run_script


def test_no_script_is_left_out():
    assert SCRIPTS == TRIED


@pytest.mark.parametrize("name", TRIED)
def test_a_script_explains_itself(name, run_script):
    status, out = run_script(name, "--help")
    assert status == 0
    assert f"python recipes/scripts/{name}" in out


@pytest.mark.parametrize("with_table", [False, True], ids=["bundled", "own table"])
def test_own_data_trains_scores_predicts_and_saves(with_table, run_script, tiny_encoder, work_dir):
    more = []
    if with_table:
        rows = [
            f"{'superb' if row % 2 else 'awful'} meal number {row},{'good' if row % 2 else 'bad'}" for row in range(60)
        ]
        Path("mine.csv").write_text("\n".join(["review,label", *rows]), encoding="utf-8")
        more = ["--table", "mine.csv"]
    for folder in ("runs/own-data", "runs/own-data-2"):
        status, out = run_script(
            "own_data.py", "--encoder", tiny_encoder("bert"), "--limit", 32, "--max-steps", 2, *more
        )
        assert status == 0
        assert f"saved {folder}-classifier" in out
        report = Report.load(folder)
        assert report.record["training"]["steps"] == 2
        assert report.record["data"]["rows"]["train"] == 32
        accuracy = report.scores["test"]["accuracy"]
        assert f"accuracy: {accuracy.value:.3f}" in out
        classifier = Classifier.from_pretrained(f"{folder}-classifier")
        assert classifier.labels == (["bad", "good"] if with_table else ["negative", "positive"])
        assert sum(line.startswith(tuple(classifier.labels)) for line in out.splitlines()) == 2


def test_a_step_is_timed_in_every_way(run_script, tiny_encoder):
    status, out = run_script(
        "measure_step.py", "--encoder", tiny_encoder("bert"), "--rows", 2, "--length", 4, "--threads", 1, "--repeats", 2
    )
    assert status == 0
    ways = ("plain", "last layer trimmed", "reached embeddings", "cheap masks", "attention in parts")
    assert [line[:20].strip() for line in out.splitlines()[1:]] == list(ways)
    assert all(" ms (" in line and line.endswith(" times") for line in out.splitlines()[1:])


def test_what_is_for_gpus_runs_small_without_one(run_script, work_dir, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    status, out = run_script("check_gpu.py", "--small", "--out", "found.json")
    assert status == 0
    found = json.loads(Path("found.json").read_text(encoding="utf-8"))
    assert list(found["checks"]) == ["kernel", "packing", "losses", "resume", "waits"]
    assert found["checks"]["waits"] == "0 in two steps"
    assert found["checks"]["resume"] == "largest gap 0, bit for bit"
    ways = ["ours, padded", "ours, packed", "Trainer"]
    assert [(row["job"], row["way"]) for row in found["training"]] == [
        (job, w) for job in ("sst2", "imdb") for w in ways
    ]
    assert all(row["tokens_per_second"] > 0 and row["share_of_limit"] > 0 for row in found["training"])
    assert "rows are packed, without padding; attention dropout of 0.1" in found["training"][1]["said"]
    assert [row["agreement"] for row in found["prediction"]] == 8 * [1.0]
    assert out.count("imdb: ") == 7
