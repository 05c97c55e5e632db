import bz2
import gzip
import json
import lzma
import uuid
from decimal import Decimal
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, LargeList, List, Value

from nlp_transfer.data import tables
from nlp_transfer.data.columns import find_text_columns, prepare_inference_table
from nlp_transfer.data.findings import Findings
from nlp_transfer.data.labels.values import read_labels
from nlp_transfer.data.load import load_splits
from nlp_transfer.data.tables import get_arrow_table, holds_table, read_table, store_table
from nlp_transfer.errors import DataError, StorageError, TransferWarning
from nlp_transfer.recipe.schema import DataConfig, TaskConfig

ROWS = {"text": ["a joy, truly", 'she said "no"', "two\nlines"], "label": ["good", "NA", ""]}


def compress(content, ending):
    if ending != ".zst":
        return {".gz": gzip, ".bz2": bz2, ".xz": lzma}[ending].compress(content)
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def test_every_format_gives_the_same_rows(tmp_path):
    frame = pd.DataFrame(ROWS)
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_feather(tmp_path / "a.feather")
    table = pa.table(ROWS)
    with pa.ipc.new_file(tmp_path / "file.arrow", table.schema) as writer:
        writer.write_table(table)
    with pa.ipc.new_stream(tmp_path / "stream.arrow", table.schema) as writer:
        writer.write_table(table)
    sources = [*sorted(tmp_path.iterdir()), frame, table, Dataset.from_dict(ROWS)]
    assert len(sources) == 10
    for source in sources:
        assert read_table(source).to_dict() == ROWS


def test_words_for_nothing_stay_text_in_a_csv(tmp_path):
    words = ["NA", "None", "null", "nan", "N/A", "NaN"]
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"{word},{word}\n" for word in words))
    table = read_table(tmp_path / "a.csv")
    assert table["text"][:] == words
    assert table["label"][:] == words


def test_class_names_survive_a_parquet_file(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["b", "a"])})
    Dataset.from_dict({"text": ["x", "y"], "label": [0, 1]}, features=features).to_parquet(tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").features["label"].names == ["b", "a"]


def test_pandas_categories_and_missing_values_are_read():
    frame = pd.DataFrame({"text": pd.Categorical(["a", "b"]), "label": ["x", None], "n": [1.5, np.nan]})
    assert read_table(frame)["text"][:] == ["a", "b"]
    assert read_table(frame)["label"][:] == ["x", None]


def test_a_selection_keeps_its_order():
    chosen = Dataset.from_dict({"text": ["a", "b", "c"]}).select([2, 0])
    assert get_arrow_table(chosen)["text"].to_pylist() == ["c", "a"]


NESTED_TYPES = [
    pa.large_list(pa.large_string()),
    pa.list_(pa.large_string()),
    pa.list_(pa.string(), 2),
    pa.large_list(pa.string_view()),
    pa.list_(pa.dictionary(pa.int32(), pa.large_string())),
]


@pytest.mark.parametrize("kind", NESTED_TYPES, ids=str)
def test_lists_of_any_kind_hold_labels(kind, tmp_path):
    rows = [["a", "b"], ["b", "c"], None]
    table = pa.table({"text": ["x", "y", "z"], "label": pa.array(rows, kind), "more": pa.array(rows, kind)})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    pq.write_table(table, tmp_path / "a.parquet")
    for source in (table, tmp_path / "a.arrow", tmp_path / "a.parquet"):
        read = read_table(source)
        raw = read_labels(read, ["label"], "multi_label", separator=",", where="t")
        assert raw.values.to_pylist() == rows
        built = prepare_inference_table(read, is_pair=False, where="t")
        assert built["more"][:] == rows
    nested = pa.table({"text": ["x"], "o": pa.array([{"k": ["a", "b"]}], pa.struct([("k", kind)]))})
    assert get_arrow_table(read_table(nested))["o"].type == pa.struct([("k", pa.list_(pa.string()))])


def test_class_names_in_lists_of_any_kind_survive(tmp_path):
    names = ClassLabel(names=["b", "a"])
    features = Features({"text": Value("string"), "fixed": List(names, length=2), "large": LargeList(names)})
    rows = {"text": ["x", "y"], "fixed": [[0, 1], [1, 0]], "large": [[1], []]}
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    found = {
        name: read_labels(table, [name], "multi_label", separator=",", where="t").values.to_pylist()
        for name in ("fixed", "large")
    }
    assert found == {"fixed": [["b", "a"], ["a", "b"]], "large": [["a"], []]}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (3, "came int"),
        (pd.DataFrame({"text": []}), "expected a table with rows"),
        (pd.DataFrame([["a", "b"]], columns=["text", "text"]), "came twice: text"),
    ],
)
def test_unusable_tables_in_memory_are_refused(source, expected):
    with pytest.raises(DataError, match=expected):
        read_table(source)


def test_unusable_files_are_refused(tmp_path):
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 this is not a parquet file PAR1")
    (tmp_path / "broken.arrow").write_bytes(b"nonsense that goes on for a while")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "notes.docx").write_text("x")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "rowless.parquet")
    cases = {
        "empty.parquet": "empty file",
        "broken.parquet": "expected a whole Parquet file",
        "broken.arrow": "expected a whole Arrow file",
        "folder.csv": "came a folder",
        "notes.docx": "came '.docx'",
        "rowless.parquet": "expected a table with rows",
        "missing.csv": "no such file",
        "missing.parquet": "no such file",
    }
    for name, expected in cases.items():
        with pytest.raises(DataError, match=expected) as caught:
            read_table(tmp_path / name)
        assert name in str(caught.value)
    assert len(cases) == 8


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_an_unreadable_file_is_the_users_and_a_broken_disk_is_not(tmp_path, monkeypatch, name):
    (tmp_path / name).write_text("text\nx\n")

    def refuse(error):
        def opener(*args, **kwargs):
            raise error

        monkeypatch.setattr("pathlib.Path.open", opener)

    refuse(PermissionError(13, "denied"))
    with pytest.raises(DataError, match="permission denied"):
        read_table(tmp_path / name)
    refuse(OSError(5, "Input/output error"))
    with pytest.raises(StorageError, match="Input/output error") as caught:
        read_table(tmp_path / name)
    assert caught.value.exit_status == 1


def test_a_large_table_is_memory_mapped_and_leaves_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(tables, "SPILL_BYTES", 10_000)
    monkeypatch.setattr("nlp_transfer.data.delimited.BATCH_ROWS", 100)
    texts = [f"text number {index}" for index in range(2000)]
    pd.DataFrame({"text": texts}).to_csv(tmp_path / "a.csv", index=False)
    table = read_table(tmp_path / "a.csv")
    assert table["text"][:] == texts
    features = Features({"text": Value("string")})
    stored = [store_table(get_arrow_table(table), features) for _ in range(2)]
    assert stored[0]["text"][:] == texts
    assert stored[0].cache_files == stored[1].cache_files
    assert [path.suffix for path in (tmp_path / "cache" / "nlp_transfer").iterdir()] == [".arrow"]


def test_a_full_disk_leaves_no_half_table(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(tables, "SPILL_BYTES", 1)

    def fail(table):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables, "_slice_batches", fail)
    with pytest.raises(StorageError, match="No space left on device"):
        store_table(pa.table({"text": ["a"]}), Features({"text": Value("string")}))
    assert list((tmp_path / "nlp_transfer").iterdir()) == []


def make_period():
    return pd.Series(pd.period_range("2024-01", periods=2, freq="M"))


MEMORY = {
    "a dictionary of lists": lambda: {"text": ["a", "b"], "label": ["x", None]},
    "of tuples": lambda: {"text": ("a", "b"), "label": ("x", None)},
    "of arrays": lambda: {"text": np.array(["a", "b"]), "label": np.array(["x", None], dtype=object)},
    "of pandas series": lambda: {"text": pd.Series(["a", "b"]), "label": pd.Series(["x", np.nan])},
    "of polars series": lambda: pl.DataFrame({"text": ["a", "b"], "label": ["x", None]}).to_dict(),
    "of Arrow arrays": lambda: {"text": pa.array(["a", "b"]), "label": pa.chunked_array([["x"], [None]])},
    "a list of dictionaries": lambda: [{"text": "a", "label": "x"}, {"text": "b"}],
    "a polars frame": lambda: pl.DataFrame({"text": ["a", "b"], "label": ["x", None]}),
    "a lazy one": lambda: pl.LazyFrame({"text": ["a", "b"], "label": ["x", None]}),
    "categories of polars": lambda: pl.DataFrame(
        {"text": ["a", "b"], "label": pl.Series(["x", None], dtype=pl.Categorical)}
    ),
    "an enumeration of polars": lambda: pl.DataFrame(
        {"text": ["a", "b"], "label": pl.Series(["x", None], dtype=pl.Enum(["y", "x"]))}
    ),
    "a batch of Arrow": lambda: pa.RecordBatch.from_pydict({"text": ["a", "b"], "label": ["x", None]}),
    "what gives itself away as Arrow": lambda: Stream(pa.table({"text": ["a", "b"], "label": ["x", None]})),
    "texts as views": lambda: pa.table({"text": pa.array(["a", "b"], pa.string_view()), "label": ["x", None]}),
    "categories as views": lambda: pa.table(
        {
            "text": ["a", "b"],
            "label": pa.DictionaryArray.from_arrays(pa.array([0, None], pa.int8()), pa.array(["x"], pa.string_view())),
        }
    ),
}


class Stream:
    """A table of another library, of which nothing is known but this."""

    def __init__(self, table):
        self.__arrow_c_stream__ = table.__arrow_c_stream__


@pytest.mark.parametrize("case", MEMORY)
def test_every_kind_of_table_in_memory_gives_the_same_rows(case):
    source = MEMORY[case]()
    assert holds_table(source)
    assert read_table(source).to_dict() == {"text": ["a", "b"], "label": ["x", None]}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"text": ["a", "b"], "label": ["x"]}, "expected columns of one length, came text: 2, label: 1"),
        ({"text": "a", "label": "x"}, "came dict of str"),
        ((["a"], ["x"]), "came tuple of list"),
        (["a", "b"], "came list of str"),
        (pl.Series(["a"]), "came Series"),
        (pd.Series(["a"]), "came Series"),
        (np.array([["a", "x"]]), "came ndarray"),
        ({1: ["a"], "1": ["b"]}, "came twice: 1"),
        (pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"]), "came twice: text"),
    ],
    ids=str,
)
def test_what_is_no_table_is_told_what_would_be(source, expected):
    with pytest.raises(DataError, match=expected):
        read_table(source)


ODD_COLUMNS = {
    "periods": (make_period, ["2024-01", "2024-02"]),
    "intervals": (lambda: pd.Series(pd.interval_range(0, 2)), ["(0, 1]", "(1, 2]"]),
    "bins": (lambda: pd.cut(pd.Series([1.0, 9.0]), [0, 5, 10]), ["(0, 5]", "(5, 10]"]),
    "ids": (lambda: pd.Series([uuid.UUID(int=1), None]), [str(uuid.UUID(int=1)), None]),
    "two types": (lambda: pd.Series(["a", 3]), ["a", "3"]),
    "sets": (lambda: pd.Series([{1}, {2}]), None),
    "large numbers": (lambda: pd.Series([10**30, 1]), [str(10**30), "1"]),
    "spans of Arrow": (lambda: pa.array([(1, 2, 3), None], pa.month_day_nano_interval()), None),
    "maps": (lambda: pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())), ['[["k", 1]]', None]),
    "periods of Arrow": (lambda: pa.Array.from_pandas(make_period()), ["2024-01", "2024-02"]),
    "runs": (lambda: pa.RunEndEncodedArray.from_arrays([2], ["a"]), ["a", "a"]),
    "short decimals": (lambda: pa.array([Decimal("1.10"), None], pa.decimal32(5, 2)), [Decimal("1.10"), None]),
    "views of lists": (lambda: pa.array([["a"], None], pa.list_view(pa.string())), [["a"], None]),
    "views of bytes": (lambda: pa.array([b"a", None], pa.binary_view()), [b"a", None]),
    "truth in eight bits": (
        lambda: pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0], pa.int8())),
        [True, False],
    ),
    "unions": (
        lambda: pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array(["a", "b"]), pa.array([1, 2])]),
        ["a", "2"],
    ),
    "objects with spans in them": (
        lambda: pa.array([{"k": None}, None], pa.struct([("k", pa.month_day_nano_interval())])),
        ['{"k": null}', None],
    ),
}


@pytest.mark.parametrize("case", ODD_COLUMNS)
def test_a_column_that_nobody_reads_stops_nothing(case):
    make, wanted = ODD_COLUMNS[case]
    table = read_table({"text": ["a", "b"], "odd": make()})
    built = prepare_inference_table(table, is_pair=False, where="t")
    assert built["text"][:] == ["a", "b"]
    assert len(built["odd"][:]) == 2
    if wanted is not None:
        assert built["odd"][:] == wanted


@pytest.mark.parametrize("kind", ["text", "label", "id"])
def test_a_column_of_several_types_is_refused_where_it_is_read(tmp_path, kind):
    rows = [{"text": "a", "label": "x", "id": "1"}, {"text": "b", "label": "y", "id": "2"}]
    rows[1][kind] = 3
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = DataConfig(path=str(tmp_path / "d.jsonl"), id="id")
    with pytest.raises(DataError, match=f"line 2: expected one type of value in '{kind}', came a number after text"):
        load_splits(settings, TaskConfig(), seed=0)
    with pytest.raises(DataError, match=f"data, row 2: expected one type of value in column '{kind}', came a number"):
        load_splits(DataConfig(id="id"), TaskConfig(), seed=0, source=pd.DataFrame(rows))


def test_a_column_of_several_types_is_kept_as_text_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr("nlp_transfer.data.textfiles.BATCH_ROWS", 2)
    odd = [1, None, 2, "x", {"k": 1}, [2], True]
    nested = [{"a": 1}, {"a": 2}, {"a": "x"}, None, {"a": [1]}, {"b": 1}, {"a": 1}]
    rows = [{"text": f"t{n}", "odd": odd[n], "nested": nested[n]} for n in range(7)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    findings = Findings()
    table = read_table(tmp_path / "d.jsonl", findings=findings)
    assert table["odd"][:] == ["1", None, "2", "x", '{"k": 1}', "[2]", "true"]
    assert table["nested"][:2] == ['{"a": 1}', '{"a": 2}']
    assert len(findings.notes) == 2
    assert "line 4: expected one type of value in 'odd', came text after a number" in findings.notes[0]
    assert "d.jsonl" in findings.notes[1]
    assert ".." not in findings.notes[1]


def test_a_mixed_column_is_not_taken_for_the_only_column_of_texts(tmp_path):
    rows = [{"satz": "a b", "meta": 1, "label": "x"}, {"satz": "c d", "meta": "m", "label": "y"}]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = read_table(tmp_path / "d.jsonl")
    assert find_text_columns(table, text=None, text_b=None, where="d")[0] == "satz"


@pytest.mark.parametrize("name", ["a.csv.gz", "a.tsv.xz", "a.txt.bz2", "a.ndjson.zst", "a.CSV.GZ"])
def test_compressed_tables_are_read_by_their_names(tmp_path, name):
    content = b'{"text": "a, b", "label": "x"}\n' if "json" in name else b"text\tlabel\na, b\tx\n"
    (tmp_path / name).write_bytes(compress(content, Path(name).suffix.lower()))
    assert read_table(tmp_path / name).to_dict() == {"text": ["a, b"], "label": ["x"]}


REFUSED_NAMES = {
    "a.gz": (b"x", r"as in a\.csv\.gz"),
    "a.parquet.gz": (b"x", r"expected a format of text before \.gz, came \.parquet. Unpack"),
    "a.xls": (b"x", r"Save it as \.xlsx or \.csv"),
    "a.zip": (b"x", "Unpack it"),
    "a.pkl": (b"x", "A pickle runs code"),
    "a.csv": (b"\x1f\x8b\x08", r"came a gzip file\. Name it a\.csv\.gz"),
    "b.csv": (b"PK\x03\x04 and so on", "came an Excel workbook or another zip file"),
    "a.parquet": (b"version https://git-lfs.github.com/spec/v1\noid", "came a pointer that Git LFS left"),
    "b.jsonl": (b"version https://git-lfs.github.com/spec/v1\noid", "Run git lfs pull"),
}


@pytest.mark.parametrize("name", REFUSED_NAMES)
def test_a_file_that_is_something_else_is_called_by_its_name(tmp_path, name):
    content, expected = REFUSED_NAMES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=expected) as caught:
        read_table(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_rows_that_are_left_out_warn_where_nobody_else_says_it(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,x\ntext,label\nb,y\n")
    with pytest.warns(TransferWarning, match=r"a\.csv: 1 row repeats the header"):
        assert read_table(tmp_path / "a.csv")["text"][:] == ["a", "b"]
    findings = Findings()
    read_table(tmp_path / "a.csv", findings=findings)
    assert findings.dropped == {"repeated_header": 1}
