import numpy as np
import pyarrow as pa
import pytest

from nlp_transfer.data.checks import (
    check_texts,
    count_conflicts,
    count_leaks,
    find_long_texts,
    find_visible,
    hash_texts,
    name_invisible,
)
from nlp_transfer.errors import DataError


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


# Default_Ignorable_Code_Point as Unicode 16 lists it, unassigned numbers included.
IGNORABLE = [
    *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), *range(0x200B, 0x2010)),
    *(*range(0x202A, 0x202F), *range(0x2060, 0x2070), 0x3164, *range(0xFE00, 0xFE10), 0xFEFF, 0xFFA0),
    *(*range(0xFFF0, 0xFFF9), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE1000)),
]


def test_what_a_screen_leaves_out_is_nothing_to_see():
    assert len(IGNORABLE) == 4174
    assert not find_visible(pa.array([chr(number) for number in IGNORABLE])).any()
    others = ["", " ", "\n\t", "\u00a0", "\u3000", "\u2028", "\x00", "\x1b\x7f", "\ufff9\ufffb", "\u2800", None]
    assert not find_visible(pa.array(others)).any()
    assert not find_visible(pa.chunked_array([["\u200b \ufeff\ufe0f"], ["\U000e0067"]])).any()


def test_whatever_is_drawn_is_seen():
    drawn = [
        "a",
        "!",
        "0",
        "\u0301",
        "😀",
        "❤\ufe0f",
        "\u200bx",
        "สระ",
        "\u0600",
        "\u06dd",
        "\ufffd",
        "\ue000",
        "\uac00",
    ]
    assert find_visible(pa.array(drawn)).all()
    letters = [chr(number) for number in range(0x21, 0x3000) if chr(number).isalnum() and number not in IGNORABLE]
    assert len(letters) > 4000
    assert find_visible(pa.array(letters)).all()


def test_what_is_not_seen_is_named_by_its_numbers():
    assert name_invisible(["\u200b \u200b", None, "\ufeff\u00ad\u2060"]) == "U+200B, U+FEFF, U+00AD"
    assert name_invisible([" ", None]) == ""


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["fine", "\u200b"], r"item 1 is empty: nothing to see but U\+200B"),
        (["fine", "\n"], r"item 1 is empty\. Leave it out"),
        (["fine", "\ud83d"], "half of a surrogate pair"),
    ],
)
def test_texts_with_nothing_to_see_are_refused(texts, message):
    with pytest.raises(DataError, match=message):
        check_texts(texts, "texts")
