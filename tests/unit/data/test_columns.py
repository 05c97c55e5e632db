import numpy as np
import pytest
from datasets import Dataset

from nlp_transfer.data.columns import (
    build_columns,
    describe_empty,
    find_empty_rows,
    find_label_columns,
    find_text_columns,
    prepare_inference_table,
)
from nlp_transfer.errors import DataError


def make_table(*names, **columns):
    return Dataset.from_dict({**{name: ["a", "b"] for name in names}, **columns})


FOUND = [
    (("text", "label"), ("text", None)),
    (("TEXT", "label"), ("TEXT", None)),
    (("sentence", "label", "idx"), ("sentence", None)),
    (("text", "comment"), ("text", None)),
    (("sentence1", "sentence2", "label"), ("sentence1", "sentence2")),
    (("premise", "hypothesis", "label"), ("premise", "hypothesis")),
    (("question1", "question2"), ("question1", "question2")),
    (("text", "text_b"), ("text", "text_b")),
    (("words", "label"), ("words", None)),
]


@pytest.mark.parametrize(("names", "expected"), FOUND)
def test_text_columns_are_found_by_their_usual_names(names, expected):
    assert find_text_columns(make_table(*names), text=None, text_b=None, where="t")[:2] == expected


def test_the_only_column_of_texts_is_taken_and_said():
    _, _, notes = find_text_columns(make_table("words", "label", n=[1, 2]), text=None, text_b=None, where="t")
    assert len(notes) == 1
    assert '"words"' in notes[0]


def test_named_columns_come_first():
    table = make_table("text", "other", "more")
    assert find_text_columns(table, text="other", text_b=None, where="t")[:2] == ("other", None)
    assert find_text_columns(table, text="other", text_b="more", where="t")[:2] == ("other", "more")
    assert find_text_columns(table, text=None, text_b="more", where="t")[:2] == ("text", "more")


REFUSED = [
    (("review", "comment"), {}, "t: expected one column of texts, came several: review, comment"),
    (("premise", "hypothesis", "sentence1", "sentence2"), {}, "expected one pair of texts, came several"),
    (("foo", "bar"), {}, "expected a column of texts .* came the columns: foo, bar"),
    (("Review", "label"), {"text": "reviw"}, 'data.text: .*there are: Review, label. Did you mean "Review"'),
    (("text", "label"), {"text_b": "zzz"}, "data.text_b: expected a column of t, came 'zzz'"),
    (("text", "label"), {"text": "text", "text_b": "text"}, "came 'text' twice"),
]


@pytest.mark.parametrize(("names", "named", "expected"), REFUSED)
def test_missing_and_ambiguous_text_columns_are_refused(names, named, expected):
    with pytest.raises(DataError, match=expected):
        find_text_columns(make_table(*names), **{"text": None, "text_b": None, **named}, where="t")


def test_label_columns_are_found_by_rank():
    def find(*names, **options):
        options = {"label": None, "kind": "classification", "texts": ("text",), **options}
        return find_label_columns(make_table("text", *names), **options, where="t")

    assert find("stars", "label") == ["label"]
    assert find("label_text", "stars") == ["label_text"]
    assert find("Sentiment") == ["Sentiment"]
    assert find("domain") == []
    assert find("a", "b", label=["a", "b"], kind="multi_label") == ["a", "b"]
    refused = [
        ({"names": ("stars", "emotion")}, "expected one column of labels, came several: emotion, stars"),
        ({"names": ("label", "labels")}, "came several: label, labels"),
        ({"names": ("label",), "label": "lable"}, 'Did you mean "label"'),
        ({"names": ("a", "b"), "label": ["a", "b"]}, "task.kind=multi_label"),
        ({"names": ("a",), "label": ["a", "a"], "kind": "multi_label"}, "Name each once"),
        ({"names": ("a",), "label": "text"}, "another column than the texts"),
    ]
    for options, expected in refused:
        with pytest.raises(DataError, match=expected):
            find(*options.pop("names"), **options)


def test_columns_that_would_take_a_reserved_name_are_kept_under_another():
    table = make_table("id", "review", "text", "label", "stars", "more")
    columns, _ = build_columns(table, text="review", text_b=None, label=["stars"], id_column=None, where="t")
    assert columns.column_names == ["id", "text", "source_id", "source_text", "source_label", "more"]
    assert columns["id"].to_pylist() == ["0", "1"]
    columns, _ = build_columns(table, text="review", text_b=None, label=["stars"], id_column="id", where="t")
    assert columns["id"].to_pylist() == ["a", "b"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], "came numbers"),
        ([["a"], ["b"]], "came nested values"),
        ([{"a": 1}] * 2, "nested"),
        ([True, False], "bool"),
    ],
)
def test_a_text_column_of_other_values_is_refused(values, expected):
    with pytest.raises(DataError, match=expected):
        build_columns(make_table(text=values), text="text", text_b=None, label=[], id_column=None, where="t")


def test_an_id_may_not_be_missing():
    with pytest.raises(DataError, match="row 2: expected an id in 'key'"):
        build_columns(
            make_table("text", key=["a", None]), text="text", text_b=None, label=[], id_column="key", where="t"
        )


def test_empty_texts_are_found_in_either_text_of_a_pair():
    table = Dataset.from_dict({"text": ["a", " \t\u00a0", None, "d", "e"], "text_b": ["a", "b", "c", "", None]})
    assert find_empty_rows(table.data.table).tolist() == [False, True, True, True, True]


def test_texts_without_a_visible_character_are_empty():
    texts = ["a\u200b", "\u200b", "\ufeff \u00ad", "\ufe0f", "❤\ufe0f", "\x00\x0b"]
    table = Dataset.from_dict({"text": texts}).data.table
    empty = find_empty_rows(table)
    assert empty.tolist() == [False, True, True, True, False, True]
    assert describe_empty(table, np.flatnonzero(empty)) == "none that can be seen (U+200B, U+FEFF, U+00AD)"
    pair = Dataset.from_dict({"text": ["\u2060", "a"], "text_b": ["b", " "]}).data.table
    assert describe_empty(pair, np.array([0, 1])) == "none that can be seen (U+2060)"
    assert describe_empty(pair, np.array([1])) == "none"


def test_inference_keeps_rows_and_other_columns():
    table = make_table("review", "label", stars=[5, 1])
    ready = prepare_inference_table(table, is_pair=False, where="new.csv")
    assert ready.to_dict() == {"id": ["0", "1"], "text": ["a", "b"], "label": ["a", "b"], "stars": [5, 1]}
    pair = prepare_inference_table(make_table("premise", "hypothesis"), is_pair=True, where="new.csv")
    assert pair.column_names == ["id", "text", "text_b"]
    single = prepare_inference_table(make_table("text", "text_b"), is_pair=False, where="new.csv")
    assert single.column_names == ["id", "text", "source_text_b"]


def test_inference_refuses_what_the_artefact_cannot_read():
    cases = [
        (make_table("text"), {"is_pair": True}, "expected two texts a row"),
        (make_table("premise", "hypothesis"), {"is_pair": False}, "came the pair 'premise' and 'hypothesis'"),
        (make_table("text", "b"), {"is_pair": False, "text_b": "b"}, "data.text_b"),
        (make_table(text=["a", " "]), {"is_pair": False}, "new.csv, row 2: expected a text, came none; so in 1 of 2"),
        (make_table(text=["a", "\u200d"]), {"is_pair": False}, r"row 2: expected a text, came none .* \(U\+200D\); so"),
    ]
    for table, options, expected in cases:
        with pytest.raises(DataError, match=expected):
            prepare_inference_table(table, **options, where="new.csv")
