"""Both losses of an update, weighted, however its rows are split."""

from dataclasses import replace

import torch
from accelerate import Accelerator
from torch.nn import functional

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.data.encode import encode_splits
from nlp_transfer.engine.predict.forward import Feeder
from nlp_transfer.engine.train.masked_lm import MaskedLanguageLoss, number_examples
from nlp_transfer.engine.train.objectives import sum_cross_entropy
from nlp_transfer.engine.train.window import Rows, WindowStep
from nlp_transfer.methods.mixed_mlm import STREAM, mix_losses
from nlp_transfer.models.encoder import load_encoder, load_tokenizer
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.recipe.schema import DataConfig, EncoderConfig
from tests.tiny import make_splits

CPU = torch.device("cpu")


def test_the_loss_is_the_weighted_sum_of_both_however_it_is_split(tiny_encoder):
    config = EncoderConfig(name=str(tiny_encoder("bert", "masked_lm")), dropout=0.0)
    splits = make_splits(12, 3)
    prepared = encode_splits(splits, load_tokenizer(resolve_encoder(config)), DataConfig(max_length=48))
    model = load_encoder(config, LabelSpace("classification", ("a", "b", "c")), seed=0).model.train()
    loss = MaskedLanguageLoss.build(model, config, device=CPU, seed=3, share=0.3, whole_words=True)
    train = prepared.splits["train"]
    texts = number_examples(replace(train.select(torch.arange(7).numpy()), labels=None))
    feeders = [
        Feeder(replace(prepared, splits={name: rows}), name, CPU) for name, rows in (("train", train), ("more", texts))
    ]

    def run(parts, more_parts):
        model.zero_grad()
        loss.head.zero_grad()
        rows, more = (
            Rows([feeder.feed(torch.tensor(part).numpy()) for part in each], len(each), 1 / sum(map(len, each)))
            for feeder, each in zip(feeders, (parts, more_parts), strict=True)
        )
        step = WindowStep(
            *(model, rows, lambda logits, batch: sum_cross_entropy(logits, batch.labels), Accelerator(cpu=True)),
            *(lambda *_: None, 2, 9, {STREAM: more}),
        )
        found = mix_losses(loss, 0.4)(step)
        gradients = {name: p.grad.clone() for name, p in [*model.named_parameters(), *loss.head.named_parameters()]}
        return found.item(), gradients

    found, gradients = run([range(12)], [range(7)])
    model.zero_grad()
    loss.head.zero_grad()
    batch, more = feeders[0].feed(torch.arange(12).numpy()), feeders[1].feed(torch.arange(7).numpy())
    masked, chosen = loss._mask(more, 2)
    task = functional.cross_entropy(model(**batch.inputs).logits, batch.labels)
    states = model.bert(**{**more.inputs, "input_ids": masked})[0]
    words = functional.cross_entropy(loss.head(states[chosen]), more.inputs["input_ids"][chosen])
    expected = 0.6 * task + 0.4 * words
    expected.backward()
    assert abs(found - expected.item()) < 1e-6
    plain = {name: p.grad for name, p in [*model.named_parameters(), *loss.head.named_parameters()]}
    assert len(plain) > 20
    for each in (gradients, run([[4], range(4), range(5, 12)], [[6, 5], range(5)])[1]):
        for name, gradient in plain.items():
            assert torch.allclose(each[name], torch.zeros(()) if gradient is None else gradient, atol=1e-6), name
