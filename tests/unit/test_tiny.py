import random

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from tests import tiny


def test_there_are_at_least_nine_families():
    wanted = {"bert", "roberta", "xlm-roberta", "distilbert", "albert", "electra", "deberta-v2", "mpnet", "modernbert"}
    assert wanted <= set(tiny.FAMILIES)
    assert len(tiny.FAMILIES) >= 9


def test_tiny_encoder_loads_with_auto_classes_and_tells_texts_apart(family, tiny_encoder):
    folder = tiny_encoder(family)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.is_fast
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()
    batch = tokenizer(["A lovely day.", "An awful room in town!"], padding=True, return_tensors="pt")
    logits = model(**batch).logits
    assert logits.shape == (2, 3)
    assert not torch.allclose(logits[0], logits[1])


def test_tiny_tokenizer_reloads_to_the_same_ids(family, tiny_encoder):
    built, loaded = tiny.build_tokenizer(family), AutoTokenizer.from_pretrained(tiny_encoder(family))
    texts = [*tiny.make_texts(20, seed=3), "naïve 日本 😀", ""]
    assert len(texts) == 22
    assert built(texts, texts[::-1])["input_ids"] == loaded(texts, texts[::-1])["input_ids"]
    assert loaded.model_max_length == tiny.MAX_LENGTH


def test_tiny_vocabulary_knows_its_texts(family):
    tokenizer = tiny.build_tokenizer(family)
    ids = [token for row in tokenizer(tiny.make_texts(50, seed=5))["input_ids"] for token in row]
    assert len(ids) > 500
    assert tokenizer.unk_token_id not in ids


def test_checkpoints_hold_no_head_and_no_pickle(family, tiny_encoder):
    base, masked = tiny_encoder(family), tiny_encoder(family, "masked_lm")
    for folder in (base, masked):
        names = {path.name for path in folder.iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} == names
    with safe_open(base / "model.safetensors", "pt") as weights:
        keys = list(weights.keys())
    assert len(keys) > 5
    assert not [key for key in keys if "classifier" in key or "decoder" in key or "lm_head" in key]
    _, info = AutoModelForMaskedLM.from_pretrained(masked, output_loading_info=True)
    assert not info["missing_keys"]


def test_same_seed_gives_the_same_files_and_leaves_random_state_alone(tmp_path):
    torch.manual_seed(5)
    before, python_before = torch.get_rng_state(), random.getstate()
    folders = [tiny.make_encoder("bert", tmp_path / name, seed=seed) for name, seed in [("a", 1), ("b", 1), ("c", 2)]]
    assert torch.equal(before, torch.get_rng_state())
    assert python_before == random.getstate()
    weights = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1] != weights[2]
    assert len({(folder / "tokenizer.json").read_bytes() for folder in folders}) == 1


@pytest.mark.parametrize("pairs", [False, True])
def test_labels_can_be_learned_from_the_words(pairs):
    splits = tiny.make_splits(400, 4, pairs=pairs)
    vectorizer = TfidfVectorizer()
    column = "text_b" if pairs else "text"
    train, test = splits.tables["train"], splits.tables["test"]
    model = LogisticRegression().fit(vectorizer.fit_transform(train[column]), train["label"])
    assert model.score(vectorizer.transform(test[column]), test["label"]) > 0.95
    assert sorted(set(test["label"])) == [0, 1, 2, 3]
    assert (len(train), len(test)) == (400, 200)


@pytest.mark.parametrize("kind", ["classification", "ordinal", "multi_label", "regression"])
def test_splits_keep_the_contract_of_every_task(kind):
    splits = tiny.make_splits(30, 3, kind=kind)
    seen = 0
    for name, table in splits.tables.items():
        assert table.column_names[:1] == ["id"]
        assert {"id", "text", "label"} == set(table.column_names)
        labels = np.array(table["label"])
        assert labels.shape == ((len(table), 3) if kind == "multi_label" else (len(table),))
        assert splits.facts.rows[name] == len(table)
        seen += len(table)
    assert seen == 30 + 15 + 15
    assert splits.labels.num_outputs == (1 if kind == "regression" else 3)


def test_unknown_family_and_too_many_labels_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected one of bert"):
        tiny.make_encoder("gpt", tmp_path)
    with pytest.raises(ValueError, match="expected 2 to 8, got 9"):
        tiny.make_splits(10, 9)
    with pytest.raises(ValueError, match="expected 2, got 1"):
        tiny.make_splits(10, 2, names=["only"])
