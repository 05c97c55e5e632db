"""A zoo is made, ranked and checked, all small."""

import json
import os
import runpy
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from tests.tiny import make_splits

ROOT = Path(__file__).parents[2] / "recipes" / "scripts"


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Run a script as the shell would; gives exit status and stdout."""

    def run_script(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.setenv("HF_DATASETS_CACHE", os.environ["HF_DATASETS_CACHE"])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / name), run_name="__main__")
        return stop.value.code, capsys.readouterr().out

    return run_script


def write_set(folder):
    folder.mkdir(parents=True)
    for split, table in make_splits(40, 2).tables.items():
        frame = table.to_pandas()
        frame["label"] = [["bad", "good"][label] for label in frame["label"]]
        frame.to_csv(folder / f"{split}.csv", index=False)
    return folder


@pytest.mark.slow
def test_a_zoo_is_made_ranked_and_fine_tuned_and_both_go_on(run_script, tiny_encoder, tmp_path):
    encoder, zoo, other = tiny_encoder("bert"), tmp_path / "zoo", write_set(tmp_path / "sets" / "other")
    # The tiny encoder itself is what seed 0 draws.
    make = ["make_zoo.py", zoo, "--encoder", encoder, "--tune", other, "--limit", 32, "--epochs", 4, "--seed", 1]
    make += ["--set", "training.learning_rate=0.01", "--set", "training.batch_size=8"]
    status, out = run_script(*make)
    assert status == 0
    names = ["anew-last-1", "anew-middle", "layers-1", "layers-2", "random", "tuned-other"]
    assert sorted(place.name for place in zoo.iterdir()) == names
    assert out.endswith(f"6 members in {zoo}\n")
    whole = AutoModel.from_pretrained(encoder).state_dict()
    members = {name: AutoModel.from_pretrained(zoo / name).state_dict() for name in names}
    assert all(len(AutoTokenizer.from_pretrained(zoo / name)) > 100 for name in names)
    changed = {
        name: sorted(
            {key.split(".")[2] for key in state if "layer." in key and not torch.equal(state[key], whole[key])}
        )
        for name, state in members.items()
    }
    assert changed["layers-1"] == changed["layers-2"] == []
    assert [sum("layer.1." in key for key in members[name]) > 0 for name in ("layers-1", "layers-2")] == [False, True]
    assert changed["anew-last-1"] == ["1"]
    assert changed["anew-middle"] == ["0"]
    assert changed["random"] == changed["tuned-other"] == ["0", "1"]
    assert AutoModelForSequenceClassification.from_pretrained(zoo / "tuned-other").config.id2label == {
        0: "bad",
        1: "good",
    }
    before = {place: place.stat().st_mtime_ns for place in zoo.rglob("*.safetensors")}
    assert run_script(*make)[0] == 0
    assert {place: place.stat().st_mtime_ns for place in zoo.rglob("*.safetensors")} == before

    data, found = write_set(tmp_path / "sets" / "mine"), tmp_path / "found"
    sizes = ("--limit", 32, "--rank-limit", 30, "--set", "training.epochs=1")
    check = ("check_rank.py", zoo, "--data", data, "--out", found, *sizes)
    status, out = run_script(*check)
    assert status == 0
    assert len(list((found / "mine").glob("*-seed-0.json"))) == 6
    assert not list((found / "mine" / "runs").iterdir())
    rows = json.loads((found / "agreement.json").read_text(encoding="utf-8"))
    # Only one member has a head that LEEP and NCE could ask, so nothing can be said of them.
    assert [row["estimator"] for row in rows] == [
        "h_score_depth",
        "h_score",
        "h_score_lw",
        "logme",
        "probe",
        "knn",
        "nleep",
        "transrate",
        "gbc",
    ]
    assert all(row["n"] == 5 and row["times_cheaper"] > 0 and row["regret"] >= 0 for row in rows)
    assert out.count("h_score ") == 2
    kept = {place: place.stat().st_mtime_ns for place in (found / "mine").glob("*-seed-0.json")}
    assert run_script(*check)[0] == 0
    assert {place: place.stat().st_mtime_ns for place in (found / "mine").glob("*-seed-0.json")} == kept
    assert "made with other options" in run_script(*check, "--seed", 1)[0]
