"""Cloze questions: where tokens go, which words are taken, and what the gap's logits are."""

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import RecipeError
from nlp_transfer.models.cloze import ClozeClassifier, insert_tokens, read_pattern
from tests.tiny import FAMILIES, make_texts

LABELS = LabelSpace("classification", ("no", "yes", "maybe"))
WORDS = ("the", "everyone", "room")


def build(folder, pattern="on the {text} a room was {mask} ."):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = AutoModelForMaskedLM.from_pretrained(folder).eval()
    front, back, words = read_pattern(pattern, WORDS, tokenizer)
    gap = back.index(tokenizer.mask_token_id)
    return tokenizer, ClozeClassifier(encoder, LABELS, front=front, back=back, gap=gap, words=words)


SIDES = [(family, "right") for family in FAMILIES] + [("roberta", "left"), ("modernbert", "left")]
"""The others count positions from the start of the row, padding or not."""


@pytest.mark.parametrize(("family", "side"), SIDES)
def test_the_gap_is_scored_as_the_plain_model_scores_it_text_by_text(family, side, tiny_encoder):
    tokenizer, model = build(tiny_encoder(family, "masked_lm"))
    tokenizer.padding_side = side
    texts = make_texts(6, seed=4)
    with torch.no_grad():
        found = model.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits
        for text, row in zip(texts, found, strict=True):
            ids = tokenizer(text)["input_ids"]
            ids = torch.tensor([[ids[0], *model.front, *ids[1:-1], *model.back, ids[-1]]])
            logits = model.encoder(input_ids=ids).logits[0]
            place = ids[0].tolist().index(tokenizer.mask_token_id)
            assert torch.allclose(row, logits[place, model.words], atol=1e-5)
    assert found.shape == (6, 3)


def test_rows_of_any_length_and_side_get_their_tokens_in_place():
    rows = {
        "input_ids": torch.tensor([[1, 7, 8, 2], [0, 1, 7, 2], [1, 2, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 0, 0]]),
        "token_type_ids": torch.zeros(3, 4, dtype=torch.long),
    }
    longer, place = insert_tokens(rows, [5], [3, 4])
    assert longer["input_ids"].tolist() == [[1, 5, 7, 8, 3, 4, 2], [0, 1, 5, 7, 3, 4, 2], [1, 5, 3, 4, 2, 0, 0]]
    assert longer["attention_mask"].sum(1).tolist() == [7, 6, 5]
    assert longer["token_type_ids"].shape == (3, 7)
    assert place.tolist() == [4, 4, 2]
    unchanged, _ = insert_tokens(rows, [], [])
    assert all(torch.equal(unchanged[name], rows[name]) for name in rows)


@pytest.mark.parametrize(
    ("pattern", "words", "said"),
    [
        ("{text} and no gap", WORDS, "once behind it"),
        ("{mask} stands before {text}", WORDS, "once behind it"),
        ("{text} {mask} {mask}", WORDS, "once behind it"),
        ("no text {mask}", WORDS, "once behind it"),
        ("{text} a {mask}", ("the", "extraordinarily", "room"), "'extraordinarily'"),
        ("{text} a {mask}", ("the", "", "room"), "one token"),
    ],
)
def test_what_cannot_be_asked_is_refused(pattern, words, said, tiny_encoder):
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder("bert", "masked_lm"))
    with pytest.raises(RecipeError, match=said):
        read_pattern(pattern, words, tokenizer)
