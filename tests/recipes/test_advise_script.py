"""The script that measures what advice is worth, on tiny encoders."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from tests.tiny import make_splits

SCRIPT = Path(__file__).parents[2] / "recipes" / "scripts" / "check_advise.py"


@pytest.fixture
def run_script(monkeypatch, capsys):
    def run_script(*arguments):
        monkeypatch.setattr(sys, "argv", [SCRIPT.name, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return stop.value.code, capsys.readouterr().out

    return run_script


def test_the_ladder_is_measured_once_fitted_and_reported(run_script, tiny_encoder, work_dir):
    splits = make_splits(60)
    Path("sets/tiny").mkdir(parents=True)
    for split, table in splits.tables.items():
        frame = table.to_pandas().assign(label=[splits.labels.names[row] for row in table["label"]])
        frame.to_parquet(f"sets/tiny/{split}.parquet")
    command = ["--data", "sets", "--set", "tiny", "--rows", 24, "--encoder", tiny_encoder("bert"), "--seeds", 0, 1]
    command += ["--strategy", "features", "--strategy", "zero_shot", "--out", "out", "--test-rows", 20]
    status, out = run_script(*command, "--fit", "--report")
    assert status == 0
    records = sorted(Path("out/records").iterdir())
    names = [f"tiny-24-{seed}-{kind}.json" for seed in (0, 1) for kind in ("features", "zero_shot")]
    assert [path.name for path in records] == names
    found = json.loads(records[0].read_text(encoding="utf-8"))
    assert len(found["hits"]) == 20
    assert found["accuracy"] == found["hits"].count("1") / 20
    assert "fitted to 2 cells" in out
    assert "0.05: " in out
    assert '"full": (' in out
    assert "| tiny | 24 | 2 |" in out
    assert "1 cells over 2 draws: mean regret" in out
    # What is on disk is not run again, and is what is reported.
    records[0].write_text(json.dumps({**found, "accuracy": 0.0, "hits": "0" * 20}), encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.json")}
    status, out = run_script(*command, "--report")
    assert status == 0
    assert "features 0.000" in out
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.json")} == before
    assert len(before) == 6


def test_sets_may_have_sizes_and_seeds_of_their_own():
    list_cells = runpy.run_path(str(SCRIPT))["list_cells"]
    cells = list_cells(["one", "two:500", "three:64:2"], [8], [7])
    assert cells == [("one", 8, 7), ("two", 500, 7), ("three", 64, 0), ("three", 64, 1)]


def test_regret_is_what_the_first_choice_lost(run_script, capsys):
    held = runpy.run_path(str(SCRIPT))
    held["report"].__globals__["choose"] = lambda advice, ladder, table: "zero_shot"
    advice = {"seconds": 3.0}
    ladder = {
        "full": {"accuracy": 0.75, "hits": "1110", "seconds": 2.0, "expected_seconds": 1.0},
        "zero_shot": {"accuracy": 0.25, "hits": "0010", "seconds": 1.0, "expected_seconds": 0.0},
    }
    held["report"]([(("set", 64, 0), advice, ladder)])
    out = capsys.readouterr().out
    assert "| set | 64 | 1 | zero_shot 1 | 0.250 | full | 0.750 | 0.500 |" in out
    assert "largest 0.5000, above 0.04 with an interval above 0: " in out
    assert "over 1 runs: median 2.00" in out
