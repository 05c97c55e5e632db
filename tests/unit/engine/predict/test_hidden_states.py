"""States of a frozen encoder without padding are those of its own forward pass, on every family."""

import numpy as np
import pytest
import torch

from nlp_transfer.engine.predict import hidden_states as states
from nlp_transfer.engine.predict.forward import iterate_rows
from nlp_transfer.engine.predict.hidden_states import FrozenReader, find_reader
from nlp_transfer.engine.predict.packed import PackedEncoder
from nlp_transfer.engine.predict.vectors import extract_vectors
from nlp_transfer.fitting.stages import build_cache
from nlp_transfer.models.blocks import find_stack
from nlp_transfer.models.encoder import load_encoder
from nlp_transfer.models.layers import find_parts
from nlp_transfer.recipe.schema import EncoderConfig
from nlp_transfer.strategies import PrefixPlan
from tests.unit.engine.predict.test_packed import RUN_AS_THEY_ARE
from tests.unit.engine.predict.test_vectors import make

CPU = torch.device("cpu")


def get_encoder(model):
    return getattr(model, model.base_model_prefix)


def read_all(reader, prepared, split="train"):
    """Layer to row to its states, in float32."""
    found = {}
    for part in reader.read(prepared, split):
        for layer in part.layers:
            for rows, own in part.find_runs(layer):
                found.setdefault(layer, {}).update(zip(rows.tolist(), own, strict=True))
    return found


@pytest.fixture
def exact(monkeypatch):
    """Readers that compute in float32, of few rows too, so that only the way is compared."""
    monkeypatch.setattr(states, "LEAST_ROWS", 1)
    monkeypatch.setattr(
        states, "PackedEncoder", lambda stack, _, last, **rest: PackedEncoder(stack, torch.float32, last, **rest)
    )


@pytest.mark.parametrize("is_bare", [True, False])
def test_states_of_every_layer_are_the_encoders_own(family, is_bare, tiny_encoder, exact):
    _, _, prepared, _ = make(tiny_encoder(family))
    model = load_encoder(EncoderConfig(name=str(tiny_encoder(family))), prepared.labels, seed=0).model.eval()
    total = model.config.num_hidden_layers
    wanted = list(range(total + 1))
    reader = find_reader(get_encoder(model) if is_bare else model, prepared, "train", wanted)
    if family in RUN_AS_THEY_ARE:
        assert reader is None
        return
    found = read_all(reader, prepared)
    assert sorted(found) == wanted
    seen = 0
    for rows, inputs in iterate_rows(prepared, "train", CPU):
        with torch.no_grad():
            expected = get_encoder(model)(**inputs, output_hidden_states=True).hidden_states
        for place, row in enumerate(rows.tolist()):
            length = int(inputs["attention_mask"][place].sum())
            for layer in wanted:
                assert torch.allclose(found[layer][row], expected[layer][place, :length], atol=2e-5)
            seen += 1
    assert seen == len(prepared.splits["train"].lengths)


@pytest.mark.parametrize("num_layers", [0, 1, 2])
def test_a_cached_prefix_is_the_one_of_padded_rows(family, num_layers, tiny_encoder, exact):
    _, _, prepared, _ = make(tiny_encoder(family))
    model = load_encoder(EncoderConfig(name=str(tiny_encoder(family))), prepared.labels, seed=0).model
    parts = find_parts(model)
    plan = PrefixPlan(parts, min(num_layers, len(parts.layers)))
    caches = []
    for half in (False, True):
        cache = build_cache(model, plan, prepared, CPU, half=half)
        cache.prefix.remove()
        caches.append(cache.states)
    assert caches[0].keys() == caches[1].keys() == {"train", "validation"}
    for split, plain in caches[0].items():
        assert np.array_equal(plain.starts, caches[1][split].starts)
        assert np.abs(plain.values - caches[1][split].values).max() < 2e-5


@pytest.mark.parametrize("pooling", ["first", "mean", "max"])
@pytest.mark.parametrize("long_text", ["truncate", "windows"])
def test_vectors_without_padding_are_the_same(pooling, long_text, tiny_encoder, exact):
    _, _, prepared, encoder = make(tiny_encoder("bert"), long_text=long_text)
    options = {"layers": [1, 2], "combine": "concat", "pooling": pooling}
    plain = extract_vectors(encoder, prepared, "train", **options)
    assert np.abs(extract_vectors(encoder, prepared, "train", half=True, **options) - plain).max() < 2e-5


def test_bf16_moves_a_vector_by_its_rounding_error(tiny_encoder, monkeypatch):
    monkeypatch.setattr(states, "LEAST_ROWS", 1)
    _, _, prepared, encoder = make(tiny_encoder("roberta"))
    plain = extract_vectors(encoder, prepared, "train", layers=[2], normalize=True)
    half = extract_vectors(encoder, prepared, "train", layers=[2], normalize=True, half=True)
    moved = np.linalg.norm(half - plain, axis=1)
    assert 0 < moved.max() < 0.02


def test_few_rows_and_wrapped_encoders_are_run_as_they_are(tiny_encoder, monkeypatch):
    _, _, prepared, encoder = make(tiny_encoder("bert"))
    assert find_reader(encoder, prepared, "train", [2]) is None
    monkeypatch.setattr(states, "LEAST_ROWS", 1)
    assert isinstance(find_reader(encoder, prepared, "train", [2]), FrozenReader)
    encoder.encoder.layer[0].register_forward_hook(lambda *_: None)
    assert find_reader(encoder, prepared, "train", [2]) is None
    assert find_stack(encoder) is None
