"""Quickstart over three seeds holds what it is shipped for: far above TF-IDF, and above the same encoder untrained."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEEDS = [0, 1, 2]
LEAST_ACCURACY = 0.85
LEAST_LEAD = 0.08
"""By how much TF-IDF with logistic regression must stay behind."""
MOST_CONTROL = 0.75
"""What random weights may reach at most."""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_quickstart_over_three_seeds_beats_tfidf_and_the_control(tmp_path: Path) -> None:
    overrides = [f"training.seeds={SEEDS}", "evaluation.control=true", "report.output_dir=run"]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    # The tests keep to one thread because several of them run at once; this one runs as a user would.
    environment.pop("OMP_NUM_THREADS", None)
    command = [sys.executable, "-m", "nlp_transfer", "run", "quickstart", *overrides]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1500:]

    record = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    rivals = {name: record["baselines"][name]["test"]["accuracy"] for name in ("tfidf", "no_transfer")}
    ours = record["scores"]["test"]["accuracy"]
    assert [len(ours["per_seed"]), len(rivals["no_transfer"]["per_seed"])] == [len(SEEDS), len(SEEDS)]
    assert [score["n"] for score in (ours, *rivals.values())] == [336] * 3
    assert ours["value"] >= LEAST_ACCURACY
    assert ours["value"] - rivals["tfidf"]["value"] >= LEAST_LEAD
    assert rivals["no_transfer"]["value"] <= MOST_CONTROL
