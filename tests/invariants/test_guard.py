"""The guard end to end: harm is said and refused, health is left alone, and the artefact kept is what is scored."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlp_transfer.publishing.artifact import load_artifact
from nlp_transfer.publishing.report.result import Report
from nlp_transfer.runs import chain
from nlp_transfer.runs import guard as guarding
from nlp_transfer.runs.control import Control
from nlp_transfer.runs.pipeline import run
from tests.invariants.run_case import SETTINGS, make_tables
from tests.records import rewrite_record

ROWS = 64
CONTROL = {"evaluation.control_learning_rates": [1e-3]}


def train(encoder: object, out: Path, changes: Mapping[str, Any] | None = None) -> Report:
    settings = {"encoder": {"name": str(encoder)}, **SETTINGS}
    return run(settings, {**CONTROL, **(changes or {})}, data=make_tables(ROWS), output_dir=out, progress=False)


def perfect(splits: Any, probabilities: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a model says that is always right."""
    return {
        split: np.eye(found.shape[1])[np.asarray(splits.tables[split]["label"][:])] * 0.98 + 0.01
        for split, found in probabilities.items()
    }


@pytest.fixture
def great_control(monkeypatch: pytest.MonkeyPatch) -> None:
    """A no-transfer control that makes no mistake."""
    real = guarding.train_control

    def improve(recipe: Any, seeds: Any, tables: Any, *args: Any, **rest: Any) -> Control:
        found = real(recipe, seeds, tables, *args, **rest)
        splits = tables[seeds[0]][0]
        each = [perfect(splits, {s: p[n] for s, p in found.probabilities.items()}) for n in range(len(seeds))]
        return replace(found, probabilities={split: [one[split] for one in each] for split in each[0]})

    monkeypatch.setattr(guarding, "train_control", improve)


@pytest.fixture
def great_without_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without the link that makes no mistake."""
    real: Callable[..., Any] = chain.train_seed

    def improve(recipe: Any, seed: int, space: Any, *args: Any) -> Any:
        found = real(recipe, seed, space, *args)
        return replace(found, probabilities=perfect(space.splits, found.probabilities))

    monkeypatch.setattr(chain, "train_seed", improve)


def read_words(report: Report) -> tuple[str, str, str]:
    """What terminal, page and card say; each on one line."""
    texts = (
        str(report),
        (report.folder / "report.html").read_text(encoding="utf-8"),
        (report.model_path / "README.md").read_text(encoding="utf-8"),
    )
    found = [" ".join(text.split()) for text in texts]
    return found[0], found[1], found[2]


def check_kept(report: Report) -> None:
    """The scores are those of the model that is there, and nothing unfinished lies about."""
    model = load_artifact(report.model_path)
    assert list(model.labels.names) == report.record["data"]["labels"]
    predictions = report.predictions
    test = predictions[predictions["split"] == "test"]
    accuracy = float((test["label"] == test["predicted"]).mean())
    assert len(test) == ROWS // 2
    if report.record["transfer"]["kept"] == "no_transfer":
        assert report.record["scores"]["test"]["accuracy"]["value"] == pytest.approx(accuracy)
    assert not (report.folder / "controls").exists()
    assert not list(report.folder.rglob(".seed.json"))


def test_a_healthy_run_is_left_alone(tiny_encoder, tmp_path):
    report = train(tiny_encoder("bert"), tmp_path / "run", {"evaluation.guard": True})
    transfer = report.record["transfer"]
    assert [found["kind"] for found in transfer["comparisons"]] == ["control"]
    gain = transfer["comparisons"][0]["gain"]["accuracy"]
    ours, theirs = (
        scores["test"]["accuracy"]["value"]
        for scores in (report.record["scores"], report.record["baselines"]["no_transfer"])
    )
    assert gain["value"] == pytest.approx(ours - theirs)
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert gain["n"] == ROWS // 2
    assert (transfer["is_harmful"], transfer["kept"], transfer["reasons"]) == (False, "transfer", [])
    assert all("armful transfer" not in words for words in read_words(report))
    assert not (report.folder / "refused").exists()


def test_harm_is_said_and_without_the_guard_the_model_is_kept(tiny_encoder, tmp_path, great_control):
    report = train(tiny_encoder("bert"), tmp_path / "run", {"evaluation.control": True})
    transfer = report.record["transfer"]
    assert (transfer["is_harmful"], transfer["guard"], transfer["kept"]) == (True, False, "transfer")
    assert any(f"Train has {ROWS} rows" in reason for reason in transfer["reasons"])
    for words in read_words(report):
        assert "Harmful transfer: from" in words
        assert "Likely reason: Train has" in words
        assert "the model was kept as it is" in words
        assert "Transfer did harm" in words
    assert not (report.folder / "refused").exists()


def test_the_guard_keeps_the_control(tiny_encoder, tmp_path, great_control):
    report = train(tiny_encoder("bert"), tmp_path / "run", {"evaluation.guard": True})
    transfer = report.record["transfer"]
    assert (transfer["is_harmful"], transfer["kept"]) == (True, "no_transfer")
    kept = json.loads((report.model_path / "nlp_transfer.json").read_text())
    assert kept["recipe"]["encoder"]["init"] == "random"
    refused = json.loads((report.folder / "refused" / "model" / "nlp_transfer.json").read_text())
    assert refused["recipe"]["encoder"]["init"] == "pretrained"
    assert (report.folder / "refused" / "predictions.parquet").is_file()
    assert set(report.record["baselines"]) == {"majority", "refused"}
    assert "random weights" in report.record["model"]["encoder"]
    check_kept(report)
    for words in read_words(report):
        assert "the model kept is the no-transfer control" in words


RARER = [([0, 1], "lora"), ([0], "full")]


@pytest.mark.parametrize(
    ("seeds", "strategy"),
    [([0], "lora"), ([0, 1], "full"), *(pytest.param(*case, marks=pytest.mark.slow) for case in RARER)],
)
def test_the_guard_keeps_the_run_without_a_harmful_link(tiny_encoder, tmp_path, great_without_link, seeds, strategy):
    link = train(tiny_encoder("bert"), tmp_path / "link", {"data.permute_labels": True})
    changes = {"evaluation.guard": True, "training.seeds": seeds, "strategy": {"kind": strategy}}
    report = train(link.folder, tmp_path / "run", changes)
    transfer = report.record["transfer"]
    assert [found["kind"] for found in transfer["comparisons"]] == ["link", "control"]
    assert transfer["comparisons"][0]["verdict"] == "harm"
    assert transfer["kept"] == "without_link"
    assert transfer["kept_encoder"] == str(tiny_encoder("bert")) == report.record["model"]["encoder"]
    assert "with permuted labels" in transfer["reasons"][0]
    gain = transfer["comparisons"][0]["gain"]["accuracy"]
    if len(seeds) > 1:
        assert len(gain["per_seed"]) == len(seeds)
        assert np.mean(gain["per_seed"]) == pytest.approx(gain["value"])
    assert {"refused", "no_transfer"} <= set(report.record["baselines"])
    record = json.loads((report.model_path / "nlp_transfer.json").read_text())
    assert record["encoder"]["name"] == str(tiny_encoder("bert"))
    check_kept(report)
    assert (report.folder / "refused").exists() == (len(seeds) == 1)
    for words in read_words(report):
        assert "the model kept is the same run from" in words


@pytest.mark.slow
def test_an_adapter_kept_without_its_link_still_finds_its_base(tiny_encoder, tmp_path, monkeypatch):
    first = train(tiny_encoder("bert"), tmp_path / "first")
    second = train(first.folder, tmp_path / "second")
    real: Callable[..., Any] = chain.train_seed

    def improve_first(recipe: Any, seed: int, space: Any, folder: Path, console: Any) -> Any:
        found = real(recipe, seed, space, folder, console)
        return (
            replace(found, probabilities=perfect(space.splits, found.probabilities)) if "-1/" in str(folder) else found
        )

    monkeypatch.setattr(chain, "train_seed", improve_first)
    report = train(second.folder, tmp_path / "run", {"evaluation.guard": True, "strategy": {"kind": "lora"}})
    transfer = report.record["transfer"]
    assert [found["kind"] for found in transfer["comparisons"]] == ["link", "link", "control"]
    assert (transfer["kept"], transfer["kept_encoder"]) == ("without_link", str(first.folder))
    assert [place.name for place in (report.folder / "controls").glob("*/*/*")] == ["base"]
    assert load_artifact(report.model_path).labels.names == ("class 0", "class 1")


def test_a_broken_off_fallback_goes_on_to_the_same_end(tiny_encoder, tmp_path, great_control, monkeypatch):
    from nlp_transfer.runs import pipeline

    real = pipeline.render_card

    def break_off(*_: Any, **__: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "render_card", break_off)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_encoder("bert"), tmp_path / "run", {"evaluation.guard": True})
    monkeypatch.setattr(pipeline, "render_card", real)
    report = train(tiny_encoder("bert"), tmp_path / "run", {"evaluation.guard": True})
    refused = json.loads((report.folder / "refused" / "model" / "nlp_transfer.json").read_text())
    assert refused["recipe"]["encoder"]["init"] == "pretrained"
    assert report.record["transfer"]["kept"] == "no_transfer"
    check_kept(report)


def test_validation_alone_decides_what_is_kept(tiny_encoder, tmp_path, monkeypatch):
    real = guarding.train_control

    def flatter(recipe: Any, seeds: Any, tables: Any, *args: Any, **rest: Any) -> Control:
        found = real(recipe, seeds, tables, *args, **rest)
        splits = tables[seeds[0]][0]
        right = perfect(splits, {split: each[0] for split, each in found.probabilities.items()})
        # Always right on test, always wrong on validation.
        return replace(found, probabilities={"test": [right["test"]], "validation": [1 - right["validation"]]})

    monkeypatch.setattr(guarding, "train_control", flatter)
    report = train(tiny_encoder("bert"), tmp_path / "run", {"evaluation.guard": True})
    transfer = report.record["transfer"]
    assert (transfer["is_harmful"], transfer["kept"]) == (True, "transfer")
    assert "the guard kept the transfer all the same" in read_words(report)[0]


def test_a_link_whose_own_encoder_is_gone_is_told(tiny_encoder, tmp_path):
    link = train(tiny_encoder("bert"), tmp_path / "link")
    path = link.model_path / "nlp_transfer.json"
    rewrite_record(path, encoder=json.loads(path.read_text())["encoder"] | {"name": "runs/gone"})
    report = train(link.folder, tmp_path / "run", {"evaluation.control": True})
    transfer = report.record["transfer"]
    assert [found["kind"] for found in transfer["comparisons"]] == ["control"]
    assert "runs/gone, cannot be found" in transfer["notes"][0]
