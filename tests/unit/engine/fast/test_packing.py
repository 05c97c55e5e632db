"""Rows without padding give the logits and gradients of padded rows, in every family that asks for its attention."""

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import CamembertConfig, CamembertForSequenceClassification

from nlp_transfer.engine.fast.packing import (
    KERNEL,
    PACKED,
    Layout,
    attend_rows,
    find_packing,
    make_layout,
    watch_calls,
)
from nlp_transfer.engine.fast.unpadded import pack_predictions, pack_rows
from nlp_transfer.engine.predict.forward import Feeder, compute_logits
from nlp_transfer.engine.predict.logits import predict_logits
from nlp_transfer.errors import RecipeError
from nlp_transfer.models.encoder import quiet_loading
from tests.tiny import build_tokenizer, make_config, make_splits
from tests.training import adapt, make_recipe, prepare

CALLING = ("bert", "roberta", "xlm-roberta", "distilbert", "albert", "electra", "modernbert")
"""Families that ask transformers for their attention; the others compute their own."""

CPU = torch.device("cpu")


def build(folder, **overrides):
    recipe = make_recipe(folder, **overrides)
    _, prepared = prepare(recipe, make_splits(24, 3))
    return adapt(recipe, prepared).model, prepared


def step(model, feeder, examples):
    """Logits, gradients and the batch of one pass."""
    model.zero_grad()
    batch = feeder.feed(examples)
    logits = compute_logits(model, batch)
    torch.nn.functional.cross_entropy(logits, batch.labels, reduction="sum").backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return logits.detach(), gradients, batch


def test_a_layout_says_where_real_tokens_are():
    layout = make_layout(np.array([3, 1, 70]), 70)
    assert layout.places[:74].tolist() == [0, 1, 2, 70, *range(140, 210)]
    assert (len(layout.places), layout.num_real, layout.longest) == (80, 74, 128)
    assert layout.starts.tolist() == [0, 3, 4, 74, 80]
    states = torch.randn(3, 70, 2)
    whole = layout.unpack(layout.pack(states))
    real = torch.arange(70) < torch.tensor([3, 1, 70])[:, None]
    assert torch.equal(whole, torch.where(real[..., None], states, 0.0))


def test_few_shapes_and_little_surplus():
    totals = {}
    for real in range(1, 5000):
        layout = make_layout(np.array([real]), real)
        assert layout.starts.tolist() == [0, real, len(layout.places)]
        assert real <= len(layout.places) < real + 64
        assert len(layout.places) < 1.125 * real or real < 64
        totals.setdefault(len(layout.places), []).append(real)
    assert len(totals) < 130
    assert set(totals) >= {8, 16, 256, 272, 1024, 1088, 4992}


@pytest.mark.parametrize("window", [None, 2])
def test_rows_see_only_themselves(window):
    torch.manual_seed(0)
    states = [torch.randn(9, 2, 4, dtype=torch.float64) for _ in range(3)]
    starts = torch.tensor([0, 4, 4, 9], dtype=torch.int32)
    found = attend_rows(*states, starts, 5, scale=0.3, window=window)
    row = torch.tensor([0] * 4 + [1] * 5)
    place = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 4])
    sees = row[:, None] == row
    if window is not None:
        sees &= (place[:, None] - place).abs() <= window
    query, key, value = (each.transpose(0, 1) for each in states)
    weights = (query @ key.transpose(1, 2) * 0.3).masked_fill(~sees, float("-inf")).softmax(-1)
    assert torch.allclose(found, (weights @ value).transpose(0, 1), rtol=0, atol=1e-12)


@pytest.mark.skipif(KERNEL is None, reason="kernel: this torch has no varlen_attn with a scale and a window")
@pytest.mark.parametrize("window", [None, 2])
def test_the_kernel_of_a_gpu_takes_what_it_is_given(window):
    """Shapes and types alone, as there is no GPU: torch follows what it would compute."""
    with FakeTensorMode(), torch.no_grad():
        states = [torch.empty(128, 2, 16, dtype=torch.bfloat16, device="cuda") for _ in range(3)]
        starts = torch.empty(4, dtype=torch.int32, device="cuda")
        out = attend_rows(*states, starts, 64, scale=0.25, window=window)
        assert (out.shape, out.dtype, out.device.type) == ((128, 2, 16), torch.bfloat16, "cuda")


@pytest.mark.parametrize("reads_first", [False, True])
@pytest.mark.parametrize("name", CALLING)
def test_logits_and_gradients_are_those_of_padded_rows(name, reads_first, tiny_encoder):
    model, prepared = build(tiny_encoder(name))
    model.train()
    feeder = Feeder(prepared, "train", CPU)
    lengths = feeder.lengths
    examples = np.arange(9)
    assert len(set(lengths[examples].tolist())) > 3
    expected, plain, padded = step(model, feeder, examples)
    assert padded.layout is None
    with pack_rows(model, feeder, "on", is_half=False, reads_first=reads_first) as unpadded:
        assert unpadded.trains
        assert unpadded.said == "rows are packed, without padding"
        with watch_calls() as calls:
            found, ours, batch = step(model, feeder, examples)
        assert len(calls) == model.config.num_hidden_layers
        assert (batch.num_tokens, batch.num_padded) == (lengths[examples].sum(), len(batch.layout.places))
        # The next pass is not told of a layout, and must not be taken for one that is.
        assert torch.equal(compute_logits(model, padded).detach(), expected)
        with torch.no_grad():
            assert torch.allclose(compute_logits(model.eval(), feeder.feed(examples)), expected, rtol=0, atol=1e-5)
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)
    assert ours.keys() == plain.keys()
    assert len(ours) > 10
    for key, gradient in plain.items():
        assert torch.allclose(ours[key], gradient, rtol=0, atol=1e-5), key


def test_camembert_goes_the_way_of_its_family(tiny_encoder):
    _, prepared = build(tiny_encoder("xlm-roberta"))
    settings = make_config("xlm-roberta", build_tokenizer("xlm-roberta")).to_dict()
    config = CamembertConfig(**{key: value for key, value in settings.items() if key != "model_type"}, num_labels=3)
    model = CamembertForSequenceClassification(config)
    feeder, examples = Feeder(prepared, "train", CPU), np.arange(7)
    expected, plain, _ = step(model, feeder, examples)
    with pack_rows(model, feeder, "on", is_half=False, reads_first=True):
        found, ours, _ = step(model, feeder, examples)
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)
    assert all(torch.allclose(ours[key], plain[key], rtol=0, atol=1e-5) for key in plain)


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 8])
def test_the_kernel_gives_what_attention_row_by_row_gives(window):
    torch.manual_seed(0)
    starts = torch.tensor([0, 5, 6, 70, 70, 100, 128], dtype=torch.int32, device="cuda")
    halves = [torch.randn(128, 4, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    whole = [each.detach().float().requires_grad_(True) for each in halves]
    found = []
    for states in (halves, whole):
        out = attend_rows(*states, starts, 64, scale=0.125, window=window)
        found.append((out, *torch.autograd.grad(out.float().square().sum(), states)))
    for ours, plain in zip(*found, strict=True):
        assert (ours.float() - plain).abs().max() < 2e-2 * plain.abs().max()


@pytest.mark.gpu
@pytest.mark.parametrize("name", CALLING)
def test_on_a_gpu_packed_rows_are_as_exact_as_padded_ones(name, tiny_encoder):
    model, prepared = build(tiny_encoder(name))
    feeder, examples = Feeder(prepared, "train", torch.device("cuda")), np.arange(16)
    model.to("cuda").train()
    exact, *_ = step(model, feeder, examples)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        padded, *_ = step(model, feeder, examples)
        with pack_rows(model, feeder, "auto", is_half=True, reads_first=True) as unpadded:
            assert unpadded.trains
            packed, *_ = step(model, feeder, examples)
    assert (packed - exact).abs().max() <= 2 * (padded - exact).abs().max() + 1e-2


@pytest.mark.parametrize("name", ["mpnet", "deberta-v2", "deberta-v3"])
def test_a_family_with_its_own_attention_is_found_out_and_padded(name, tiny_encoder):
    model, prepared = build(tiny_encoder(name))
    feeder = Feeder(prepared, "train", CPU)
    implementation = model.config._attn_implementation
    with (
        pytest.raises(RecipeError, match=r"training\.packing: .* Use auto\."),
        pack_rows(model, feeder, "on", is_half=False),
    ):
        pass
    assert model.config._attn_implementation == implementation
    assert feeder.packing is None


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_both_ways_of_modernbert_to_pool_read_unpacked_states(pooling, tiny_encoder):
    model, prepared = build(tiny_encoder("modernbert"))
    model.config.classifier_pooling = pooling
    feeder, examples = Feeder(prepared, "train", CPU), np.arange(7)
    expected, plain, _ = step(model, feeder, examples)
    with pack_rows(model, feeder, "on", is_half=False):
        found, ours, _ = step(model, feeder, examples)
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)
    assert all(torch.allclose(ours[key], plain[key], rtol=0, atol=1e-5) for key in plain)


def test_layers_that_are_run_again_on_the_way_back_know_their_rows(tiny_encoder):
    model, prepared = build(tiny_encoder("bert"))
    feeder, examples = Feeder(prepared, "train", CPU), np.arange(7)
    model.train()
    expected, plain, _ = step(model, feeder, examples)
    with quiet_loading():
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    with pack_rows(model, feeder, "on", is_half=False), watch_calls() as calls:
        found, ours, _ = step(model, feeder, examples)
    assert len(calls) == 2 * model.config.num_hidden_layers
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)
    assert all(torch.allclose(ours[key], plain[key], rtol=0, atol=1e-5) for key in plain)


def test_low_rank_updates_are_packed_through_their_wrapper(tiny_encoder):
    model, prepared = build(tiny_encoder("bert"), strategy__kind="lora", strategy__dropout=0.0)
    feeder, examples = Feeder(prepared, "train", CPU), np.arange(7)
    expected, plain, _ = step(model, feeder, examples)
    with pack_rows(model, feeder, "on", is_half=False):
        found, ours, _ = step(model, feeder, examples)
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)
    assert all(torch.allclose(ours[key], plain[key], rtol=0, atol=1e-5) for key in plain)


def test_prompts_in_front_of_the_text_are_refused(tiny_encoder):
    model, prepared = build(tiny_encoder("bert"), strategy__kind="prompts", strategy__variant="prompt")
    with (
        pytest.raises(RecipeError, match=r"training\.packing"),
        pack_rows(model, Feeder(prepared, "train", CPU), "on", is_half=False),
    ):
        pass


def test_attention_dropout_is_said_and_everything_else_still_drawn(tiny_encoder):
    model, prepared = build(tiny_encoder("bert"))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.25
    state = torch.random.get_rng_state()
    with pack_rows(model, Feeder(prepared, "train", CPU), "on", is_half=False) as unpadded:
        assert unpadded.said == "rows are packed, without padding; attention dropout of 0.25 is left out"
        assert torch.equal(torch.random.get_rng_state(), state)


def test_auto_pads_on_a_processor_and_off_everywhere(tiny_encoder):
    model, prepared = build(tiny_encoder("bert"))
    feeder = Feeder(prepared, "train", CPU)
    for wanted, said in (("auto", "rows are padded: cpu has no"), ("off", "rows are padded: asked for")):
        with pack_rows(model, feeder, wanted, is_half=True) as unpadded:
            assert unpadded.said.startswith(said)
            assert (unpadded.packing, unpadded.trains, feeder.packing) == (None, False, None)
            assert find_packing(model) is None


def test_auto_on_a_gpu_packs_only_what_it_does_not_change(tiny_encoder, monkeypatch):
    """The decision of a GPU, made on the CPU: it runs in half precision and has the kernel."""
    model, prepared = build(tiny_encoder("bert"))
    feeder = Feeder(prepared, "train", CPU)
    monkeypatch.setattr("nlp_transfer.engine.fast.unpadded._packs_by_itself", lambda device: True)
    with pack_rows(model, feeder, "auto", is_half=True) as unpadded:
        assert unpadded.trains
        assert find_packing(model) is unpadded.packing is feeder.packing
        assert model.config._attn_implementation == PACKED
    assert find_packing(model) is None
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    with pack_rows(model, feeder, "auto", is_half=True) as unpadded:
        assert not unpadded.trains
        assert unpadded.packing is not None
        assert unpadded.said.endswith("attention dropout of 0.1 would be left out. training.packing=on allows that")
        assert feeder.packing is None


def test_predictions_are_packed_whatever_dropout_there_was(tiny_encoder):
    model, prepared = build(tiny_encoder("bert"))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    feeder = Feeder(prepared, "test", CPU)
    expected = predict_logits(model, feeder, batch_size=5)
    with pack_predictions(model, feeder, wanted="on", is_half=False), watch_calls() as calls:
        found = predict_logits(model, feeder, batch_size=5)
    assert len(calls) == 3 * model.config.num_hidden_layers
    assert np.allclose(found, expected, rtol=0, atol=1e-5)
    assert feeder.packing is None


def test_rows_that_would_read_each_other_are_found_out(tiny_encoder, monkeypatch):
    model, prepared = build(tiny_encoder("bert"))
    feeder = Feeder(prepared, "train", CPU)
    plain = make_layout

    def mix(counts, width):
        layout = plain(counts, width)
        joined = torch.tensor([0, layout.num_real, len(layout.places)], dtype=torch.int32)
        return Layout(layout.places, joined, layout.longest, layout.num_real, layout.num_rows, layout.width)

    monkeypatch.setattr("nlp_transfer.engine.predict.forward.make_layout", mix)
    with (
        pytest.raises(RecipeError, match="other logits than padded ones"),
        pack_rows(model, feeder, "on", is_half=False),
    ):
        pass
