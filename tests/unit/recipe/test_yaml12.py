"""YAML 1.2 core scalars, what is refused, and that what is written reads back."""

import math
import string

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_transfer.errors import RecipeError
from nlp_transfer.recipe.yaml12 import MAX_CHARACTERS, dump_yaml, parse_scalar, parse_yaml

SCALARS = [
    ("2e-5", 2e-5),
    ("5.0e-4", 5e-4),
    ("1E3", 1000.0),
    (".5", 0.5),
    ("1.", 1.0),
    ("-1.5e+3", -1500.0),
    (".inf", math.inf),
    ("-.INF", -math.inf),
    ("0", 0),
    ("-7", -7),
    ("+12", 12),
    ("010", 10),
    ("0o10", 8),
    ("0x1F", 31),
    ("true", True),
    ("FALSE", False),
    ("null", None),
    ("~", None),
    ("", None),
    ("no", "no"),
    ("Yes", "Yes"),
    ("on", "on"),
    ("off", "off"),
    ("1_000", "1_000"),
    ("1:30", "1:30"),
    ("2024-01-01", "2024-01-01"),
    ("0b11", "0b11"),
    ("e5", "e5"),
    (".", "."),
    ("1e", "1e"),
    ("=", "="),
    ("9" * 5000, "9" * 5000),
]

REFUSED = [
    ("a: !!python/object/apply:os.system ['true']", "line 1, column 4: the tag"),
    ("a: !custom 1", "the tag !custom is not allowed"),
    ("a: ! 1", "the tag ! is not allowed"),
    ("a: &anchor 1", "anchors and aliases are not allowed"),
    ("a: *anchor", "anchors and aliases are not allowed"),
    ("a: 1\nb: 2\na: 3", 'line 3, column 1: the key "a" occurs twice here'),
    ("a: {b: 1, b: 2}", 'line 1, column 11: the key "b" occurs twice here'),
    ("? [1]\n: 2", "a key must be a single value"),
    ("a: [1", "line 1, column 6"),
    ("a: 'x", "line 1, column 6"),
    ("a:\tb: c", "column 3"),
    ("a: 1\n---\nb: 2", "expected a single document"),
    ("ab\ncd: \0", "line 2, column 5: a null byte"),
    ("a: \x07", "U+0007"),
    ("[" * 100_000, "nested more than"),
    ("a" * (MAX_CHARACTERS + 1), "Is this a data file?"),
]


def test_every_core_scalar_is_read_as_version_1_2_says_alone_and_in_a_document():
    for text, expected in SCALARS:
        listed = parse_yaml(f"[{text}, 0]")[0] if text else None
        for found in (parse_scalar(text), parse_yaml(f"key: {text}")["key"], listed):
            assert found == expected, text
            assert type(found) is type(expected), text
    assert math.isnan(parse_scalar(".nan"))
    assert len(SCALARS) == 32


def test_version_1_1_would_have_read_some_of_them_differently():
    differing = [
        text
        for text, expected in SCALARS
        if text != "=" and len(text) < 100 and yaml.safe_load(f"key: {text}")["key"] != expected
    ]
    assert {"2e-5", "no", "on", "010", "1:30", "2024-01-01"} <= set(differing)


def test_quoted_values_and_blocks_stay_text():
    found = parse_yaml("a: '2e-5'\nb: \"no\"\nc: |\n  12\nd: >-\n  null\n")
    assert found == {"a": "2e-5", "b": "no", "c": "12\n", "d": "null"}


def test_as_text_keeps_every_scalar():
    assert parse_yaml("{1: [2e-5, no, null, true]}", as_text=True) == {"1": ["2e-5", "no", "null", "true"]}


def test_merge_keys_are_plain_text():
    assert parse_yaml("<<: {a: 1}") == {"<<": {"a": 1}}


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_a_recipe_never_needs_is_refused_with_its_place(text, message):
    with pytest.raises(RecipeError) as caught:
        parse_yaml(text, source="my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_alias_bomb_is_refused_before_it_grows():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(RecipeError, match="anchors and aliases"):
        parse_yaml("\n".join(lines))


def test_ambiguous_text_is_quoted_for_both_versions():
    texts = ["no", "2e-5", "1.0", "null", "0o7", "1:30", "", "~", "a: b", "# c", "two\nlines", "\x85", "é"]
    written = dump_yaml({"texts": texts})
    assert parse_yaml(written) == {"texts": texts}
    assert yaml.safe_load(written) == {"texts": texts}
    assert len(texts) == 13


def test_a_shared_list_is_written_twice_and_not_as_an_alias():
    seeds = [0, 1]
    written = dump_yaml({"a": seeds, "b": seeds})
    assert "&" not in written
    assert parse_yaml(written) == {"a": [0, 1], "b": [0, 1]}


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.text(string.digits + "eE.+-_:xo", max_size=8)
ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, database=None)
@given(st.dictionaries(ANY_TEXT, ANY_VALUE, max_size=4))
def test_what_dump_writes_parse_reads_back_equal(mapping):
    assert parse_yaml(dump_yaml(mapping)) == mapping


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("training:\n\tepochs: 2\n", "line 2, column 1"),
        ("training:\n  epochs: 2\n\tseed: 1\n", "line 3, column 1"),
        ("training:\n  epochs:\t\t2\n\t\tseed: 1\n", "line 2, column 10"),
        ("data:\n  splits:\n  \ttrain: a\n", "line 3, column 3"),
    ],
)
def test_a_tab_is_named_where_it_stands(text, place):
    with pytest.raises(RecipeError) as caught:
        parse_yaml(text, source="my.yaml")
    assert str(caught.value).startswith(f"my.yaml: {place}: expected spaces, got a tab")
    assert "Replace it by spaces" in str(caught.value)
    assert parse_yaml(text.replace("\t\t", "\t").replace("\t", "  "))


def test_other_mistakes_are_not_called_tabs():
    with pytest.raises(RecipeError) as caught:
        parse_yaml("text: 'a\tb'\nother: [1\n")
    assert "tab" not in str(caught.value)
