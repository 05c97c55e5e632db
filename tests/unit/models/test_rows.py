"""Tokens go where they are told to, and padding stays what the tokenizer made it."""

import pytest
import torch

from nlp_transfer.models.rows import find_ends, splice_tokens

# Not 0, so that padding is told from a place that was never written to.
PAD, PAD_TYPE = 9, 3


def make(*rows):
    ids = torch.tensor(rows)
    mask = ids != PAD
    types = torch.where(mask, 0, PAD_TYPE)
    return {"input_ids": ids, "attention_mask": mask.long(), "token_type_ids": types}


@pytest.mark.parametrize(
    ("row", "longer"),
    [
        ([1, 5, 6, 2], [1, 5, 6, 2, 7, 8]),
        ([1, 2, PAD, PAD], [1, 2, 7, 8, PAD, PAD]),
        ([PAD, PAD, 1, 2], [PAD, PAD, 1, 2, 7, 8]),
    ],
)
def test_rows_get_tokens_behind_their_end_and_keep_their_padding(row, longer):
    rows = make([1, 5, 6, 2], row)
    before = {name: tensor.clone() for name, tensor in rows.items()}
    _, last_B = find_ends(rows["attention_mask"])
    found = splice_tokens(rows, last_B + 1, [7, 8], [1, 2])
    assert found["input_ids"].tolist() == [[1, 5, 6, 2, 7, 8], longer]
    assert found["attention_mask"].tolist()[1] == [int(token != PAD) for token in longer]
    assert found["token_type_ids"].tolist()[1] == [{7: 1, 8: 2, PAD: PAD_TYPE}.get(token, 0) for token in longer]
    assert all(torch.equal(rows[name], before[name]) for name in rows), "inputs are left alone"


def test_types_are_zero_where_none_are_given_and_absent_where_rows_have_none():
    rows = make([1, 5, 2, PAD])
    assert splice_tokens(rows, torch.tensor([1]), [7])["token_type_ids"].tolist() == [[0, 0, 0, 0, PAD_TYPE]]
    del rows["token_type_ids"]
    found = splice_tokens(rows, torch.tensor([1]), [7])
    assert found.keys() == {"input_ids", "attention_mask"}
    assert found["input_ids"].tolist() == [[1, 7, 5, 2, PAD]]
