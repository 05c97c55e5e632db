"""Rows without padding get the answers that the model gives to padded ones, on every family."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer

from nlp_transfer.contracts import LabelSpace, Prepared
from nlp_transfer.data.batches import plan_inference
from nlp_transfer.data.encode import encode_table, read_padding
from nlp_transfer.engine.predict import packed
from nlp_transfer.engine.predict.forward import Feeder, compute_logits
from nlp_transfer.engine.predict.logits import compute_packed, order_answers, pack_model, pack_rows, predict_logits
from nlp_transfer.engine.predict.packed import PackedModel, PackedRows
from nlp_transfer.models.blocks import find_stack
from nlp_transfer.models.encoder import load_encoder
from nlp_transfer.recipe.schema import EncoderConfig
from tests.tiny import make_texts

RUN_AS_THEY_ARE = ("deberta-v2", "deberta-v3", "mpnet", "modernbert")
LABELS = LabelSpace("classification", ("a", "b", "c"))


@pytest.fixture
def make_case(tiny_encoder):
    def make(family, *, is_pair=False, long_text="truncate", max_length=40):
        folder = tiny_encoder(family)
        model = load_encoder(EncoderConfig(name=str(folder), dropout=0.0), LABELS, seed=0).model.eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        # One text spells the padding token out.
        columns = {"text": [*make_texts(29, seed=3, max_words=40), f"so {tokenizer.pad_token} what", "no"]}
        if is_pair:
            columns["text_b"] = columns["text"][::-1]
        table = Dataset.from_dict(columns)
        encoded = encode_table(table, tokenizer, is_pair=is_pair, max_length=max_length, long_text=long_text)
        pad, side = read_padding(tokenizer)
        prepared = Prepared({"test": encoded}, LABELS, pad, side)
        return model, Feeder(prepared, "test", torch.device("cpu"))

    return make


def predict_plainly(model, feeder):
    batches = plan_inference(feeder.lengths, batch_size=8)
    with torch.inference_mode():
        parts = [(examples, compute_logits(model, feeder.feed(examples)).numpy()) for examples in batches]
    return order_answers(parts, feeder.encoded.num_examples)


@pytest.mark.parametrize("case", ["texts", "pairs", "windows"])
def test_answers_are_those_of_padded_rows(make_case, family, case, monkeypatch):
    long_text = "windows" if case == "windows" else "truncate"
    model, feeder = make_case(
        family, is_pair=case == "pairs", long_text=long_text, max_length=80 if case == "pairs" else 20
    )
    assert feeder.has_windows == (case == "windows")
    assert len(set(feeder.encoded.lengths.tolist())) > 2
    expected = predict_plainly(model, feeder)
    # Several passes a batch, and a window's text over several of them.
    monkeypatch.setattr("nlp_transfer.engine.predict.logits.PACKED_TOKENS", 50)
    seen = []
    run = PackedModel.__call__
    monkeypatch.setattr(PackedModel, "__call__", lambda *all: seen.append(len(all[1].lengths)) or run(*all))
    found = predict_logits(model, feeder, batch_size=8)
    assert sum(seen) == (0 if family in RUN_AS_THEY_ARE else len(feeder.encoded.lengths))
    assert np.abs(expected).max() > 0.01
    assert np.allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("most", [packed.MOST_SCORE, 0.0])
@pytest.mark.parametrize("short", [0, 64])
def test_bf16_is_near_whichever_way_it_attends(make_case, family, monkeypatch, short, most):
    if family in RUN_AS_THEY_ARE:
        return
    monkeypatch.setattr(packed, "SHORT_LENGTH", short)
    monkeypatch.setattr(packed, "MOST_SCORE", most)
    model, feeder = make_case(family)
    half = pack_model(model, feeder, torch.bfloat16)
    parts, owners = pack_rows(feeder, np.arange(feeder.encoded.num_examples))
    with torch.inference_mode():
        found = torch.cat([half(part) for part in parts]).numpy()
    expected = predict_plainly(model, feeder)[owners]
    assert 0 < np.abs(found - expected).max() < 0.05
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_a_model_that_something_has_changed_runs_as_it_is(make_case):
    model, feeder = make_case("bert")
    assert pack_model(model, feeder) is not None
    layer = model.bert.encoder.layer[1]
    handle = layer.output.register_forward_hook(lambda *_: None)
    assert find_stack(model) is None
    handle.remove()
    assert find_stack(model) is not None
    layer.output.dense = torch.nn.Sequential(layer.output.dense)
    assert find_stack(model) is None
    layer.output.dense = layer.output.dense[0]
    model.forward = model.forward
    assert find_stack(model) is None
    del model.forward
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert pack_model(model, feeder) is None
    feeder._is_left = True
    assert pack_model(model, feeder) is None


def test_rows_of_one_length_make_a_run():
    rows = PackedRows(np.arange(11), np.zeros(11, dtype=np.int64), np.array([4, 3, 3, 1]))
    assert rows.list_runs() == [(0, 1, 4), (4, 2, 3), (10, 1, 1)]


def test_fused_kernels_are_left_alone_where_they_are_not_right(monkeypatch):
    packed.has_fused_linear.cache_clear()
    try:
        monkeypatch.setattr(packed, "gelu", torch.relu)
        assert not packed.has_fused_linear()
        packed.has_fused_linear.cache_clear()
        monkeypatch.setattr(packed.torch.ops, "mkldnn", None)
        assert not packed.has_fused_linear()
    finally:
        packed.has_fused_linear.cache_clear()


@pytest.mark.parametrize("is_fused", [False, True])
def test_fused_kernels_change_no_more_than_rounding(make_case, monkeypatch, is_fused):
    if is_fused and not packed.has_fused_linear():
        pytest.skip("torch has no such kernels for this processor")
    monkeypatch.setattr(packed, "has_fused_linear", lambda: is_fused)
    model, feeder = make_case("bert")
    half = pack_model(model, feeder, torch.bfloat16)
    assert half._encoder._last.up.is_fused == is_fused
    parts, owners = pack_rows(feeder, np.arange(feeder.encoded.num_examples))
    with torch.inference_mode():
        found = torch.cat([half(part) for part in parts]).numpy()
    assert 0 < np.abs(found - predict_plainly(model, feeder)[owners]).max() < 0.05


@pytest.mark.parametrize("largest", [1.0, 200.0])
@pytest.mark.parametrize(("start", "length"), [(0, 33), (70, 70), (106, 60), (0, 64), (40, 62)])
def test_long_rows_read_with_their_neighbors_attend_to_their_own(start, length, largest):
    torch.manual_seed(0)
    count, heads, size = 2, 3, 4
    qkv = torch.randn(228, 3 * heads * size) * largest**0.5
    own = qkv[start : start + count * length].view(count, length, 3, heads, size).permute(2, 0, 3, 1, 4)
    expected = torch.nn.functional.scaled_dot_product_attention(*own.unbind(0), scale=1.0)
    found = packed.attend_long(qkv, start, count, length, heads)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("is_plain", [True, False])
def test_long_rows_in_bf16_get_the_same_answers_either_way(make_case, is_plain, monkeypatch):
    monkeypatch.setattr(packed, "is_plain_faster", lambda: is_plain)
    monkeypatch.setattr(packed, "SHORT_LENGTH", 4)
    model, feeder = make_case("bert")
    expected = predict_plainly(model, feeder)
    half = pack_model(model, feeder, torch.bfloat16)
    examples = np.arange(feeder.encoded.num_examples)
    with torch.inference_mode():
        found = compute_packed(half, feeder, examples).numpy()
    assert np.abs(found - expected).max() < 0.03
