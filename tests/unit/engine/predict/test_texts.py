"""Tables of any size go through in chunks, and what is predicted does not depend on them."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.engine.predict import texts as module
from nlp_transfer.engine.predict.half import HalfScorer
from nlp_transfer.engine.predict.texts import Reading, TextScorer
from nlp_transfer.errors import RecipeError
from nlp_transfer.models.encoder import load_encoder
from nlp_transfer.recipe.schema import EncoderConfig
from tests.tiny import make_texts

SPACE = LabelSpace("classification", ("a", "b", "c"))
SETTINGS = {"batch_size": 16, "max_tokens": 512}


@pytest.fixture
def make_scorer(tiny_encoder):
    def make(*, precision="fp32", family="bert"):
        folder = tiny_encoder(family)
        model = load_encoder(EncoderConfig(name=str(folder), dropout=0.0), SPACE, seed=0).model.eval()
        reading = Reading(max_length=24, long_text="windows", window_overlap=0.25, max_windows=None)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return TextScorer(model, tokenizer, SPACE, reading, torch.device("cpu"), precision=precision)

    return make


@pytest.mark.parametrize("family", ["bert", "deberta-v3"])
def test_chunks_change_nothing(make_scorer, family, monkeypatch):
    scorer = make_scorer(family=family)
    table = Dataset.from_dict({"text": make_texts(100, seed=9, max_words=60)})
    whole = scorer.score(table, **SETTINGS)
    assert whole.shape == (100, 3)
    monkeypatch.setattr(module, "EXAMPLES_PER_CHUNK", 33)
    monkeypatch.setattr("nlp_transfer.data.encode.EXAMPLES_PER_CALL", 10)
    opened, done = [], []
    tokenize = TextScorer._open
    monkeypatch.setattr(TextScorer, "_open", lambda *all: opened.append(len(all[1])) or tokenize(*all))
    parted = scorer.score(table, **SETTINGS, progress=done.append)
    assert opened == [33, 33, 33, 1]
    assert sum(done) == 100
    assert np.allclose(parted, whole, rtol=0, atol=1e-6)


def test_nothing_is_left_on_the_disk(make_scorer, monkeypatch):
    def refuse(*_):
        raise AssertionError("texts that are read once went to the cache")

    monkeypatch.setattr("nlp_transfer.data.encode._fetch", refuse)
    found = make_scorer().score(Dataset.from_dict({"text": make_texts(1200, max_words=4)}), **SETTINGS)
    assert len(found) == 1200


@pytest.mark.parametrize(
    ("precision", "is_exact", "is_half"),
    [("auto", False, True), ("auto", True, False), ("fp32", False, False), ("bf16", True, True)],
)
def test_figures_come_from_float32_unless_bf16_is_asked_for(make_scorer, precision, is_exact, is_half, monkeypatch):
    monkeypatch.setattr("nlp_transfer.engine.precision.compare_predictions", lambda: 9.0)
    seen = []
    predict = HalfScorer.predict
    monkeypatch.setattr(HalfScorer, "predict", lambda self, *a, **k: seen.append(1) or predict(self, *a, **k))
    table = Dataset.from_dict({"text": make_texts(80)})
    found = make_scorer(precision=precision).score(table, **SETTINGS, is_exact=is_exact)
    assert len(seen) == is_half
    exact = make_scorer().score(table, **SETTINGS)
    assert (found.argmax(axis=1) == exact.argmax(axis=1)).all()
    assert np.array_equal(found, exact) != is_half


def test_an_unknown_format_is_refused_at_once(make_scorer):
    with pytest.raises(RecipeError, match="expected auto, fp32 or bf16"):
        make_scorer(precision="int8")
