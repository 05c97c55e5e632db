"""Whole runs: what they refuse to mix, what each seed is held against, and several processes from end to end."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import GradientState
from datasets import Dataset
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModel

from nlp_transfer.engine.train.checkpoint import CheckpointStore
from nlp_transfer.errors import DamageError, DataError, DivergedError, OutputError
from nlp_transfer.evaluation.baselines import score_tfidf
from nlp_transfer.publishing.artifact import load_artifact
from nlp_transfer.publishing.report.result import Report
from nlp_transfer.runs import control, seed
from nlp_transfer.runs.pipeline import run
from tests.invariants.run_case import NUM_ROWS, SETTINGS, make_tables


def train(encoder: Path, out: Path, tables: object, changes: Mapping[str, Any] | None = None) -> Report:
    settings = {"encoder": {"name": str(encoder)}, **SETTINGS}
    return run(settings, changes or {}, data=tables, output_dir=out, progress=False)


@pytest.fixture
def broken_off(tiny_encoder, monkeypatch) -> Callable[[Path], tuple[Path, dict[str, Any], dict[str, Any]]]:
    """A function that leaves a run of two seeds in a folder, broken off in the second."""

    def leave(folder: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
        encoder, tables, changes = tiny_encoder("bert"), make_tables(), {"training.seeds": [0, 1]}
        write = CheckpointStore.commit

        def break_off(self: CheckpointStore, *args: Any) -> Path:
            if "seed-1" in str(self.folder):
                raise KeyboardInterrupt
            return write(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(CheckpointStore, "commit", break_off)
            with pytest.raises(KeyboardInterrupt):
                train(encoder, folder, tables, changes)
        assert (folder / "seed-0" / seed.SEED_FILE).is_file()
        return encoder, dict(tables), changes

    return leave


def test_a_finished_seed_is_not_mixed_with_other_rows(broken_off, tmp_path):
    encoder, tables, changes = broken_off(tmp_path / "run")
    # The same lengths, another label in test: only the seed's score would be wrong.
    other = dict(tables)
    flipped = ["class 1" if name == "class 0" else "class 0" for name in tables["test"]["label"]]
    other["test"] = Dataset.from_dict({"text": tables["test"]["text"][:], "label": flipped})
    with pytest.raises(OutputError, match=r"other rows.*report\.output_dir"):
        train(encoder, tmp_path / "run", other, changes)
    report = train(encoder, tmp_path / "run", tables, changes)
    assert report.record["seeds"] == [0, 1]


def test_a_finished_seed_that_was_damaged_is_named_and_trained_again_to_the_same_bits(broken_off, tmp_path, capsys):
    encoder, tables, changes = broken_off(tmp_path / "run")
    place = tmp_path / "run" / "seed-0"
    files = ("model/model.safetensors", "predictions.parquet")
    before = [(place / each).read_bytes() for each in files]
    sealed, space = (place / seed.SEED_FILE).read_bytes(), SimpleNamespace(rows="others")
    (place / seed.SEED_FILE).write_text('{"weights.safetensors": "0"}')
    with pytest.raises(DamageError, match=r"\.seed\.json: is not the record of a finished seed"):
        seed._read_seed(place, 0, space)
    (place / seed.SEED_FILE).write_bytes(sealed)
    content = bytearray(before[0])
    content[len(content) // 2] ^= 1
    (place / files[0]).write_bytes(content)
    settings = {"encoder": {"name": str(encoder)}, **SETTINGS}
    run(settings, changes, data=tables, output_dir=tmp_path / "run", console=Console(stderr=True, width=1000))
    said = capsys.readouterr().err
    assert f"seed-0/{files[0]}: is damaged" in said
    assert "The seed is trained again" in said
    assert [(place / each).read_bytes() for each in files] == before


def test_an_interrupted_accumulation_elsewhere_does_not_switch_updates_off(tiny_encoder, tmp_path):
    encoder, tables = tiny_encoder("bert"), make_tables()
    expected = load_file(train(encoder, tmp_path / "one", tables).model_path / "model.safetensors")
    GradientState()._set_sync_gradients(False)
    found = load_file(train(encoder, tmp_path / "two", tables).model_path / "model.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_one_rate_too_high_for_the_control_does_not_end_the_run(tiny_encoder, tmp_path, monkeypatch):
    fit = control.fit_model

    def diverge(recipe: Any, *args: Any, **rest: Any) -> Any:
        if recipe.training.learning_rate > 1:
            raise DivergedError("scores: expected finite predictions")
        return fit(recipe, *args, **rest)

    monkeypatch.setattr(control, "fit_model", diverge)
    changes = {"evaluation.control": True, "evaluation.control_learning_rates": [5.0, 1e-3]}
    record = train(tiny_encoder("bert"), tmp_path / "run", make_tables(), changes).record
    assert record["baselines"]["no_transfer"]["learning_rate"] == 1e-3
    assert record["baselines"]["no_transfer"]["tried"]["5"] is None
    changes["evaluation.control_learning_rates"] = [5.0, 7.0]
    with pytest.raises(DivergedError, match=r"control_learning_rates.*5, 7.*lower"):
        train(tiny_encoder("bert"), tmp_path / "none", make_tables(), changes)


def test_each_seed_is_held_against_baselines_on_its_own_rows(tiny_encoder, tmp_path, monkeypatch):
    drawn = []

    def watch(texts: Mapping[str, Any], *args: Any, **rest: Any) -> dict[str, np.ndarray]:
        drawn.append(tuple(texts["train"]))
        return score_tfidf(texts, *args, **rest)

    monkeypatch.setattr("nlp_transfer.evaluation.baselines.score_tfidf", watch)
    changes = {"data.shots": 4, "training.seeds": [0, 1], "evaluation.tfidf": True}
    record = train(tiny_encoder("bert"), tmp_path / "run", make_tables(), changes).record
    assert [len(texts) for texts in drawn] == [8, 8]
    assert set(drawn[0]) != set(drawn[1])
    assert len(record["baselines"]["tfidf"]["test"]["accuracy"]["per_seed"]) == 2
    assert any("own train rows" in note for note in record["data"]["notes"])
    drawn.clear()
    train(tiny_encoder("bert"), tmp_path / "all", make_tables(), {**changes, "data.shots": None})
    assert len(drawn) == 1


def test_a_metric_that_cannot_choose_is_refused_before_training(tiny_encoder, tmp_path):
    tables = make_tables()
    one = [row for row in tables["validation"] if row["label"] == "class 0"]
    tables["validation"] = Dataset.from_list(one)
    with pytest.raises(DataError, match=r"training\.select_by: roc_auc"):
        train(tiny_encoder("bert"), tmp_path / "run", tables, {"training.select_by": "roc_auc"})
    assert not (tmp_path / "run").exists()


def test_the_head_of_an_adapter_keeps_its_figures_on_an_encoder_in_half_precision(tiny_encoder, tmp_path):
    base = tmp_path / "half"
    encoder = tiny_encoder("bert")
    AutoModel.from_pretrained(encoder, dtype=torch.bfloat16).save_pretrained(base)
    for file in encoder.iterdir():
        if not (base / file.name).exists():
            (base / file.name).write_bytes(file.read_bytes())
    assert json.loads((base / "config.json").read_text())["dtype"] == "bfloat16"
    report = train(base, tmp_path / "run", make_tables(), {"strategy": {"kind": "lora"}})
    saved = load_file(report.model_path / "adapter_model.safetensors")
    loaded = dict(load_artifact(report.model_path).model.named_parameters())
    head = {name: value for name, value in saved.items() if ".classifier." in name}
    assert head
    for name, value in head.items():
        key = name.replace(".classifier.", ".classifier.modules_to_save.default.")
        assert torch.equal(loaded[key], value)


@pytest.mark.slow
def test_two_processes_run_from_end_to_end_with_fewer_batches_than_processes(launched_run):
    record = Report.load(launched_run / "run").record
    assert record["environment"]["processes"] == 2
    assert record["scores"]["validation"]["accuracy"]["n"] == len(make_tables(NUM_ROWS)["validation"]) < 64


def test_many_windows_of_one_text_go_through_in_parts(tiny_encoder, tmp_path, monkeypatch):
    tables = make_tables()
    for split in ("train", "test"):
        rows = tables[split].to_dict()
        rows["text"][0] = " ".join([rows["text"][0]] * 40)
        tables[split] = Dataset.from_dict(rows)
    shapes: list[tuple[int, ...]] = []
    forward = torch.nn.Embedding.forward

    def watch(self: torch.nn.Embedding, tokens: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            shapes.append(tuple(tokens.shape))
        return forward(self, tokens)

    changes: dict[str, Any] = {"data.long_text": "windows", "data.max_length": 16}
    one = train(tiny_encoder("bert"), tmp_path / "one", tables, changes)
    monkeypatch.setattr(torch.nn.Embedding, "forward", watch)
    parts = train(tiny_encoder("bert"), tmp_path / "two", tables, {**changes, "evaluation.max_tokens": 64})
    sizes = [rows * width for rows, width in (shape for shape in shapes if len(shape) == 2)]
    assert max(sizes) <= 64
    assert len(sizes) > 10
    columns = [name for name in one.predictions.columns if name.startswith("probability_")]
    assert np.allclose(one.predictions[columns], parts.predictions[columns], atol=1e-6)
