"""One value has one name, whatever holds it: csv, tsv, JSON lines, Parquet, Arrow, pandas, polars or datasets."""

import datetime as dt
import io
import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from nlp_transfer.contracts import DataFacts, LabelSpace
from nlp_transfer.data.arrow_types import hold_columns
from nlp_transfer.data.columns import build_columns, prepare_inference_table
from nlp_transfer.data.exchange import read_stdin, write_table
from nlp_transfer.data.labels.contract import build_label_space, encode_labels, map_labels
from nlp_transfer.data.labels.values import read_labels, warn_missing_words
from nlp_transfer.data.load import load_splits
from nlp_transfer.data.spelling import read_order, spell, spell_alike, spell_column
from nlp_transfer.data.tables import get_arrow_table, read_table
from nlp_transfer.errors import DataError, LabelError
from nlp_transfer.recipe.schema import DataConfig, TaskConfig

NUM_ROWS = 6


def make_frame(values):
    """Six rows in which the values take turns."""
    series = pd.Series(values)
    column = series.iloc[[index % len(series) for index in range(NUM_ROWS)]].reset_index(drop=True)
    return pd.DataFrame({"text": [f"row {letter}" for letter in "abcdef"], "label": column})


def write_parquet(frame, path):
    frame.to_parquet(path)


def write_arrow(frame, path):
    table = pa.Table.from_pandas(frame)
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


WRITERS = {
    "a.csv": lambda frame, path: frame.to_csv(path, index=False),
    "a.tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "a.jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True, date_format="iso"),
    "a.parquet": write_parquet,
    "a.feather": lambda frame, path: frame.to_feather(path),
    "a.arrow": write_arrow,
}
IN_MEMORY = {
    "pandas": lambda frame: frame,
    "arrow": pa.Table.from_pandas,
    "datasets": Dataset.from_pandas,
}

days = [dt.date(2021, 3, 9), dt.date(2021, 11, 2)]
VALUES = {
    "booleans": ([True, False], ["False", "True"]),
    "nullable booleans": (pd.array([True, False], dtype="boolean"), ["False", "True"]),
    "whole doubles": ([10.0, 9.0], ["9", "10"]),
    "whole doubles beside none": ([2.0, 1.0, np.nan], ["1", "2"]),
    "small integers": (np.array([7, 3], dtype="int8"), ["3", "7"]),
    "unsigned integers": (np.array([2**64 - 1, 3], dtype="uint64"), ["3", str(2**64 - 1)]),
    "nullable integers": (pd.array([4, None, 2], dtype="Int64"), ["2", "4"]),
    "single precision": (np.array([2.0, 1.0], dtype="float32"), ["1", "2"]),
    "decimals that are whole": ([Decimal("3.00"), Decimal("1.00")], ["1", "3"]),
    "dates": (days, ["2021-03-09", "2021-11-02"]),
    "days as times": (pd.to_datetime(days), ["2021-03-09", "2021-11-02"]),
    "times": (
        pd.to_datetime(["2021-03-09 00:00", "2021-03-09 10:20:30.5"], format="ISO8601"),
        ["2021-03-09", "2021-03-09 10:20:30.5"],
    ),
    "times with a zone": (
        pd.to_datetime(["2021-03-09 00:00", "2021-07-09 10:20"], format="ISO8601").tz_localize("Europe/Berlin"),
        ["2021-03-08 23:00:00+00:00", "2021-07-09 08:20:00+00:00"],
    ),
    "spans": (pd.to_timedelta(["10 days", "9 days"]), ["9 days", "10 days"]),
    "spans with a time": (pd.to_timedelta(["1 days 02:03:04", "5s"]), ["0 days 00:00:05", "1 days 02:03:04"]),
    "times of day": ([dt.time(13, 4), dt.time(3, 5)], ["03:05:00", "13:04:00"]),
    "periods": (pd.PeriodIndex(["2021-10", "2021-09"], freq="M"), ["2021-09", "2021-10"]),
    "quarters": (pd.PeriodIndex(["2021Q4", "2021Q1"], freq="Q"), ["2021Q1", "2021Q4"]),
    "intervals": (pd.IntervalIndex.from_tuples([(10, 20), (-5, 10)]), ["(-5, 10]", "(10, 20]"]),
    "bins": (pd.cut([15, 1], [0, 10, 20]), ["(0, 10]", "(10, 20]"]),
    "categories": (pd.Categorical(["mid", "low"]), ["low", "mid"]),
    "ordered categories": (pd.Categorical(["mid", "low"], categories=["mid", "low"], ordered=True), ["low", "mid"]),
    "boolean categories": (pd.Categorical([True, False]), ["False", "True"]),
    "number categories": (pd.Categorical([30, 4]), ["4", "30"]),
    "pandas strings": (pd.array(["b", "a"], dtype="string"), ["a", "b"]),
    "text with zeros": (["02", "01"], ["01", "02"]),
    "text that is no number": (["1.10", "x"], ["1.10", "x"]),
}
UNWRITABLE = {  # What pandas or datasets themselves cannot write or hold.
    "periods": {"a.jsonl", "datasets"},
    "quarters": {"a.jsonl", "datasets"},
    "intervals": {"datasets"},
    "bins": {"a.parquet", "a.feather", "a.arrow", "datasets"},
}


def read_all(frame, folder, skipped=()):
    """The frame by way of everything that can hold it."""
    sources = {}
    for name, write in WRITERS.items():
        if name not in skipped:
            write(frame, folder / name)
            sources[name] = folder / name
    sources |= {name: make(frame) for name, make in IN_MEMORY.items() if name not in skipped}
    return {name: read_table(source) for name, source in sources.items()}


def read_ids(table, kind="classification"):
    raw = read_labels(table, ["label"], kind, separator=",", where="t")
    kept = np.flatnonzero(~raw.missing)
    space = build_label_space(raw, kind, names=None, column="label")
    return list(space.names), encode_labels(
        type(raw)(raw.values.take(pa.array(kept)), raw.declared, raw.numeric, raw.where), space
    ).tolist()


@pytest.mark.parametrize("case", VALUES)
def test_labels_have_the_same_names_and_ids_in_every_format(case, tmp_path):
    values, names = VALUES[case]
    frame = make_frame(values)
    tables = read_all(frame, tmp_path, UNWRITABLE.get(case, ()))
    assert len(tables) >= 5
    found = {name: read_ids(table) for name, table in tables.items()}
    first = found["a.csv"]
    assert first[0] == names
    assert set(first[1]) == {0, 1}
    assert found == dict.fromkeys(found, first)


@pytest.mark.parametrize("case", ["booleans", "whole doubles", "dates", "spans", "times", "pandas strings"])
def test_polars_frames_by_way_of_arrow_and_its_own_files_agree(case, tmp_path):
    polars = pytest.importorskip("polars")
    values, names = VALUES[case]
    frame = polars.from_pandas(make_frame(values))
    written = [frame.to_arrow()]
    if case != "spans":  # Polars writes a span of whole days as P1D, which may as well be a code.
        frame.write_csv(tmp_path / "p.csv")
        frame.write_parquet(tmp_path / "p.parquet")
        written += [tmp_path / "p.csv", tmp_path / "p.parquet"]
    found = [read_ids(read_table(source)) for source in written]
    assert found[0][0] == names
    assert all(each == found[0] for each in found)


def test_a_polars_enum_has_an_order():
    polars = pytest.importorskip("polars")
    levels = polars.Series(["warm", "cold", "hot"], dtype=polars.Enum(["cold", "warm", "hot"]))
    table = polars.DataFrame({"text": ["a", "b", "c"], "label": levels}).to_arrow()
    assert read_ids(read_table(table), "ordinal") == (["cold", "warm", "hot"], [1, 0, 2])


SPELLED = {
    "TRUE": "True",
    " false ": "False",
    "1.0": "1",
    "-0.0": "0",
    "2.00": "2",
    "2.5": "2.5",
    "1e+16": "10000000000000000",
    "0.00001": "1e-05",
    "12345678901234567890123.0": "12345678901234567890123",
    "2020-02-30": "2020-02-30",
    "2020-02-03T00:00:00.000": "2020-02-03",
    "2020-02-03 00:00:00Z": "2020-02-03 00:00:00+00:00",
    "P1DT2H3M4.500S": "1 days 02:03:04.5",
    "-1 days +23:00:00": "-1 days +23:00:00",
    **dict.fromkeys(["01", "1.10", "+1", "1.", ".5", "1e3", "1_000", "-0", "nan", "inf", "yes", "P1D", "PT", "", " x"]),
}


@pytest.mark.parametrize("text", SPELLED)
def test_a_text_that_is_a_value_is_spelled_as_that_value(text):
    wanted = text if SPELLED[text] is None else SPELLED[text]
    assert spell(text) == wanted
    assert spell(wanted) == wanted


def test_a_column_is_text_as_soon_as_one_cell_is():
    assert spell_alike(["1.0", "2.0"]) == {"1.0": "1", "2.0": "2"}
    for other in ("01", "1.10", "one", "True", "2020-01-02"):
        assert spell_alike(["1.0", other]) == {"1.0": "1.0", other: other}
    assert spell_alike(["true", "maybe", "false"])["true"] == "true"


def test_columns_of_every_arrow_type_have_a_spelling():
    columns = [
        (pa.array([0.1, 1, None], pa.float32()), ["0.1", "1", None]),
        (pa.array([0.5, np.nan], pa.float64()), ["0.5", None]),
        (pa.array([1.5, 2], pa.float16()), ["1.5", "2"]),
        (pa.array([b"a", None], pa.large_binary()), ["a", None]),
        (pa.array([b"ab"], pa.binary(2)), ["ab"]),
        (pa.array(["a", None], pa.string_view()), ["a", None]),
        (pa.array([Decimal("1.10"), None]), ["1.10", None]),
        (pa.array([1_500], pa.duration("ms")), ["0 days 00:00:01.5"]),
        (pa.array([-1], pa.duration("s")), ["-1 days +23:59:59"]),
        (pa.array([3_600], pa.time32("s")), ["01:00:00"]),
        (pa.array([1_500_000], pa.time64("us")), ["00:00:01.5"]),
        (pa.array([86_400_000], pa.date64()), ["1970-01-02"]),
        (pa.array([1], pa.timestamp("ns")), ["1970-01-01 00:00:00.000000001"]),
        (pa.array(["x", "y", "x"]).dictionary_encode(), ["x", "y", "x"]),
        (pa.nulls(2), [None, None]),
        (pa.array([{"left": 0, "right": 1, "closed": "left"}, None]), ["[0, 1)", None]),
    ]
    for column, wanted in columns:
        assert spell_column(column).to_pylist() == wanted, column.type
    assert len(columns) == 16
    with pytest.raises(TypeError):
        spell_column(pa.array([[1]]))
    with pytest.raises(ValueError, match=r"^2$"):
        spell_column(pa.array([b"a", b"\xff"]))


def test_names_that_are_values_are_placed_by_them():
    assert read_order(["10 days", "-1 days +23:00:00", "9 days"])["-1 days +23:00:00"] < 0
    assert read_order(["True", "False"]) == {"True": 1.0, "False": 0.0}
    assert read_order(["2020-01-02", "low"]) is None
    assert read_order(["[-inf, 0)", "[0, 3.5)"]) == {"[-inf, 0)": float("-inf"), "[0, 3.5)": 0.0}


def make_table(values, kind=None):
    return read_table(pa.table({"text": [f"t{i}" for i in range(len(values))], "label": pa.array(values, kind)}))


CONTRACTS = [
    (("0", "1"), [True, False], [1, 0]),
    (("0", "1"), ["True", "false"], [1, 0]),
    (("False", "True"), [1, 0], [1, 0]),
    (("False", "True"), ["TRUE", "false"], [1, 0]),
    (("true", "false"), [True, False], [0, 1]),
    (("1.0", "2.0"), [2, 1], [1, 0]),
    (("1.0", "1.5"), [1.5, 1.0], [1, 0]),
    (("1", "2"), ["2.0", "1.0"], [1, 0]),
    (("1", "1.0", "1.10"), ["1.0", "1", "1.10"], [1, 0, 2]),
    (("2021-03-09", "2021-11-02"), ["2021-11-02T00:00:00"], [1]),
    (("a", "b"), [b"b", b"a"], [1, 0]),
]


@pytest.mark.parametrize(("names", "values", "ids"), CONTRACTS)
def test_a_stored_contract_knows_a_value_by_any_of_its_spellings(names, values, ids):
    space = LabelSpace("classification", names)
    assert map_labels(make_table(values), space, where="new.csv")["label"][:] == ids


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (("0", "1", "2"), [True, False]),
        (("False", "True"), [2, 0]),
        (("01", "02"), [1, 2]),
        (("1", "2"), ["01", "02"]),
        (("yes", "no"), [True, False]),
        (("1", "1.0"), ["1.00"]),
    ],
)
def test_a_value_that_a_contract_does_not_have_names_both_sides(names, values):
    with pytest.raises(LabelError, match=r'expected one of the labels ".*came "'):
        map_labels(make_table(values), LabelSpace("classification", names), where="new.csv")


def test_splits_in_different_formats_have_one_contract(tmp_path):
    frame = pd.DataFrame({"text": [f"text number {i}" for i in range(8)], "label": [True, False] * 4})
    frame.to_parquet(tmp_path / "train.parquet")
    frame.assign(text=frame.text + " v").to_csv(tmp_path / "validation.csv", index=False)
    frame.assign(text=frame.text + " t").to_json(tmp_path / "test.jsonl", orient="records", lines=True)
    splits = load_splits(DataConfig(path=str(tmp_path)), TaskConfig(), seed=0)
    assert splits.labels.names == ("False", "True")
    assert {name: table["label"][:] for name, table in splits.tables.items()} == dict.fromkeys(
        ("train", "validation", "test"), [1, 0] * 4
    )


def test_a_text_that_is_respelled_is_said_and_one_that_is_not_is_not():
    texts = [f"text number {i}" for i in range(20)]
    notes = load_splits(
        DataConfig(), TaskConfig(), seed=0, source=pd.DataFrame({"text": texts, "label": ["TRUE", "FALSE"] * 10})
    ).facts.notes
    assert sum('"TRUE" as "True"' in note for note in notes) == 1
    notes = load_splits(
        DataConfig(), TaskConfig(), seed=0, source=pd.DataFrame({"text": texts, "label": [True, False] * 10})
    ).facts.notes
    assert not any("spelled" in note for note in notes)


def test_label_text_names_booleans_as_it_names_numbers():
    table = read_table(pa.table({"text": ["a", "b"], "label": [True, False], "label_text": ["yes", "no"]}))
    assert map_labels(table, LabelSpace("classification", ("no", "yes")), where="t")["label"][:] == [1, 0]


ORDERED = pd.Categorical(["warm", "cold", "hot"] * 2, categories=["cold", "warm", "hot", "never"], ordered=True)


@pytest.mark.parametrize("name", ["a.parquet", "a.feather", "a.arrow", "pandas", "arrow"])
def test_an_ordered_categorical_gives_the_order_of_an_ordinal_task(name, tmp_path):
    frame = pd.DataFrame({"text": list("abcdef"), "label": ORDERED})
    table = read_all(frame, tmp_path)[name]
    assert read_ids(table, "ordinal") == (["cold", "warm", "hot"], [1, 0, 2] * 2)
    assert read_ids(table)[0] == ["cold", "hot", "warm"], "classes stand in natural order in any format"
    plain = frame.assign(label=pd.Categorical(["warm", "cold", "hot"] * 2))
    with pytest.raises(LabelError, match=r"Give their order, low to high, in task\.labels"):
        read_ids(read_table(plain), "ordinal")


def test_the_order_of_categories_survives_many_row_groups(tmp_path):
    frame = pd.DataFrame({"text": [f"t{i}" for i in range(90)], "label": ORDERED.take(np.arange(90) % 3)})
    frame.to_parquet(tmp_path / "a.parquet", row_group_size=7)
    assert read_ids(read_table(tmp_path / "a.parquet"), "ordinal")[0] == ["cold", "warm", "hot"]


def test_an_order_against_the_contract_is_refused_and_said_where_it_is_taken():
    frame = pd.DataFrame({"text": [f"text {i}" for i in range(30)], "label": ORDERED.take(np.arange(30) % 3)})
    splits = load_splits(DataConfig(), TaskConfig(kind="ordinal"), seed=0, source=frame)
    assert splits.labels.names == ("cold", "warm", "hot")
    assert any("ordered categories" in note for note in splits.facts.notes)
    turned = frame.assign(label=frame.label.cat.reorder_categories(["hot", "never", "warm", "cold"]))
    with pytest.raises(LabelError, match=r'expected the order "cold", "warm", "hot", came .*"hot", "warm", "cold"'):
        map_labels(read_table(turned), splits.labels, where="new.parquet")
    with pytest.raises(LabelError, match="expected the order"):
        load_splits(DataConfig(), TaskConfig(kind="ordinal"), seed=0, source={"train": frame, "test": turned})


@pytest.mark.parametrize("case", ["intervals", "bins", "spans", "dates", "booleans", "times"])
def test_values_with_an_order_of_their_own_are_ordinal_in_every_format(case, tmp_path):
    values, names = VALUES[case]
    tables = read_all(make_frame(values), tmp_path, UNWRITABLE.get(case, ()))
    assert {name: read_ids(table, "ordinal")[0] for name, table in tables.items()} == dict.fromkeys(tables, names)


MISSING = [None, float("nan"), pd.NA, pd.NaT, "", "  \t"]


@pytest.mark.parametrize("nothing", MISSING, ids=repr)
def test_nothing_is_missing_in_every_format(nothing, tmp_path):
    frame = pd.DataFrame({"text": list("abcdef"), "label": pd.Series(["x", "y", nothing] * 2, dtype=object)})
    tables = read_all(frame, tmp_path)
    for name, table in tables.items():
        raw = read_labels(table, ["label"], "classification", separator=",", where="t")
        assert raw.missing.tolist() == [False, False, True] * 2, name
    assert len(tables) == 9


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


NAN = float("nan")


@pytest.mark.parametrize("where", [1, 4, 20])
@pytest.mark.parametrize("column", ["text", "label"])
def test_nan_in_json_lines_is_missing_with_its_line_and_can_be_dropped(tmp_path, where, column):
    rows = [{"text": f"text number {i}", "label": ["bad", "good"][i % 2]} for i in range(20)]
    rows[where - 1][column] = NAN
    path = write_lines(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError, match=rf"came none in 1 row \(line {where}\)"):
        load_splits(DataConfig(path=path), TaskConfig(), seed=0)
    facts = load_splits(DataConfig(path=path, invalid="drop"), TaskConfig(), seed=0).facts
    assert facts.dropped == {"empty_text" if column == "text" else "missing_label": 1}
    (tmp_path / "b.jsonl").write_text("\n" + (tmp_path / "a.jsonl").read_text())
    with pytest.raises(DataError, match=rf"\(line {where + 1}\)"):
        load_splits(DataConfig(path=str(tmp_path / "b.jsonl")), TaskConfig(), seed=0)


UNREAD = {
    "nan before text": [NAN, "late", None],
    "nan after text": ["late", NAN, "x"],
    "text and numbers": ["late", 3, 2.5],
    "numbers and booleans": [1, True, None],
    "lists and objects": [[1], {"a": 1}, "x"],
    "lists of both": [[1, "a"], ["b"], None],
    "objects of both": [{"a": 1}, {"a": "x"}, {}],
    "large numbers": [2**70, 1, -5],
    "large and real numbers": [2**63 + 1, 0.5, None],
    "infinity": [float("inf"), 1.0, -float("inf")],
    "half a surrogate pair": ["\ud800", "x", None],
    "nothing": [None, None, None],
    "empty lists": [[], None, []],
    "deep": [{"a": [{"b": NAN}]}, {"a": []}, {}],
}


@pytest.mark.parametrize("form", ["jsonl", "stdin", "batches", "pandas"])
@pytest.mark.parametrize("case", UNREAD)
def test_a_column_that_nobody_reads_never_stops_anything(case, form, tmp_path, monkeypatch):
    rows = [{"text": f"t{i}", "label": "ab"[i % 2], "note": value} for i, value in enumerate(UNREAD[case])]
    if form == "batches":
        monkeypatch.setattr("nlp_transfer.data.textfiles.BATCH_ROWS", 1)
    if form == "pandas":
        notes = pd.Series([row.pop("note") for row in rows], dtype=object)
        table = read_table(pd.DataFrame(rows).assign(note=notes))
    elif form == "stdin":
        table = read_stdin(io.StringIO("".join(json.dumps(row) + "\n" for row in rows)))
    else:
        table = read_table(write_lines(tmp_path / "a.jsonl", rows))
    ready = prepare_inference_table(table, is_pair=False, where="t")
    assert ready["text"][:] == ["t0", "t1", "t2"]
    assert map_labels(table, LabelSpace("classification", ("a", "b")), where="t")["label"][:] == [0, 1, 0]
    for suffix in (".csv", ".jsonl", ".parquet"):
        write_table(table.add_column("predicted", ["a"] * 3), tmp_path / f"o{suffix}", io.StringIO())
        assert read_table(tmp_path / f"o{suffix}")["text"][:] == ["t0", "t1", "t2"], suffix


@pytest.mark.parametrize("form", ["one", "batches", "stdin", "pandas"])
def test_a_mixed_column_that_is_read_is_refused_with_its_place(form, tmp_path, monkeypatch):
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": None}, {"text": 3, "label": 4}]
    if form == "batches":
        monkeypatch.setattr("nlp_transfer.data.textfiles.BATCH_ROWS", 2)
    if form == "pandas":
        table = read_table(pd.DataFrame(rows))
    elif form == "stdin":
        table = read_stdin(io.StringIO("".join(json.dumps(row) + "\n" for row in rows)))
    else:
        table = read_table(write_lines(tmp_path / "a.jsonl", rows))
    place = "row 3" if form == "pandas" else "line 3"
    for column in ("text", "label"):
        expected = rf"{place}: expected one type of value in .*'{column}', came a number after text"
        with pytest.raises(DataError, match=expected):
            build_columns(table, text="text", text_b=None, label=[], id_column=None, where="t") if (
                column == "text"
            ) else read_labels(table, ["label"], "classification", separator=",", where="t")
        with pytest.raises(DataError, match=expected):
            build_columns(
                table.rename_column("text", "other").add_column("text", ["a"] * 3),
                text="text",
                text_b=None,
                label=[],
                id_column="other" if column == "text" else "label",
                where="t",
            )


def test_whole_numbers_too_large_for_a_column_are_labels_all_the_same(tmp_path):
    rows = [{"text": "a", "label": 2**80}, {"text": "b", "label": 7}]
    table = read_table(write_lines(tmp_path / "a.jsonl", rows))
    assert read_ids(table) == (["7", str(2**80)], [1, 0])
    pd.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False)
    assert read_ids(read_table(tmp_path / "a.csv")) == (["7", str(2**80)], [1, 0])


ODD = {
    "interval": pa.nulls(2, pa.month_day_nano_interval()),
    "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
    "list view": pa.array([[1], None], pa.list_view(pa.int64())),
    "union": pa.UnionArray.from_dense(
        pa.array([0, 1], pa.int8()), pa.array([0, 0], pa.int32()), [pa.array([1]), pa.array(["x"])]
    ),
    "runs": pa.RunEndEncodedArray.from_arrays([2], ["a"]),
    "uuid": pa.array([b"0" * 16, None], pa.uuid()),
    "json": pa.array(['{"a": 1}', None], pa.json_()),
    "bool8": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None], pa.int8())),
    "decimal32": pa.array([Decimal("1.5"), None], pa.decimal32(5, 2)),
    "tensor": pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.int32(), [2]), pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2))
    ),
    "opaque": pa.ExtensionArray.from_storage(pa.opaque(pa.binary(), "a", "b"), pa.array([b"x", None])),
    "number categories": pa.array([3, 1]).dictionary_encode(),
    "decimal256": pa.array([Decimal(1), None], pa.decimal256(60, 2)),
    "bytes": pa.array([b"\xff", None]),
    "far": pa.array([2**40, None], pa.timestamp("s")),
    "nested": pa.array([{"a": [("k", 1)]}, None], pa.struct([("a", pa.map_(pa.string(), pa.int64()))])),
}


@pytest.mark.parametrize("case", ODD)
def test_types_that_datasets_lacks_do_not_stop_a_table(case, tmp_path):
    table = pa.table({"text": ["a", "b"], "odd": ODD[case]})
    read = read_table(table)
    ready = prepare_inference_table(read, is_pair=False, where="t")
    assert ready["text"][:] == ["a", "b"]
    assert "odd" in ready.column_names
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    assert read_table(tmp_path / "a.arrow").column_names == ["text", "odd"]


def test_extension_types_of_pandas_are_known_by_their_metadata_alone():
    metadata = {"ARROW:extension:name": "pandas.period", "ARROW:extension:metadata": '{"freq": "M"}'}
    field = pa.field("month", pa.int64(), metadata=metadata)
    table = pa.table([pa.array([612, None])], schema=pa.schema([field]))
    assert hold_columns(table)["month"].to_pylist() == ["2021-01", None]
    plain = pa.table({"text": ["a"], "n": [1]})
    assert hold_columns(plain) is plain


TEXTS = [
    pa.array(["a", "b"]).dictionary_encode(),
    pa.array(["a", "b"], pa.large_string()),
    pa.array(["a", "b"], pa.string_view()),
    pa.array(["a", "b"], pa.dictionary(pa.int8(), pa.large_string())),
    pa.array([b"a", b"b"]),
    pa.array([b"a", b"b"], pa.large_binary()),
]


@pytest.mark.parametrize("column", TEXTS, ids=lambda column: str(column.type))
def test_texts_and_ids_are_read_however_they_are_stored(column):
    table = read_table(pa.table({"text": column, "key": column}))
    columns, _ = build_columns(table, text="text", text_b=None, label=[], id_column="key", where="t")
    assert columns["text"].to_pylist() == ["a", "b"]
    assert columns["id"].to_pylist() == ["a", "b"]


def test_ids_are_the_same_in_every_format(tmp_path):
    for values, wanted in (
        ([7, 8], ["7", "8"]),
        ([7.0, 8.0], ["7", "8"]),
        (["007", "1.10"], ["007", "1.10"]),
        (["1.0", "1"], ["1.0", "1"]),
        (pd.Categorical(["x", "y"]), ["x", "y"]),
        ([dt.date(2020, 1, 2), dt.date(2020, 1, 3)], ["2020-01-02", "2020-01-03"]),
    ):
        frame = pd.DataFrame({"text": ["a", "b"], "key": values})
        skipped = {"a.jsonl"} if isinstance(frame.key[0], dt.date) else ()
        for name, table in read_all(frame, tmp_path, skipped).items():
            columns, _ = build_columns(table, text="text", text_b=None, label=[], id_column="key", where="t")
            assert columns["id"].to_pylist() == wanted, name


def test_bytes_that_are_no_text_are_refused_with_their_row():
    table = read_table(pa.table({"text": [b"a", b"\xff"], "label": [b"x", b"\xfe"]}))
    with pytest.raises(DataError, match="t, row 2: expected text in column 'text', came bytes that are no UTF-8"):
        prepare_inference_table(table, is_pair=False, where="t")
    with pytest.raises(DataError, match="t, row 2: expected text in 'label'"):
        read_labels(table, ["label"], "classification", separator=",", where="t")


@pytest.mark.parametrize("word", ["nan", "None", "null", "NA", "N/A", "<NA>", "NaN", "NaT"])
def test_a_label_that_looks_missing_warns_with_its_count(word):
    def warn(values, names=None):
        facts = DataFacts()
        table = Dataset.from_dict({"label": values})
        raw = read_labels(table, ["label"], "classification", separator=",", where="t", names=names)
        warn_missing_words({"train": raw, "test": raw}, names, facts)
        return facts.warnings

    (warning,) = warn(["good", word, "bad", word])
    assert f'"{word}"' in warning
    assert "4 rows" in warning
    assert "data.invalid=drop" in warning
    assert warn(["good", "bad"]) == warn([word, word]) == warn(["good", word], ["good", word]) == []


def test_a_word_for_nothing_in_a_column_of_numbers_says_what_to_do():
    with pytest.raises(DataError, match=r"row 2: expected a number .* leave the cell empty: data\.invalid=drop"):
        read_labels(Dataset.from_dict({"y": ["1", "nan"]}), ["y"], "regression", separator=",", where="t")
    table = Dataset.from_dict({"a": ["1", "null"], "b": ["0", "1"]})
    with pytest.raises(DataError, match=r"row 2: expected 0 or 1 in 'a', came 'null'\. Leave the cell empty"):
        read_labels(table, ["a", "b"], "multi_label", separator=",", where="t")


def read_cells(cells, separator=";", names=None):
    table = Dataset.from_dict({"label": cells})
    return read_labels(table, ["label"], "multi_label", separator=separator, where="t.csv", names=names)


@pytest.mark.parametrize("other", ["|", ",", ", ", "/"])
def test_cells_with_another_separator_are_refused_with_their_row(other):
    cells = ["joy", f"joy{other}anger", "anger", f"fear{other}joy", "fear"]
    expected = rf"t\.csv, row 2: expected ';' between the labels in 'label', came '\{other.strip(' ')}'"
    with pytest.raises(LabelError, match=expected) as caught:
        read_cells(cells)
    assert "data.label_separator" in str(caught.value)
    assert read_cells(cells, names=["joy", "anger", "fear", f"joy{other}anger", f"fear{other}joy"]).warnings == ()
    (warning,) = read_cells([*cells, "joy;fear"]).warnings
    assert warning.startswith("t.csv, row 2")
    assert read_cells(cells, separator=other).warnings == ()


def test_names_that_hold_a_comma_or_a_slash_are_left_alone():
    for cells in (["Food, drink", "Travel", "Food, take-away"], ["AC/DC", "ABBA", "N/A/B"], ["a", "b;c"]):
        assert read_cells(cells).warnings == ()
    (warning,) = read_cells(["a|b", "c"]).warnings
    assert "row 1" in warning


@pytest.mark.parametrize("values", [[True, False], [1.0, 0.0], ["true", "FALSE"], [Decimal("1.0"), Decimal("0.0")]])
def test_flags_are_read_in_any_spelling(values):
    table = read_table(pa.table({"toxic": values, "rude": [1, 0]}))
    for columns in (["toxic"], ["toxic", "rude"]):
        raw = read_labels(table, columns, "multi_label", separator=",", where="t")
        assert raw.values.to_pylist() == [columns, []]


def test_decimals_are_targets_of_a_regression_and_infinity_is_not():
    table = read_table(pa.table({"text": ["a", "b"], "y": [Decimal("1.25"), None]}))
    raw = read_labels(table, ["y"], "regression", separator=",", where="t")
    assert raw.values.to_pylist() == [1.25, None]
    with pytest.raises(DataError, match="came the number inf"):
        read_labels(Dataset.from_dict({"y": [1.0, float("inf")]}), ["y"], "classification", separator=",", where="t")


def test_ordered_parquet_keeps_types_that_are_not_text(tmp_path):
    table = pa.table({"text": ["a", "b"], "label": pa.array([5, 3]).dictionary_encode()})
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    for name in ("a.parquet", "a.arrow"):
        assert get_arrow_table(read_table(tmp_path / name))["label"].to_pylist() == [5, 3]
