import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, LargeList, List, Value

from nlp_transfer.data import tables
from nlp_transfer.data.columns import prepare_inference_table
from nlp_transfer.data.label_values import read_labels
from nlp_transfer.data.tables import get_arrow_table, read_table, store_table
from nlp_transfer.errors import DataError, StorageError

ROWS = {"text": ["a joy, truly", 'she said "no"', "two\nlines"], "label": ["good", "NA", ""]}


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
