import numpy as np
import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from nlp_transfer.data.encode import encode_table
from nlp_transfer.data.places import NO_WORD, place_words
from nlp_transfer.errors import EncoderError
from tests.tiny import FAMILIES, build_tokenizer, make_texts

SENTENCE = "The superb hotel wasn't  awful, it seemed naïve."


def shown(rows, text, text_b=""):
    return [{"text": text, "text_b": text_b}[word.part][word.start : word.end] for word in rows.words]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("long_text", ["truncate", "head_tail", "windows"])
def test_rows_are_those_that_the_encoder_reads(family, long_text, tiny_encoder):
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder(family))
    seen = 0
    for pair in (False, True):
        for text in make_texts(4, seed=3, min_words=2, max_words=40):
            texts = {"text": text} | ({"text_b": SENTENCE * 2} if pair else {})
            how = {"max_length": 21, "long_text": long_text, "window_overlap": 0.25, "max_windows": 3}
            encoded = encode_table(
                Dataset.from_dict({k: [v] for k, v in texts.items()}), tokenizer, is_pair=pair, in_memory=True, **how
            )
            rows = place_words(tokenizer, **texts, **how)
            assert rows.ids.tolist() == encoded.rows["input_ids"][:]
            assert rows.ids.shape == rows.owners.shape
            # A token without a word is a special one or a mere space, and every word read has a token.
            without = set(rows.ids[rows.owners == NO_WORD].tolist()) - set(tokenizer.all_special_ids)
            assert not any(token.strip("Ġ▁ ") for token in tokenizer.convert_ids_to_tokens(sorted(without)))
            assert rows.is_read.all() == (not encoded.truncated)
            seen += len(rows.words)
    assert seen > 100


@pytest.mark.parametrize("family", FAMILIES)
def test_words_are_whole_and_in_the_order_of_the_text(family, tiny_encoder):
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder(family))
    rows = place_words(tokenizer, SENTENCE, "superb!", max_length=64)
    words = shown(rows, SENTENCE, "superb!")
    assert "wasn't" in words
    assert {"The", "superb", "hotel", "it", "seemed"} <= set(words)
    assert "".join(words) == (SENTENCE + "superb!").replace(" ", "")
    assert [word.part for word in rows.words] == sorted(word.part for word in rows.words)
    assert rows.words[-1].part == "text_b"
    assert rows.is_read.all()


def test_scripts_without_spaces_come_token_by_token():
    text = "飯店很好 ok"
    tokenizer = build_tokenizer("roberta", [*"飯店很好", "ok ok"] * 5)
    assert len(set(tokenizer(text, add_special_tokens=False).word_ids())) == 2
    words = shown(place_words(tokenizer, text, max_length=32), text)
    assert words == [*"飯店很好", "ok"]


def test_what_lies_beyond_the_length_is_a_word_that_is_not_read(tiny_encoder):
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder("bert"))
    rows = place_words(tokenizer, "hotel " * 30, max_length=12)
    assert len(rows.words) == 30
    assert rows.is_read.tolist() == [True] * 10 + [False] * 20
    both = place_words(tokenizer, "hotel " * 30, max_length=12, long_text="head_tail")
    assert np.flatnonzero(both.is_read).tolist() == [*range(5), *range(25, 30)]


def test_tokenizers_that_do_not_know_where_tokens_come_from_are_refused():
    class Slow:
        is_fast = False

    with pytest.raises(EncoderError, match=r"expected a fast tokenizer.*got Slow. Save the encoder"):
        place_words(Slow(), "text", max_length=8)
