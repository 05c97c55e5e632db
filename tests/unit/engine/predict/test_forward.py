"""Predictions do not depend on batches, and windows of one text share the mean of their logits."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value
from torch import nn

from nlp_transfer.contracts import Encoded, LabelSpace, Prepared
from nlp_transfer.engine.predict.forward import Feeder, compute_logits
from nlp_transfer.engine.predict.logits import predict_logits
from nlp_transfer.errors import ShapeError


class Summer(nn.Module):
    """Logits are the sum and the count of the real tokens."""

    def forward(self, input_ids, attention_mask):
        real = attention_mask.float()
        return SimpleNamespace(logits=torch.stack([(input_ids * real).sum(1), real.sum(1)], dim=1))


def make_prepared(rows: list[list[int]], examples: list[int]) -> Prepared:
    num = max(examples) + 1
    encoded = Encoded(
        rows=Dataset.from_dict({"input_ids": rows}, features=Features({"input_ids": List(Value("int32"))})),
        lengths=np.array([len(row) for row in rows], dtype=np.int32),
        examples=np.array(examples),
        labels=np.arange(num),
        num_examples=num,
        truncated=0,
    )
    return Prepared({"train": encoded}, LabelSpace("classification", ("a", "b")), {"input_ids": 0})


ROWS = [[1, 2], [3], [4, 5, 6], [7, 8], [9]]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_every_example_is_scored_once_in_its_place(batch_size):
    feeder = Feeder(make_prepared(ROWS, [0, 1, 2, 3, 4]), "train", torch.device("cpu"))
    found = predict_logits(Summer(), feeder, batch_size=batch_size)
    assert found.tolist() == [[3, 2], [3, 1], [15, 3], [15, 2], [9, 1]]
    assert found.dtype == np.float32


def test_windows_share_the_mean_of_their_logits():
    feeder = Feeder(make_prepared(ROWS, [0, 1, 1, 1, 2]), "train", torch.device("cpu"))
    assert feeder.has_windows
    assert feeder.lengths.tolist() == [2, 6, 1]
    batch = feeder.feed(np.array([1, 0]))
    assert batch.labels is not None
    assert batch.labels.tolist() == [1, 0]
    assert (batch.num_examples, batch.num_tokens, batch.num_padded) == (2, 8, 12)
    assert compute_logits(Summer(), batch).tolist() == [[11, 2], [3, 2]]
    assert predict_logits(Summer(), feeder, batch_size=2).tolist() == [[3, 2], [11, 2], [9, 1]]


def test_processes_share_the_work_and_a_lost_part_is_noticed():
    feeder = Feeder(make_prepared(ROWS, [0, 1, 2, 3, 4]), "train", torch.device("cpu"))
    whole = predict_logits(Summer(), feeder, batch_size=1)
    parts = []
    for rank in range(2):
        with pytest.raises(ShapeError, match="each of 5 examples once"):
            predict_logits(
                Summer(), feeder, batch_size=1, num_processes=2, rank=rank, gather=lambda own: parts.extend(own) or own
            )
    assert len(parts) == 5
    joined = predict_logits(Summer(), feeder, batch_size=1, num_processes=2, rank=0, gather=lambda _: parts)
    assert (joined == whole).all()


def test_the_mode_of_the_model_is_restored():
    feeder = Feeder(make_prepared(ROWS, [0, 1, 2, 3, 4]), "train", torch.device("cpu"))
    model = Summer().train()
    predict_logits(model, feeder, batch_size=2)
    assert model.training
