"""The scripts under recipes/scripts do what their first lines say."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from datasets import ClassLabel

from nlp_transfer import Classifier, Report
from tests.tiny import make_splits

ROOT = Path(__file__).parents[2] / "recipes" / "scripts"
SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
TRIED = [
    "check_advise.py",
    "check_audit.py",
    "check_domains.py",
    "check_export.py",
    "check_gpu.py",
    "check_guard.py",
    "check_rank.py",
    "check_suspects.py",
    "check_units.py",
    "draw_benchmarks.py",
    "make_zoo.py",
    "measure_compare.py",
    "measure_data_scale.py",
    "measure_startup.py",
    "measure_step.py",
    "own_data.py",
    "run_notebooks.py",
]


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


@pytest.mark.parametrize(
    "with_table", [pytest.param(False, marks=pytest.mark.slow), True], ids=["bundled", "own table"]
)
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


@pytest.mark.slow
def test_starting_is_timed_in_fresh_processes_up_to_the_first_step_and_prediction(run_script, tiny_encoder):
    cases = ("python", "step", "prediction")
    chosen = [word for name in cases for word in ("--only", name)]
    status, out = run_script("measure_startup.py", "--encoder", tiny_encoder("bert"), "--repeats", 1, *chosen)
    assert status == 0
    lines = out.splitlines()[1:]
    assert [line[:20].strip() for line in lines] == list(cases)
    assert all(float(line[28:].split()[0]) > 0 for line in lines)


@pytest.mark.slow
def test_comparisons_are_measured_from_outside_and_judged(run_script, tiny_encoder, work_dir):
    rungs = [word for name in ("majority", "tfidf") for word in ("--rung", name)]
    status, out = run_script(
        "measure_compare.py", "reviews", "--encoder", tiny_encoder("bert"), "--budget", "1h", *rungs
    )
    assert status == 0
    row = [cell.strip() for cell in out.splitlines()[-1].split("|")[1:-1]]
    assert row[0] == "reviews"
    assert float(row[1]) > 0
    assert [row[2], row[3], row[6], row[7]] == ["yes", "tfidf", "yes", "majority 1, tfidf 1"]


def test_suites_are_drawn_together_without_what_averages_over_their_jobs(run_script, tmp_path):
    def row(job, contender, **more):
        return {"job": job, "contender": contender, "accuracy": 0.5, "rounds": 2, **more}

    slower = {"time_ratio": 3.0, "time_low": 2.0, "time_high": 4.0}
    for suite, first in (("one", "few_shot"), ("two", "ours")):
        rows = [row(job, name, **more) for job in ("a", "all") for name, more in ((first, {}), ("peer", slower))]
        (tmp_path / f"benchmark-{suite}").mkdir()
        (tmp_path / f"benchmark-{suite}" / "comparison.json").write_text(json.dumps({"limits": [], "rows": rows}))
    picture = tmp_path / "drawn.svg"
    folders = [tmp_path / f"benchmark-{suite}" for suite in ("one", "two")]
    status, out = run_script("draw_benchmarks.py", *folders, "-o", picture)
    assert status == 0
    assert out.endswith("2 jobs\n")
    drawn = picture.read_text(encoding="utf-8")
    assert ">one a, peer<" in drawn
    assert ">two a, peer<" in drawn
    assert drawn.count("accuracy: ours 0.500, peer 0.500") == 2
    assert "Times as long as ours" in drawn


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


def write_set(num_rows):
    """A folder of splits, `set`, with two classes."""
    table = make_splits(num_rows, 2)
    Path("set").mkdir()
    for split, rows in table.tables.items():
        rows.cast_column("label", ClassLabel(names=list(table.labels.names))).to_parquet(f"set/{split}.parquet")


@pytest.mark.slow
def test_exports_are_held_against_torch_on_real_texts(run_script, tiny_encoder, work_dir):
    write_set(40)
    settings = [f"encoder.name={tiny_encoder('bert')}", "training.max_steps=2", "training.device=cpu"]
    more = ["--rounds", 1, "--agreement", 0, "--out", "runs/exports", "--set", *settings]
    status, out = run_script("check_export.py", "set", *more)
    assert status == 0
    assert [out.count(name) for name in ("PyTorch fp32", "onnx fp32", "onnx int8", "openvino fp32")] == [1, 1, 1, 1]


@pytest.mark.slow
def test_a_mitigation_is_audited_beside_the_plain_model(run_script, tiny_encoder, work_dir):
    Path("set").mkdir()
    for split, num_rows in (("train", 60), ("validation", 30), ("test", 144)):
        terms, words = ("gay", "muslim", "young"), (("superb", "good"), ("awful", "bad"))
        pairs = [(terms[row % 3], *words[row % 2]) for row in range(num_rows)]
        lines = [f"{word} {term} {row},{label},{row % 3}" for row, (term, word, label) in enumerate(pairs)]
        Path(f"set/{split}.csv").write_text("\n".join(["text,label,who", *lines]), encoding="utf-8")
    settings = [f"encoder.name={tiny_encoder('bert')}", "training.max_steps=4", "training.device=cpu"]
    arguments = ["set", "set", "--group", "who", "--positive", "bad", "--out", "runs/audits"]
    status, out = run_script("check_audit.py", *arguments, "--set", *settings)
    found = json.loads(Path("runs/audits/check_audit.json").read_text(encoding="utf-8"))
    assert [row["model"] for row in found["rows"]] == ["plain", "mitigated"]
    assert status == (0 if out.splitlines()[-1].endswith(": good") else 1)
    assert all(0 <= row["gap"] <= 1 and 0 < row["threshold"] < 1 for row in found["rows"])


@pytest.mark.slow
def test_the_guard_is_counted_over_planted_and_healthy_cases(run_script, tiny_encoder, work_dir):
    write_set(64)
    arguments = ["set", "--encoder", tiny_encoder("bert"), "--seeds", 1, "--healthy-seeds", 2, "--limit", 16]
    more = ["--link-limit", 16, "--out", "runs/guard"]
    status, out = run_script("check_guard.py", *arguments, *more)
    found = json.loads(Path("runs/guard/check_guard.json").read_text(encoding="utf-8"))
    assert [case["kind"] for case in found["cases"]] == ["planted", "linked", "plain"]
    assert [case["link"] is None for case in found["cases"]] == [False, False, True]
    assert f"planted harm found in {found['found']} of 1 seeds" in out
    assert status == (0 if found["found"] == 1 and found["false"] == 0 else 1)
    # A finished case is read back, not run again.
    again, out = run_script("check_guard.py", *arguments, *more)
    assert again == status
    assert len(out.splitlines()) == 5
    # Another setting is not taken for the same.
    assert "Name another --out" in run_script("check_guard.py", *arguments, *more, "--epochs", 2)[0]


def test_units_of_a_target_are_held_against_each_other(run_script, tiny_encoder, work_dir):
    rows = make_splits(40, kind="regression").tables["train"]
    rows.select_columns(["text", "label"]).to_csv(work_dir / "rows.csv", index=False)
    settings = [f"encoder.name={tiny_encoder('bert')}", "training.max_steps=2", "data.max_length=48"]
    units = ["--unit", "0:1", "--unit", "100000:300000", "--seeds", "2"]
    arguments = [work_dir / "rows.csv", *settings, "--recipe", "sentiment/full", *units, "--out", work_dir / "out.json"]
    status, out = run_script("check_units.py", *arguments)
    assert status == 0
    found = json.loads((work_dir / "out.json").read_text(encoding="utf-8"))
    assert [(row["unit"][1], row["seed"]) for row in found] == [(1.0, 0), (1.0, 1), (300_000.0, 0), (300_000.0, 1)]
    for one, other in zip(found[:2], found[2:], strict=True):
        assert one["rows"] == other["rows"] > 0
        assert other["pearson"] == pytest.approx(one["pearson"], abs=0.01)
        assert other["mse_over_mean"] == pytest.approx(one["mse_over_mean"], rel=0.01)
        assert other["mse"] == pytest.approx(one["mse"] * 4e10, rel=0.01)
    lines = [line for line in out.splitlines() if line.startswith("sentiment/full")]
    assert len(lines) == 2
    assert "100000 to 300000" in lines[1]
    assert re.search(r" [0-9.]+e(9|10)$", lines[1])


def test_suspects_are_checked_on_planted_noise_of_both_kinds(run_script, tiny_encoder, work_dir):
    rows = [f"{'superb' if row % 2 else 'awful'} meal number {row},{'good' if row % 2 else 'bad'}" for row in range(90)]
    Path("mine.csv").write_text("\n".join(["review,label", *rows]), encoding="utf-8")
    arguments = ("mine.csv", "--encoder", tiny_encoder("bert"), "--seeds", 2, "--out", "found.json")
    status, out = run_script("check_suspects.py", *arguments)
    assert status == 0
    found = json.loads(Path("found.json").read_text(encoding="utf-8"))
    assert {row["noise"] for row in found} == {"random", "ambiguous"}
    assert {row["views"] for row in found} == {"regression", "neighbors", "regression + neighbors"}
    assert len(found) == 2 * 2 * 2 * 3
    assert all(0 <= row["precision"] <= 1 and row["rows"] > 60 for row in found)
    assert "regression + neighbors" in out
