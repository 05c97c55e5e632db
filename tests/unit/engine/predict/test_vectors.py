"""Vectors of a frozen encoder: what they are, and when they come from the cache."""

import numpy as np
import pytest
import torch
from transformers import AutoModel

from nlp_transfer.data.encode import encode_splits
from nlp_transfer.data.fingerprints import hash_rows
from nlp_transfer.engine.predict import vectors
from nlp_transfer.engine.predict.vectors import extract_vectors, hash_weights
from nlp_transfer.errors import StorageError
from nlp_transfer.models.encoder import load_tokenizer
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.models.vector_classifier import drop_pooler
from nlp_transfer.recipe.schema import DataConfig, EncoderConfig
from tests.tiny import FAMILIES, make_splits


def make(folder, n=40, **data):
    splits = make_splits(n, 3)
    tokenizer = load_tokenizer(resolve_encoder(EncoderConfig(name=str(folder))))
    prepared = encode_splits(splits, tokenizer, DataConfig(max_length=48, **data))
    return splits, tokenizer, prepared, drop_pooler(AutoModel.from_pretrained(folder).eval())


def read_by_hand(encoder, tokenizer, texts, layer, pooling):
    """One text at a time, without padding."""
    found = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=48)
        with torch.no_grad():
            output = encoder(**inputs, output_hidden_states=True)
        last = encoder.config.num_hidden_layers
        states = (output.last_hidden_state if layer == last else output.hidden_states[layer])[0]
        found.append({"first": states[0], "mean": states.mean(0), "max": states.amax(0)}[pooling])
    return torch.stack(found).numpy()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("layer", "pooling"), [(2, "mean"), (1, "max"), (0, "first")])
def test_vectors_are_those_of_each_text_alone(family, layer, pooling, tiny_encoder):
    splits, tokenizer, prepared, encoder = make(tiny_encoder(family))
    found = extract_vectors(encoder, prepared, "train", layers=[layer], pooling=pooling)
    expected = read_by_hand(encoder, tokenizer, splits.tables["train"]["text"], layer, pooling)
    assert found.shape == expected.shape == (40, 32)
    assert np.abs(found - expected).max() < 2e-5


def test_layers_are_averaged_or_stand_side_by_side_and_lengths_become_one(tiny_encoder):
    _, _, prepared, encoder = make(tiny_encoder("bert"))
    single = [extract_vectors(encoder, prepared, "test", layers=[layer]) for layer in (0, 2)]
    both = extract_vectors(encoder, prepared, "test", layers=[0, 2], combine="concat")
    assert np.array_equal(both, np.concatenate(single, axis=1))
    mean = extract_vectors(encoder, prepared, "test", layers=[0, 2])
    assert np.allclose(mean, (single[0] + single[1]) / 2, atol=1e-7)
    scaled = extract_vectors(encoder, prepared, "test", layers=[2], normalize=True)
    assert np.allclose(np.linalg.norm(scaled, axis=1), 1, atol=1e-6)
    assert np.allclose(scaled, single[1] / np.linalg.norm(single[1], axis=1, keepdims=True), atol=1e-7)


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """Counts passes of the encoder; everything is kept, in a cache of its own."""
    passes = []
    run = vectors._run_encoder

    def watch(encoder, prepared, split, layers, *rest):
        passes.append((split, tuple(layers)))
        return run(encoder, prepared, split, layers, *rest)

    monkeypatch.setattr(vectors, "_run_encoder", watch)
    monkeypatch.setattr(vectors, "FEWEST_KEPT", 1)
    monkeypatch.setattr(vectors.datasets.config, "HF_DATASETS_CACHE", tmp_path)
    return passes


def test_vectors_are_made_once_and_shared_between_choices_of_layers(counted, tiny_encoder):
    _, _, prepared, encoder = make(tiny_encoder("bert"))
    first = extract_vectors(encoder, prepared, "train", layers=[2])
    again = extract_vectors(encoder, prepared, "train", layers=[2])
    assert np.array_equal(first, again)
    assert counted == [("train", (2,))]
    extract_vectors(encoder, prepared, "train", layers=[1, 2], normalize=True)
    assert counted == [("train", (2,)), ("train", (1,))], "only the layer that was not there"
    extract_vectors(encoder, prepared, "train", layers=[2], pooling="first")
    extract_vectors(encoder, prepared, "test", layers=[2])
    assert len(counted) == 4


def test_other_weights_or_other_tokens_are_other_vectors(counted, tiny_encoder):
    _, _, prepared, encoder = make(tiny_encoder("bert"))
    _, _, other, _ = make(tiny_encoder("bert"), n=41)
    extract_vectors(encoder, prepared, "train", layers=[2])
    weights, rows = hash_weights(encoder), hash_rows(prepared.splits["train"])
    with torch.no_grad():
        encoder.encoder.layer[0].output.dense.weight[0, 0] += 1e-6
    assert hash_weights(encoder) != weights
    assert hash_rows(other.splits["train"]) != rows == hash_rows(prepared.splits["train"])
    extract_vectors(encoder, prepared, "train", layers=[2])
    extract_vectors(encoder, other, "train", layers=[2])
    assert len(counted) == 3


def test_a_damaged_entry_is_made_again(counted, tiny_encoder, tmp_path):
    _, _, prepared, encoder = make(tiny_encoder("bert"))
    expected = extract_vectors(encoder, prepared, "train", layers=[2])
    (entry,) = (tmp_path / "nlp_transfer" / "vectors").iterdir()
    for content in (b"", entry.read_bytes()[:200], b"no array at all", entry.read_bytes() + b"x"):
        entry.write_bytes(content)
        found = extract_vectors(encoder, prepared, "train", layers=[2])
        assert np.array_equal(found, expected)
    assert 4 <= len(counted) <= 5


def test_a_full_disk_is_told(counted, tiny_encoder, monkeypatch):
    _, _, prepared, encoder = make(tiny_encoder("bert"))

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vectors.os, "fsync", refuse)
    with pytest.raises(StorageError, match=r"No space left.*HF_DATASETS_CACHE"):
        extract_vectors(encoder, prepared, "train", layers=[2])


def test_windows_of_a_text_share_the_mean_of_their_vectors(tiny_encoder):
    _, _, prepared, encoder = make(tiny_encoder("bert"))
    _, _, windows, _ = make(tiny_encoder("bert"))
    del windows
    splits, tokenizer, _, _ = make(tiny_encoder("bert"))
    data = DataConfig(max_length=12, long_text="windows")
    cut = encode_splits(splits, tokenizer, data)
    encoded = cut.splits["train"]
    assert len(encoded.lengths) > encoded.num_examples == 40
    found = extract_vectors(encoder, cut, "train", layers=[2])
    rows = [torch.tensor([row]) for row in encoded.rows["input_ids"]]
    with torch.no_grad():
        each = np.stack([encoder(input_ids=ids).last_hidden_state[0].mean(0).numpy() for ids in rows])
    expected = np.stack([each[encoded.examples == example].mean(0) for example in range(40)])
    assert np.abs(found - expected).max() < 2e-5
    assert prepared.splits["train"].num_examples == 40
