import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Sequence, Value

from nlp_transfer.contracts import DataFacts, LabelSpace
from nlp_transfer.data.labels.contract import build_label_space, encode_labels, map_labels, sort_naturally
from nlp_transfer.data.labels.values import is_unlabelled, read_labels, settle_minus_one
from nlp_transfer.errors import DataError, LabelError


def read(values, kind="classification", *, names=None, feature=None, separator=","):
    features = Features({"label": feature}) if feature else None
    table = Dataset.from_dict({"label": values}, features=features)
    return read_labels(table, ["label"], kind, separator=separator, where="t", names=names)


def map_values(values, kind="classification", *, names=None, feature=None):
    raw = read(values, kind, names=names, feature=feature)
    space = build_label_space(raw, kind, names=names, column="label")
    return space.names, encode_labels(raw, space).tolist()


CATEGORICAL = [
    (["b", "a", "b"], {}, (("a", "b"), [1, 0, 1])),
    (["10", "2", "1"], {}, (("1", "2", "10"), [2, 1, 0])),
    ([10, 2, 1], {}, (("1", "2", "10"), [2, 1, 0])),
    ([1.0, 0.0], {}, (("0", "1"), [1, 0])),
    ([True, False], {}, (("False", "True"), [1, 0])),
    ([-1, 0, 1], {}, (("-1", "0", "1"), [0, 1, 2])),
    (["item 10", "item 2"], {}, (("item 2", "item 10"), [1, 0])),
    (["a", "b"], {"names": ["b", "a"]}, (("b", "a"), [1, 0])),
    ([1, 0], {"feature": ClassLabel(names=["z", "y"])}, (("z", "y"), [1, 0])),
    ([0, 1], {"feature": ClassLabel(names=["z", "y", "x"])}, (("z", "y", "x"), [0, 1])),
    ([1, 0], {"feature": ClassLabel(names=["z", "y"]), "names": ["y", "z"]}, (("y", "z"), [0, 1])),
    (["0.5", "1.5"], {"names": ["0.5", "1.5"]}, (("0.5", "1.5"), [0, 1])),
    (["10", "9", "9"], {"kind": "ordinal"}, (("9", "10"), [1, 0, 0])),
    ([3.5, 1.0, 10.0], {"kind": "ordinal"}, (("1", "3.5", "10"), [1, 0, 2])),
    (["low", "high"], {"kind": "ordinal", "names": ["low", "high"]}, (("low", "high"), [0, 1])),
]


@pytest.mark.parametrize(("values", "options", "expected"), CATEGORICAL)
def test_names_order_and_ids_of_classes(values, options, expected):
    assert map_values(values, **options) == expected


REFUSED = [
    ([0.5, 1.0], {}, DataError, "row 1: .* came the number 0.5. Say task.kind=regression"),
    (["1", "2.75"], {}, DataError, "row 2: .* came the number 2.75. Say task.kind=regression"),
    (["a", "a"], {}, DataError, "expected at least two classes in 'label', came only 'a'"),
    (["a", "b"], {"kind": "ordinal"}, LabelError, "Give their order, low to high, in task.labels"),
    ([["a"], ["b"]], {}, DataError, "Say task.kind=multi_label"),
    ([{"a": 1}, {"a": 2}], {}, DataError, "expected one label a row"),
    (["a", "b"], {"names": ["a", "a"]}, LabelError, "task.labels: expected different names"),
    (["a", "c"], {"names": ["a", "b"]}, LabelError, 'row 2: expected one of the labels "a", "b", came "c"'),
    (["x", "1"], {"kind": "regression"}, DataError, "row 1: expected a number in 'label', came 'x'"),
    (["1.5", "2,5"], {"kind": "regression"}, DataError, "row 2: expected a number in 'label', came '2,5'"),
    ([1.0, float("inf")], {"kind": "regression"}, DataError, "row 2: expected a finite number"),
    ([0, 1], {"kind": "regression", "feature": ClassLabel(names=["a", "b"])}, DataError, "came a ClassLabel"),
    ([1.0], {"kind": "regression", "names": ["a", "b"]}, LabelError, "expected one name"),
    ([[None]], {"kind": "multi_label"}, DataError, "came none|came an empty one|expected names"),
]


@pytest.mark.parametrize(("values", "options", "error", "expected"), REFUSED)
def test_labels_that_do_not_suit_the_task_are_refused(values, options, error, expected):
    with pytest.raises(error, match=expected):
        map_values(values, **options)


def test_a_class_label_out_of_range_is_refused(tmp_path):
    # datasets itself refuses such ids when it makes a table, but not when it reads one.
    table = Dataset.from_dict({"label": [0, 5]})
    table.info.features["label"] = ClassLabel(names=["z", "y"])
    with pytest.raises(LabelError, match=r"expected label ids from 0 to 1 in 'label' .* came 5"):
        read_labels(table, ["label"], "classification", separator=",", where="t")


def test_multi_label_forms_agree():
    expected = [[1, 0], [1, 1], [0, 0]]
    assert map_values([["a"], ["b", "a"], []], "multi_label") == (("a", "b"), expected)
    assert map_values(["a", "b, a", ""], "multi_label") == (("a", "b"), expected)
    for feature in (List(ClassLabel(names=["a", "b"])), Sequence(ClassLabel(names=["a", "b"]))):
        assert map_values([[0], [1, 0], []], "multi_label", feature=feature) == (("a", "b"), expected)
    assert map_values([[1, 0], [1, 1], [0, 0]], "multi_label", names=["a", "b"]) == (("a", "b"), expected)
    for kind in (int, float, bool, str):
        columns = {name: [kind(row[i]) for row in expected] for i, name in enumerate(("a", "b"))}
        if kind is str:
            columns = {name: [str(int(value)) for value in values] for name, values in columns.items()}
        raw = read_labels(Dataset.from_dict(columns), ["a", "b"], "multi_label", separator=",", where="t")
        space = build_label_space(raw, "multi_label", names=None, column="a")
        assert encode_labels(raw, space).tolist() == expected
        assert encode_labels(raw, space).dtype == np.float32


VECTORS = {
    "ints": [[1, 0, 0], [1, 1, 0], [0, 0, 0]],
    "floats": [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]],
    "bools": [[True, False, False], [True, True, False], [False, False, False]],
    "one of two": [[1, 0], [0, 1]],
    "beside a missing one": [[1, 0], None, [1, 1]],
}


@pytest.mark.parametrize("case", VECTORS)
def test_lists_of_zeros_and_ones_are_never_names(case):
    values = VECTORS[case]
    names = ["joy", "anger", "fear"][: len(values[0])]
    with pytest.raises(LabelError, match=rf"t: expected a name for each of the {len(names)} places .* task\.labels"):
        map_values(values, "multi_label")
    with pytest.raises(LabelError, match="came 4 names"):
        map_values(values, "multi_label", names=["a", "b", "c", "d"])
    found = read(values, "multi_label", names=names).values.to_pylist()
    expected = [row and [name for name, on in zip(names, row, strict=True) if on] for row in values]
    assert found == expected


def test_lists_of_ids_are_not_lists_of_zeros_and_ones():
    assert map_values([[0], [1]], "multi_label") == (("0", "1"), [[1, 0], [0, 1]])
    assert map_values([[0, 1], [2, 1]], "multi_label")[0] == ("0", "1", "2")
    assert map_values([[0, 1], [1]], "multi_label")[0] == ("0", "1")
    # With labels that are called 0 and 1, only a repeated one tells.
    assert map_values([[0, 1], [1, 0]], "multi_label", names=["0", "1"])[1] == [[1, 1], [1, 1]]
    assert map_values([[0, 1], [1, 1]], "multi_label", names=["0", "1"])[1] == [[0, 1], [1, 1]]
    feature = List(ClassLabel(names=["a", "b"]))
    assert map_values([[0, 1], [1, 0]], "multi_label", feature=feature) == (("a", "b"), [[1, 1], [1, 1]])


def test_cells_in_brackets_are_lists():
    cells = ['["joy", "very, very sad"]', "['joy', \"it's\"]", "[]", ' ["joy"] ', "['joy',]", "joy, it's", "", None]
    assert read(cells, "multi_label").values.to_pylist() == [
        ["joy", "very, very sad"],
        ["joy", "it's"],
        [],
        ["joy"],
        ["joy"],
        ["joy", "it's"],
        [],
        None,
    ]
    assert map_values(['["b"]', "a"], "multi_label") == (("a", "b"), [[0, 1], [1, 0]])


@pytest.mark.parametrize(
    "cell", ["[joy, anger]", "[0, 1]", "['joy' 'anger']", '["joy", 3]', '["joy", ""]', "[['joy']]"]
)
def test_cells_in_brackets_that_are_no_lists_of_names_are_refused(cell):
    with pytest.raises(DataError, match="t, row 2: expected a list of names") as caught:
        read(["joy", cell], "multi_label")
    assert cell in str(caught.value)


@pytest.mark.parametrize(
    "values", [["0", "1", "1"], [0, 1, 1], [0.0, 1.0, 1.0], ["False", "true", "TRUE"], [" 0", "1 ", "1.0"]]
)
def test_a_single_flag_column_is_named_after_its_label(values):
    table = Dataset.from_dict({"toxic": values})
    for names in (None, ["toxic"], ("toxic",)):
        raw = read_labels(table, ["toxic"], "multi_label", separator=",", where="t", names=names)
        assert raw.values.to_pylist() == [[], ["toxic"], ["toxic"]]
        assert raw.declared == ("toxic",)
    raw = read_labels(Dataset.from_dict({"toxic": ["0", "", "-1"]}), ["toxic"], "multi_label", separator=",", where="t")
    assert raw.missing.tolist() == [False, True, True]
    for values in (["0,1", "1"], ["a", "0"], ["", ""]):
        table = Dataset.from_dict({"toxic": values})
        assert read_labels(table, ["toxic"], "multi_label", separator=",", where="t").declared is None


def test_flag_columns_refuse_other_values_and_know_missing_ones():
    table = Dataset.from_dict({"a": [0, 1, 2], "b": [0, 0, 0]})
    with pytest.raises(DataError, match="row 3: expected 0 or 1 in 'a', came '2'"):
        read_labels(table, ["a", "b"], "multi_label", separator=",", where="t")
    table = Dataset.from_dict({"a": [0, -1, None], "b": [1, -1, 0]})
    raw = read_labels(table, ["a", "b"], "multi_label", separator=",", where="t")
    assert raw.missing.tolist() == [False, True, True]


def test_regression_reads_numbers_and_texts():
    raw = read(["1.5", " +2 ", "-3e-1", ""], "regression")
    assert raw.values.to_pylist() == [1.5, 2.0, -0.3, None]
    raw = read([1.5, float("nan"), None], "regression")
    assert raw.missing.tolist() == [False, True, True]
    assert build_label_space(raw, "regression", names=None, column="stars").names == ("stars",)


def test_missing_labels_are_known():
    assert read(["a", "", "  ", None, "NA"]).missing.tolist() == [False, True, True, True, False]
    assert read([0, -1, None], feature=ClassLabel(names=["a", "b"])).missing.tolist() == [False, True, True]
    assert read([1.0, float("nan")]).missing.tolist() == [False, True]


def test_a_split_without_labels_is_known_from_one_that_has_minus_one():
    assert is_unlabelled(read([-1, -1]), ["0", "1"])
    assert is_unlabelled(read(["", ""]), ["0", "1"])
    assert is_unlabelled(read([-1, -1], feature=ClassLabel(names=["a", "b"])), ["a", "b"])
    assert is_unlabelled(read([-1.0, -1.0], "regression"), [])
    assert not is_unlabelled(read([-1, -1]), ["-1", "1"])
    assert not is_unlabelled(read([-1, 1]), ["0", "1"])
    assert not is_unlabelled(read([-1.0, -1.0], "regression"), ["-1"])


def test_a_split_where_no_row_has_any_of_many_labels_has_none():
    for values in (["", ""], ["[]", ""], [[], []]):
        raw = read(values, "multi_label", feature=List(Value("string")) if values == [[], []] else None)
        assert is_unlabelled(raw, ["a"])
        assert not is_unlabelled(raw, []), "train itself, say"
    assert not is_unlabelled(read(["", "a"], "multi_label"), ["a"])
    stated = read_labels(Dataset.from_dict({"a": [0, 0]}), ["a"], "multi_label", separator=",", where="t")
    assert not is_unlabelled(stated, ["a"])
    assert not is_unlabelled(read([[0, 0], [0, 0]], "multi_label", names=["a", "b"]), ["a"])


MINUS_ONE = {
    "rare": ({"train": [0, 1] * 49 + [-1]}, None, "missing"),
    "rare as text": ({"train": ["0", "1"] * 49 + ["-1"]}, None, "missing"),
    "rare, three classes": ({"train": [0, 1, 2] * 33 + [-1]}, None, "missing"),
    "rare over all": ({"train": [0, 1] * 98, "validation": [0, 1, -1]}, None, "missing"),
    "a whole split beside some": ({"train": [-1, 0, 1] * 9, "test": [-1] * 5}, None, "missing"),
    "none in train": ({"train": [0, 1] * 9, "test": [-1, 0, -1]}, None, "missing"),
    "often, without a name": ({"train": [-1, 0, 1] * 9}, ["0", "1"], "missing"),
    "often": ({"train": [-1, 0, 1] * 9, "test": [-1, 0, 1]}, None, "class"),
    "at the limit": ({"train": [0, 1] * 47 + [0] + [-1] * 5}, None, "class"),
    "rare, with a name": ({"train": [0, 1] * 49 + [-1]}, ["-1", "0", "1"], "silent"),
    "two classes": ({"train": [-1, 1] * 40}, None, "silent"),
    "two classes, one rare": ({"train": [1] * 99 + [-1]}, None, "silent"),
    "one beside zero": ({"train": [0] * 99 + [-1]}, None, "silent"),
    "a gap": ({"train": [0, 2] * 49 + [-1]}, None, "silent"),
    "words": ({"train": ["0", "1", "a"] * 33 + ["-1"]}, None, "silent"),
    "a whole split": ({"train": [0, 1] * 9, "test": [-1] * 5}, None, "silent"),
    "nowhere": ({"train": [0, 1] * 9}, None, "silent"),
}


@pytest.mark.parametrize("case", MINUS_ONE)
def test_minus_one_beside_class_numbers_is_settled_and_said(case):
    values, names, expected = MINUS_ONE[case]
    raws = {split: read(column) for split, column in values.items()}
    facts = DataFacts()
    settled = settle_minus_one(raws, names, facts)
    assert list(settled) == list(raws)
    for split, column in values.items():
        is_minus = [str(value) == "-1" for value in column]
        assert settled[split].missing.tolist() == [m and expected == "missing" for m in is_minus]
        assert raws[split].missing.sum() == 0, "the input is as it was"
    said = {"missing": (0, 1), "class": (1, 0), "silent": (0, 0)}[expected]
    assert (len(facts.notes), len(facts.warnings)) == said
    assert all("-1 is read as a" in text and "rows" in text for text in facts.notes + facts.warnings)


def test_minus_one_of_a_class_label_is_missing_already():
    raw = read([0, 1, -1], feature=ClassLabel(names=["a", "b"]))
    facts = DataFacts()
    assert settle_minus_one({"train": raw}, None, facts)["train"].missing.tolist() == [False, False, True]
    assert (raw.placeholder, facts.notes, facts.warnings) == ("-1", [], [])


def test_natural_order():
    assert sort_naturally(["b", "a10", "a9", "A", "10", "9"]) == ["9", "10", "A", "a9", "a10", "b"]
    assert sort_naturally(["1.5", "-2", "+1"]) == ["-2", "+1", "1.5"]


SPACE = LabelSpace("classification", ("negative", "positive"))


def test_new_data_is_mapped_by_the_stored_contract():
    table = Dataset.from_dict({"text": ["a", "b"], "label": ["positive", "positive"], "more": [1, 2]})
    mapped = map_labels(table, SPACE, where="new.csv")
    assert mapped["label"][:] == [1, 1]
    assert mapped.features["label"] == Value("int64")
    assert table["label"][:] == ["positive", "positive"]
    named = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1], "label_text": ["positive", "negative"]})
    assert map_labels(named, SPACE, where="new.csv")["label"][:] == [1, 0]
    flags = Dataset.from_dict({"text": ["a"], "x": [1], "y": [0]})
    assert map_labels(flags, LabelSpace("multi_label", ("x", "y")), where="n")["label"][:] == [[1.0, 0.0]]
    single = Dataset.from_dict({"text": ["a"], "label": [1]})
    assert map_labels(single, LabelSpace("multi_label", ("0", "1")), where="n")["label"][:] == [[0.0, 1.0]]
    number = Dataset.from_dict({"text": ["a"], "stars": ["2.5"]})
    assert map_labels(number, LabelSpace("regression", ("stars",)), where="n")["label"][:] == [2.5]


def declare(*names):
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(names))})
    return Dataset.from_dict({"text": ["a"], "label": [0]}, features=features)


BROKEN_CONTRACTS = [
    (Dataset.from_dict({"text": ["a"], "label": ["neutral"]}), LabelError, '"negative", "positive", came "neutral"'),
    (Dataset.from_dict({"text": ["a"], "label": [1]}), LabelError, '"negative", "positive", came "1"'),
    (declare("positive", "negative"), LabelError, "the same labels in another order: .positive., .negative."),
    (declare("negative", "neutral", "positive"), LabelError, "came 3 labels: .negative., .neutral., .positive."),
    (Dataset.from_dict({"text": ["a", "b"], "label": ["negative", None]}), DataError, "row 2: expected a label"),
    (Dataset.from_dict({"text": ["a"], "domain": ["x"]}), DataError, "expected a column of labels"),
]


def test_a_table_where_no_row_has_any_of_many_labels_is_refused():
    space = LabelSpace("multi_label", ("x", "y"))
    for values in (["", ""], [[], []]):
        features = Features({"text": Value("string"), "label": List(Value("string"))}) if values[0] == [] else None
        table = Dataset.from_dict({"text": ["a", "b"], "label": values}, features=features)
        with pytest.raises(DataError, match=r"new\.csv: expected labels in 'label', came none in the whole table"):
            map_labels(table, space, where="new.csv")
    stated = Dataset.from_dict({"text": ["a"], "x": [0], "y": [0]})
    assert map_labels(stated, space, where="new.csv")["label"][:] == [[0.0, 0.0]]


@pytest.mark.parametrize(("table", "error", "expected"), BROKEN_CONTRACTS)
def test_a_broken_contract_names_both_sides(table, error, expected):
    with pytest.raises(error, match=expected) as caught:
        map_labels(table, SPACE, where="new.csv")
    assert str(caught.value).startswith("new.csv")
