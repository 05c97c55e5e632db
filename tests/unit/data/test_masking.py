"""Which words are hidden: a function of seed, step and row, whole words, and the shares that are asked for."""

import numpy as np
import pytest
import torch

from nlp_transfer.data.masking import draw_uniform, find_word_starts, make_masker
from tests.tiny import build_tokenizer

TEXTS = ["A wonderfully unpretentious film, warm and funny.", "Dull.", "It never finds its footing; skip it!"]


def test_numbers_depend_on_their_keys_alone_and_are_even():
    rows, places = torch.arange(200)[:, None], torch.arange(300)[None]
    drawn = draw_uniform(3, rows, places)
    assert drawn.shape == (200, 300)
    assert torch.equal(draw_uniform(3, rows[[7, 2]], places[:, 5:9]), drawn[[7, 2], 5:9])
    assert not torch.equal(draw_uniform(4, rows, places), drawn)
    counts = np.histogram(drawn.numpy(), bins=20, range=(0, 1))[0]
    # Of 60,000 numbers 3,000 fall into each bin, give or take 53.
    assert np.abs(counts - 3000).max() < 5 * 53
    assert abs(np.corrcoef(drawn[:-1].flatten().numpy(), drawn[1:].flatten().numpy())[0, 1]) < 0.02


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v3"])
def test_tokens_of_a_word_are_told_together(family):
    tokenizer = build_tokenizer(family, TEXTS)
    starts = find_word_starts(tokenizer)
    for text in TEXTS:
        encoding = tokenizer(text)
        words = encoding.word_ids()
        for place, (token, word) in enumerate(zip(encoding["input_ids"], words, strict=True)):
            if word is None or words[place - 1] is None:
                continue
            piece = tokenizer.convert_ids_to_tokens(token)
            if any(letter.isalnum() for letter in piece):
                assert starts[token] == (word != words[place - 1]), (text, piece)


def hide(masker, tokenizer, texts, rows, step=0, side="right"):
    tokenizer.padding_side = side
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    masked, chosen = masker.choose(inputs["input_ids"], inputs["attention_mask"], torch.tensor(rows), step)
    real = inputs["attention_mask"].bool()
    return [(m[r].tolist(), c[r].tolist()) for m, c, r in zip(masked, chosen, real, strict=True)]


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_masks_are_the_same_alone_in_a_batch_and_on_either_side_of_padding(family):
    tokenizer = build_tokenizer(family, TEXTS)
    masker = make_masker(tokenizer, share=0.4, seed=1)
    together = hide(masker, tokenizer, TEXTS, [10, 20, 30])
    assert together == hide(masker, tokenizer, TEXTS, [10, 20, 30], side="left")
    for number, text in enumerate(TEXTS):
        assert hide(masker, tokenizer, [text], [10 * (number + 1)]) == [together[number]]
    assert together != hide(masker, tokenizer, TEXTS, [10, 20, 30], step=1)
    assert together != hide(masker, tokenizer, TEXTS, [11, 21, 31])


@pytest.mark.parametrize("whole_words", [True, False])
def test_shares_are_those_that_are_asked_for_and_special_tokens_stay(whole_words):
    tokenizer = build_tokenizer("bert")
    masker = make_masker(tokenizer, share=0.15, seed=0, whole_words=whole_words)
    inputs = tokenizer(TEXTS[:1], return_tensors="pt")
    ids = inputs["input_ids"].repeat(4000, 1)
    masked, chosen = masker.choose(ids, torch.ones_like(ids), torch.arange(4000), 5)
    words = inputs.word_ids()
    open_ = torch.tensor([word is not None for word in words])
    assert not chosen[:, ~open_].any()
    share = chosen[:, open_].double().mean()
    assert abs(share - 0.15) < 0.01
    assert torch.equal(masked[~chosen], ids[~chosen])
    hidden, same = (masked[chosen] == tokenizer.mask_token_id).double().mean(), (masked == ids)[chosen].double().mean()
    assert abs(hidden - 0.8) < 0.02
    assert abs(same - 0.1) < 0.03
    starts = find_word_starts(tokenizer)[ids[0]]
    inside = [place for place in range(1, ids.shape[1]) if open_[place] and not starts[place]]
    assert inside, "a word of several tokens"
    together = all(torch.equal(chosen[:, place], chosen[:, place - 1]) for place in inside)
    assert together == whole_words
