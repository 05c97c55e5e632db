"""bf16 may be used only where nobody could tell from the labels."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer

from nlp_transfer.contracts import LabelSpace, Prepared
from nlp_transfer.data.encode import encode_table, read_padding
from nlp_transfer.engine.precision import choose_prediction
from nlp_transfer.engine.predict import half
from nlp_transfer.engine.predict.forward import Feeder
from nlp_transfer.engine.predict.half import Gauge, HalfScorer
from nlp_transfer.engine.predict.logits import pack_model, predict_logits
from nlp_transfer.engine.predict.packed import PackedModel
from nlp_transfer.errors import RecipeError
from nlp_transfer.evaluation.predictions import predict_labels, to_probabilities
from nlp_transfer.models.encoder import load_encoder
from nlp_transfer.recipe.schema import EncoderConfig
from tests.tiny import make_texts

NUM_TEXTS = 150
SPACES = {
    "classification": LabelSpace("classification", ("a", "b", "c")),
    "ordinal": LabelSpace("ordinal", ("1", "2")),
    "multi_label": LabelSpace("multi_label", ("a", "b", "c")),
}


@pytest.fixture
def make_case(tiny_encoder):
    def make(family="bert", space=SPACES["classification"], num_texts=NUM_TEXTS, long_text="truncate"):
        folder = tiny_encoder(family)
        model = load_encoder(EncoderConfig(name=str(folder), dropout=0.0), space, seed=0).model.eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        table = Dataset.from_dict({"text": make_texts(num_texts, seed=5, max_words=40)})
        encoded = encode_table(table, tokenizer, is_pair=False, max_length=24, long_text=long_text)
        pad, side = read_padding(tokenizer)
        return model, Feeder(Prepared({"test": encoded}, space, pad, side), "test", torch.device("cpu"))

    return make


def crowd(model, full):
    """Move the last bias so that margins lie around zero: every label is a close call."""
    (bias,) = (p for name, p in model.named_parameters() if name.endswith("bias") and len(p) == full.shape[1])
    with torch.no_grad():
        bias -= torch.from_numpy(np.median(full, axis=0))


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "distilbert", "albert", "electra"])
def test_labels_are_those_of_float32_though_bf16_would_give_others(make_case, family, kind, monkeypatch):
    space = SPACES[kind]
    model, feeder = make_case(family, space, long_text="windows")
    assert feeder.has_windows
    crowd(model, predict_logits(model, feeder, batch_size=16))
    full = predict_logits(model, feeder, batch_size=16)
    looked = []
    look = HalfScorer._look_again
    monkeypatch.setattr(HalfScorer, "_look_again", lambda *all: looked.append(len(all[2])) or look(*all))
    scorer = HalfScorer(model, space)
    assert scorer.suits(feeder)
    done = []
    found = scorer.predict(feeder, batch_size=16, progress=done.append)
    assert sum(done) == NUM_TEXTS
    assert looked[0] == half.GAUGED
    assert 0 < sum(looked[1:]) < NUM_TEXTS
    expected = predict_labels(to_probabilities(full, space), space)
    assert (predict_labels(to_probabilities(found, space), space) == expected).all()
    assert not np.array_equal(found, full)
    assert np.abs(to_probabilities(found, space) - to_probabilities(full, space)).max() < 0.02
    # A second call knows the errors already.
    known = scorer._gauge.num_observed
    assert known == sum(looked)
    looked.clear()
    again = scorer.predict(feeder, batch_size=16)
    assert scorer._gauge.num_observed == known + sum(looked)
    assert (predict_labels(to_probabilities(again, space), space) == expected).all()


def test_a_label_that_bf16_changes_is_in_doubt(make_case):
    num_wrong = 0
    for family in ("bert", "roberta", "distilbert", "electra"):
        model, feeder = make_case(family, num_texts=400)
        crowd(model, predict_logits(model, feeder, batch_size=16))
        full = predict_logits(model, feeder, batch_size=16)
        rough = half._run(pack_model(model, feeder, torch.bfloat16), feeder, np.arange(400), 16)
        gauge = Gauge(SPACES["classification"])
        gauge.observe(rough[::10], full[::10])
        wrong = np.flatnonzero(rough.argmax(axis=1) != full.argmax(axis=1))
        doubtful = gauge.find_doubtful(rough)
        assert set(wrong) <= set(doubtful)
        assert len(doubtful) < 400
        num_wrong += len(wrong)
    assert num_wrong > 0


def test_what_the_second_look_finds_raises_the_bound():
    gauge = Gauge(SPACES["ordinal"])
    assert gauge.bound == float("inf")
    assert gauge.find_doubtful(np.array([[0.0, 50.0]])).tolist() == [0]
    gauge.observe(np.array([[0.0, 1.0]] * 3), np.array([[0.0, 1.01]] * 3))
    assert gauge.bound == pytest.approx(0.04)
    gauge.observe(np.array([[0.0, 1.0]]), np.array([[0.0, 1.1]]))
    assert gauge.bound == pytest.approx(4 * np.sqrt((3 * 0.01**2 + 0.1**2) / 4))


def test_what_is_no_number_is_in_doubt_and_teaches_nothing():
    gauge = Gauge(SPACES["multi_label"])
    gauge.observe(np.array([[5.0, -5.0, 5.0], [np.nan, 1.0, 1.0]]), np.array([[5.1, -5.0, 5.0], [1.0, 1.0, 1.0]]))
    assert gauge.num_observed == 1
    assert gauge.bound == pytest.approx(0.4)
    assert gauge.find_doubtful(np.array([[5.0, 5.0, np.nan], [1.0, -1.0, 1.0], [0.3, 9.0, 9.0]])).tolist() == [0, 2]


def test_float32_does_what_bf16_does_not_suit(make_case):
    model, feeder = make_case(num_texts=half.LEAST_EXAMPLES)
    assert HalfScorer(model, SPACES["classification"]).suits(feeder)
    assert not HalfScorer(model, LabelSpace("regression", ("score",))).suits(feeder)
    assert not HalfScorer(torch.nn.Linear(2, 2), SPACES["classification"]).suits(feeder)
    _, short = make_case(num_texts=half.LEAST_EXAMPLES - 1)
    assert not HalfScorer(model, SPACES["classification"]).suits(short)
    other, feeder = make_case("mpnet")
    assert not HalfScorer(other, SPACES["classification"]).suits(feeder)


def test_the_copy_is_made_once(make_case, monkeypatch):
    model, feeder = make_case()
    made = []
    build = PackedModel.__init__
    monkeypatch.setattr(PackedModel, "__init__", lambda *all: made.append(all[2]) or build(*all))
    scorer = HalfScorer(model, SPACES["classification"])
    for _ in range(2):
        scorer.predict(feeder, batch_size=16)
    assert made == [torch.float32, torch.bfloat16]
    assert pack_model(model, feeder).dtype == torch.float32


@pytest.mark.parametrize(("gain", "expected"), [(3.0, "bf16"), (1.4, "fp32"), (0.1, "fp32")])
def test_auto_takes_what_was_measured_to_be_faster(gain, expected, monkeypatch):
    monkeypatch.setattr("nlp_transfer.engine.precision.compare_predictions", lambda: gain)
    assert choose_prediction("auto", "cpu").format == expected
    assert choose_prediction("auto", "cuda").format == "fp32"
    assert choose_prediction("bf16", "cpu") == ("bf16", "asked for")


def test_an_unknown_format_is_refused():
    with pytest.raises(RecipeError, match="expected auto, fp32 or bf16, got 'fp16'"):
        choose_prediction("fp16", "cpu")
    with pytest.raises(RecipeError, match="bf16 predicts on a cpu only, this classifier is on cuda"):
        choose_prediction("bf16", "cuda")
