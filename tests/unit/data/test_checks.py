import numpy as np
import pyarrow as pa
import pytest

from nlp_transfer.data.checks import count_conflicts, count_leaks, find_long_texts, hash_texts


def keys_of(*texts, other=None):
    return hash_texts(pa.table({"text": texts, **({"text_b": other} if other else {})}))


@pytest.mark.parametrize(
    ("first", "second", "is_near"),
    [
        ("A joy to watch!", "a joy  to watch", True),
        ("it 's fine", "it's fine", True),
        ("Straße", "STRASSE", True),
        ("“quoted” — so", '"quoted" - so', True),
        ("good 😀", "good 😡", False),
        (":)", ":(", False),
        ("a joy", "a bore", False),
        ("not bad", "bad", False),
    ],
)
def test_near_means_equal_but_for_case_punctuation_and_spacing(first, second, is_near):
    exact, near = keys_of(first, second)
    assert exact[0] != exact[1]
    assert bool(near[0] == near[1]) is is_near


def test_a_pair_is_both_texts_in_their_order():
    exact, near = keys_of("a", "a", "b", "a", other=["b", "c", "a", "b"])
    assert exact[0] == exact[3]
    assert len(set(exact.tolist())) == 3
    assert len(set(near.tolist())) == 3


def test_hashes_do_not_depend_on_chunks():
    texts = [f"text {index}" for index in range(50)]
    whole = hash_texts(pa.table({"text": texts}))
    chunked = hash_texts(pa.table({"text": pa.chunked_array([texts[:7], texts[7:]])}))
    assert np.array_equal(whole[0], chunked[0])
    assert np.array_equal(whole[1], chunked[1])
    assert len(set(whole[0].tolist())) == 50


def test_leaks_are_counted_once_and_by_kind():
    keys = {"train": keys_of("a", "B!", "c"), "validation": keys_of("x"), "test": keys_of("a", "A", "b", "z", "a")}
    pairs = [("train", "validation"), ("train", "test"), ("validation", "test")]
    assert count_leaks(keys, pairs) == {"train/test": {"exact": 2, "near": 2}}


def test_conflicts_are_rows_whose_text_has_another_label_too():
    keys = np.array([1, 1, 2, 2, 3, 1], dtype=np.uint64)
    assert count_conflicts(keys, np.array([0, 1, 1, 1, 0, 0])) == 3
    assert count_conflicts(keys[2:4], np.array([[0.0, 1.0], [1.0, 0.0]])) == 2
    assert count_conflicts(keys[:2], np.array([[0.0, 1.0], [0.0, 1.0]])) == 0


def test_long_texts_are_counted():
    assert find_long_texts(pa.table({"text": ["a", "b" * 1_000_001], "text_b": ["c", "d"]})) == (1, 1_000_001)
    assert find_long_texts(pa.table({"text": ["a", "b" * 1_000_000]})) == (0, 1_000_000)
