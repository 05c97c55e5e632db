"""The masked-language loss against transformers' own, and however an update is split."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from torch.nn import functional
from transformers import AutoModelForMaskedLM

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.data.encode import encode_splits
from nlp_transfer.engine.predict.forward import Feeder
from nlp_transfer.engine.train.masked_lm import MaskedLanguageLoss, number_examples
from nlp_transfer.engine.train.window import Rows, WindowStep
from nlp_transfer.models.encoder import load_encoder, load_tokenizer
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.recipe.schema import DataConfig, EncoderConfig
from tests.tiny import FAMILIES, make_splits

CPU = torch.device("cpu")


def prepare(encoder, long_text="truncate", max_length=48):
    """A classifier without dropout, its masked-language loss, and what feeds twelve numbered texts."""
    config = EncoderConfig(name=str(encoder), dropout=0.0)
    splits = make_splits(12, 3)
    data = DataConfig(max_length=max_length, long_text=long_text)
    prepared = encode_splits(splits, load_tokenizer(resolve_encoder(config)), data)
    model = load_encoder(config, LabelSpace("classification", ("a", "b", "c")), seed=0).model.train()
    loss = replace(
        MaskedLanguageLoss.build(model, config, device=CPU, seed=3, share=0.3, whole_words=True), alone_share=0.0
    )
    numbered = number_examples(prepared.splits["train"])
    return model, loss, Feeder(replace(prepared, splits={"train": numbered}), "train", CPU)


def run(model, loss, feeder, parts):
    """The loss and every gradient of one update, split into parts."""
    model.zero_grad()
    loss.head.zero_grad()
    rows = Rows([feeder.feed(torch.tensor(part).numpy()) for part in parts], len(parts), 1 / 12)
    step = WindowStep(model, rows, lambda logits, _: logits.sum(), Accelerator(cpu=True), lambda *_: None, step=4)
    found = loss.add_gradients(step, rows)
    return found, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpoint", ["base", "masked_lm"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_transformers_on_the_same_masks(family, checkpoint, tiny_encoder):
    if checkpoint == "masked_lm" and family not in ("bert", "roberta", "modernbert"):
        pytest.skip("one checkpoint with a head of each kind is enough")
    encoder = tiny_encoder(family, checkpoint)
    model, loss, feeder = prepare(encoder)
    assert loss.head.is_new == (checkpoint == "base")
    ours, gradients = run(model, loss, feeder, [range(12)])
    theirs = AutoModelForMaskedLM.from_pretrained(encoder).train()
    for module in theirs.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    own = {name.partition(".")[2]: tensor for name, tensor in loss.head.state_dict().items()}
    theirs.load_state_dict({**own, **{k: v for k, v in theirs.state_dict().items() if k not in own}})
    batch = feeder.feed(torch.arange(12).numpy())
    masked, chosen = loss._mask(batch, 4)
    assert chosen.sum() > 20
    labels = torch.where(chosen, batch.inputs["input_ids"], -100)
    expected = theirs(**{**batch.inputs, "input_ids": masked}, labels=labels).loss
    assert abs(float(ours) - expected.item()) <= 1e-5
    expected.backward()
    embedding = theirs.get_input_embeddings().weight.grad
    name = next(n for n, p in model.named_parameters() if p is model.get_input_embeddings().weight)
    assert embedding is not None
    assert torch.allclose(gradients[name], embedding, atol=1e-6)


@pytest.mark.parametrize(("long_text", "max_length"), [("truncate", 48), ("windows", 12)])
def test_gradients_do_not_depend_on_how_an_update_is_split(long_text, max_length, tiny_encoder):
    model, loss, feeder = prepare(tiny_encoder("bert"), long_text, max_length)
    assert feeder.has_windows == (long_text == "windows")
    whole, expected = run(model, loss, feeder, [range(12)])
    assert len(expected) > 10
    for parts in ([range(5), range(5, 12)], [[3], [0, 1, 2], [11, 10], [4, 5, 6, 7, 8, 9]]):
        found, gradients = run(model, loss, feeder, parts)
        assert abs(float(found) - float(whole)) < 1e-5
        assert gradients.keys() == expected.keys()
        assert max(float((gradients[name] - expected[name]).abs().max()) for name in expected) < 1e-6


def test_the_figure_of_a_split_is_that_of_a_plain_loop_and_leaves_modes_alone(tiny_encoder):
    model, loss, feeder = prepare(tiny_encoder("bert"))
    total, count = 0.0, 0
    for number in range(12):
        batch = feeder.feed(torch.tensor([number]).numpy())
        masked, chosen = loss._mask(batch, 2**62)
        with torch.no_grad():
            states = model.bert(**{**batch.inputs, "input_ids": masked})[0]
            logits = loss.head(states[chosen])
        total += float(functional.cross_entropy(logits, batch.inputs["input_ids"][chosen], reduction="sum"))
        count += int(chosen.sum())
    assert loss.measure(model, feeder) == pytest.approx(total / count, abs=1e-6)
    assert model.training
    assert loss.head.training
