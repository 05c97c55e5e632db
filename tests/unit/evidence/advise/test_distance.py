"""Distances against cases worked by hand, and against independent ways to the same figure."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist
from transformers import AutoModelForMaskedLM, AutoTokenizer

from nlp_transfer.errors import ShapeError
from nlp_transfer.evaluation.shift import compute_coral, compute_mmd, measure_proxy_distance
from nlp_transfer.evidence.advise.distance import (
    measure_fragmentation,
    score_masked_tokens,
)
from nlp_transfer.models.masked_head import load_masked_model
from nlp_transfer.models.resolve import resolve_encoder
from nlp_transfer.recipe.schema import EncoderConfig
from tests.tiny import make_texts


def draw_cloud(rows, width=3, *, shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width)) + shift


def test_coral_of_a_case_worked_by_hand():
    # Variances 2 and 8, covariances 2 and 0: (6^2 + 2^2 + 2^2 + 0) / (4 * 2^2).
    first, second = np.array([[0.0, 0.0], [2.0, 2.0]]), np.array([[0.0, 1.0], [4.0, 1.0]])
    assert compute_coral(first, second) == pytest.approx((36 + 4 + 4 + 4) / 16)
    assert compute_coral(first, first + 7) == pytest.approx(0.0)


def test_mmd_is_the_mean_over_pairs_with_the_median_distance_as_width():
    first, second = draw_cloud(7), draw_cloud(5, shift=1.0, seed=1)
    width = np.median(pdist(np.concatenate([first, second])))

    def kernel(a, b):
        return np.exp(-cdist(a, b, "sqeuclidean") / (2 * width**2))

    within = [
        sum(kernel(cloud, cloud)[i, j] for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
        for cloud, n in ((first, 7), (second, 5))
    ]
    assert compute_mmd(first, second) == pytest.approx(sum(within) - 2 * kernel(first, second).mean())


def test_mmd_of_clouds_of_one_kind_is_about_nothing_and_grows_with_the_shift():
    figures = [compute_mmd(draw_cloud(200), draw_cloud(200, shift=shift, seed=1)) for shift in (0.0, 0.5, 2.0)]
    assert abs(figures[0]) < 0.01 < figures[1] < figures[2] < 2
    assert compute_mmd(np.ones((4, 2)), np.ones((4, 2))) == 0.0


def test_proxy_distance_is_nothing_for_one_cloud_and_two_where_a_line_parts_them():
    assert measure_proxy_distance(draw_cloud(60), draw_cloud(80, shift=20.0, seed=1), seed=0) == 2.0
    assert measure_proxy_distance(draw_cloud(400), draw_cloud(400, seed=1), seed=0) < 0.4


def test_proxy_distance_comes_from_held_out_rows():
    # More columns than rows: any classifier parts the rows it has seen, and none of the others.
    assert measure_proxy_distance(draw_cloud(40, 200), draw_cloud(40, 200, seed=1), seed=0) < 1.2


@pytest.mark.parametrize("measure", [compute_coral, compute_mmd, lambda a, b: measure_proxy_distance(a, b, seed=0)])
@pytest.mark.parametrize("shapes", [((1, 2), (5, 2)), ((5, 2), (5, 3)), ((5,), (5,))])
def test_clouds_that_do_not_go_together_are_refused(measure, shapes):
    with pytest.raises(ShapeError, match="expected two clouds of at least"):
        measure(np.zeros(shapes[0]), np.zeros(shapes[1]))


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta"])
def test_words_of_the_vocabulary_are_whole_and_foreign_ones_are_broken(family, tiny_encoder):
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder(family))
    known = measure_fragmentation(["the story was very lovely", "the hotel again"], tokenizer)
    foreign = measure_fragmentation(["xylophonists juxtapose", "zigzagging"], tokenizer)
    assert (known.words, foreign.words) == (8, 3)
    assert known.tokens_per_word < foreign.tokens_per_word
    assert foreign.broken_share == 1.0
    assert known.broken_share < 0.5
    assert measure_fragmentation(["", "!?"], tokenizer).words == 0


def test_masked_loss_is_that_of_the_covered_tokens(tiny_encoder):
    folder = tiny_encoder("bert", "masked_lm")
    model = load_masked_model(resolve_encoder(EncoderConfig(name=str(folder))))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = AutoModelForMaskedLM.from_pretrained(folder).eval()
    # One word: it is the one that is covered.
    inputs = tokenizer("story", return_tensors="pt")
    truth = int(inputs["input_ids"][0, 1])
    inputs["input_ids"][0, 1] = tokenizer.mask_token_id
    with torch.no_grad():
        expected = -plain(**inputs).logits[0, 1].log_softmax(-1)[truth].item()
    settings = {"max_length": 32, "seed": 0}
    assert score_masked_tokens(model, tokenizer, ["story"], **settings) == pytest.approx(expected, abs=1e-5)
    texts = make_texts(20)
    first, again = (score_masked_tokens(model, tokenizer, texts, **settings) for _ in range(2))
    assert first == again
    assert 0 < first < 20
    assert math.isnan(score_masked_tokens(model, tokenizer, [""], **settings))


def test_a_checkpoint_without_a_masked_head_has_no_loss(tiny_encoder):
    for checkpoint in ("base", "classifier"):
        source = resolve_encoder(EncoderConfig(name=str(tiny_encoder("bert", checkpoint))))
        assert load_masked_model(source) is None
