"""On real texts, bf16 with a second look gives the labels of float32."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.data import read_table
from nlp_transfer.engine.predict.texts import Reading, TextScorer
from nlp_transfer.models.encoder import load_encoder
from nlp_transfer.recipe.schema import EncoderConfig
from tests.tiny import make_encoder

DATA = Path(__file__).parents[2].parent / "shared" / "data"

pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.is_dir(), reason="no data sets beside the checkout")]


@pytest.mark.parametrize("name", ["sst2", "trec"])
def test_labels_of_real_texts_do_not_depend_on_the_format(name, tmp_path):
    table = read_table(DATA / name / "test.parquet").select(range(300)).select_columns(["text"])
    folder = make_encoder("bert", tmp_path, texts=table["text"][:], hidden=64, layers=3)
    space = LabelSpace("classification", ("a", "b", "c"))
    model = load_encoder(EncoderConfig(name=str(folder), dropout=0.0), space, seed=0).model.eval()
    reading = Reading(max_length=64, long_text="truncate", window_overlap=0.0, max_windows=None)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    full, half = (
        TextScorer(model, tokenizer, space, reading, torch.device("cpu"), precision=precision).score(
            table, batch_size=64, max_tokens=4096
        )
        for precision in ("fp32", "bf16")
    )
    assert len(full) == 300
    assert not np.array_equal(full, half)
    assert (full.argmax(axis=1) == half.argmax(axis=1)).all()
