"""What is written can be handed on: modes by the umask, and a tokenizer that knows how much the model reads."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, pipeline

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.evidence.compare.command import compare
from nlp_transfer.evidence.tune.command import tune
from nlp_transfer.models.encoder import load_encoder, load_tokenizer
from nlp_transfer.publishing.artifact import copy_artifact, load_artifact, save_artifact
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import EncoderConfig
from nlp_transfer.runs.pipeline import run
from nlp_transfer.strategies import STRATEGIES
from tests.tiny import MAX_LENGTH, make_texts

LABELS = LabelSpace("classification", ("no", "yes"))
LONG_TEXT = "the hotel was lovely and bright " * 200


@pytest.fixture
def boundless(tiny_encoder, tmp_path):
    """A function from a family to an encoder whose tokenizer has no limit, as many on the Hub have none."""

    def copy(family):
        folder = shutil.copytree(tiny_encoder(family), tmp_path / family)
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": int(1e30)}))
        assert AutoTokenizer.from_pretrained(folder).model_max_length > 10**9
        return folder

    return copy


def save(encoder, folder, strategy, merge=False):
    loaded = load_encoder(EncoderConfig(name=str(encoder)), LABELS, seed=0)
    section = load_recipe({"strategy": strategy}).strategy
    adapted = STRATEGIES[section.kind].adapt(loaded, section)
    tokenizer = load_tokenizer(loaded.source)
    before = tokenizer.model_max_length
    save_artifact(
        folder, adapted.model, tokenizer, labels=LABELS, source=loaded.source, merge=merge, metadata={}
    )  # fmt: skip
    assert tokenizer.model_max_length == before
    return folder


def test_the_saved_tokenizer_of_every_family_knows_what_the_model_reads(family, boundless, tmp_path):
    folder = save(boundless(family), tmp_path / "run" / "model", {"kind": "full"})
    assert AutoTokenizer.from_pretrained(folder).model_max_length == MAX_LENGTH
    (found,) = pipeline("text-classification", model=str(folder))(LONG_TEXT, truncation=True)
    assert found["label"] in LABELS.names


@pytest.mark.parametrize(
    ("strategy", "length"),
    [
        ({"kind": "lora"}, MAX_LENGTH),
        ({"kind": "adapters"}, MAX_LENGTH),
        ({"kind": "prompts", "variant": "prompt", "tokens": 8}, MAX_LENGTH - 8),
    ],
    ids=["lora", "adapters", "prompts"],
)
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_an_adapter_and_a_folder_of_our_own_know_it_too(family, strategy, length, boundless, tmp_path):
    folder = save(boundless(family), tmp_path / "run" / "model", strategy)
    loaded = load_artifact(folder)
    assert loaded.tokenizer.model_max_length == length
    with torch.inference_mode():
        logits = loaded.model(**loaded.tokenizer(LONG_TEXT, truncation=True, return_tensors="pt")).logits
    assert logits.isfinite().all()


def assert_modes(folder, umask):
    """Every file and folder has the mode of anything new; gives their count."""
    paths = [folder, *folder.rglob("*")]
    wrong = {
        str(path.relative_to(folder)): oct(path.stat().st_mode & 0o7777)
        for path in paths
        if path.stat().st_mode & 0o7777 != (0o777 if path.is_dir() else 0o666) & ~umask
    }
    assert wrong == {}
    return len(paths)


@pytest.fixture
def umask():
    """Not the one of the machine, and not that of safetensors."""
    before = os.umask(0o002)
    yield 0o002
    os.umask(before)


@pytest.fixture
def table(tmp_path):
    texts = make_texts(48, seed=1)
    rows = "".join(f'"{text}",{"ab"[number % 2]}\n' for number, text in enumerate(texts))
    (tmp_path / "d.csv").write_text(f"text,label\n{rows}")
    return tmp_path / "d.csv"


QUICK = {"training.epochs": 1, "data.max_length": 16, "evaluation.tfidf": False}


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_everything_that_a_run_leaves_has_the_modes_of_the_umask(umask, table, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", Path(tmp_path / "cache"))
    # Of an earlier artefact an adapter's base is kept beside it; several seeds copy the best one.
    first = tmp_path / "first"
    options = QUICK | {"encoder.name": str(tiny_encoder("bert")), "training.seeds": [0, 1]}
    run({"strategy": {"kind": "full"}}, options, data=str(table), output_dir=first, progress=False)
    assert assert_modes(first, umask) > 20
    options = QUICK | {"encoder.name": str(first)}
    run({"strategy": {"kind": "lora"}}, options, data=str(table), output_dir=tmp_path / "lora", progress=False)
    assert (tmp_path / "lora" / "base" / "model.safetensors").is_file()
    assert assert_modes(tmp_path / "lora", umask) > 10
    copy_artifact(first / "model", tmp_path / "copy")
    assert assert_modes(tmp_path / "copy", umask) > 5


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
@pytest.mark.slow
def test_everything_that_a_comparison_and_a_search_leave_has_the_modes_of_the_umask(
    umask, table, tiny_encoder, tmp_path
):
    pytest.importorskip("optuna")
    encoder, place = str(tiny_encoder("bert")), tmp_path / "comparison"
    compare(str(table), encoder=encoder, rungs=["features", "full"], seeds=1, output_dir=place, progress=False)
    assert assert_modes(place, umask) > 5
    options = QUICK | {"encoder.name": encoder, "data.path": str(table)}
    tune({"strategy": {"kind": "full"}}, options, trials=1, output_dir=tmp_path / "search", progress=False)
    assert assert_modes(tmp_path / "search", umask) > 5
