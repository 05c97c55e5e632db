import errno
import io
import json

import pandas as pd
import pytest
from datasets import Dataset

from nlp_transfer.data.exchange import FORMATS, check_output, read_split, read_stdin, write_table
from nlp_transfer.errors import DataError, OutputError, StorageError


def read(text):
    return read_stdin(io.StringIO(text)).to_dict()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a joy\nnot, really\n", {"text": ["a joy", "not, really"]}),
        ("a joy\r\n\r\n  \nlast", {"text": ["a joy", "last"]}),
        ("line\u2028same text\n", {"text": ["line\u2028same text"]}),
        ("text\na joy\n", {"text": ["a joy"]}),
        ("id,text\n007,a joy\nNA,null\n", {"id": ["007", "NA"], "text": ["a joy", "null"]}),
        ('text,label\n"a, b\nc",x\n', {"text": ["a, b\nc"], "label": ["x"]}),
        ('\ufefftext\n"say ""hi"""\n', {"text": ['say "hi"']}),
        ('{"text": "a", "n": 1}\n\n{"text": "b"}\n', {"text": ["a", "b"], "n": [1, None]}),
    ],
)
def test_stdin_is_lines_or_csv_or_json_lines(text, wanted):
    assert read(text) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got nothing"),
        ("\n \n", "got nothing"),
        ("text,label\n", "header only"),
        ("text,label\na,b\nc\n", "row 2: expected 2 cells, got 1"),
        ("text,label\na,b,c\n", "row 1: expected 2 cells, got 3"),
        ('text\n"open\n', "quote"),
        ("text,text\na,b\n", "different column names"),
        ('{"text": "a"}\n{"text": \n', "line 2"),
        ('{"text": "a"}\n[1]\n', "line 2: expected a JSON object, got list"),
        ('{"text": "a"}\n{"text": 3}\n', "several types"),
    ],
)
def test_stdin_that_breaks_its_promise_is_refused(text, message):
    with pytest.raises(DataError, match=message):
        read(text)


def test_stdin_of_another_encoding_is_refused():
    stream = io.TextIOWrapper(io.BytesIO("naïve".encode("latin-1")), encoding="utf-8")
    with pytest.raises(DataError, match="utf-8"):
        read_stdin(stream)


@pytest.fixture
def table():
    return Dataset.from_dict({"text": ["a, b", 'say "ü"'], "predicted": [["x"], []], "n": [1, 2]})


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_written_and_reads_back(suffix, table, tmp_path):
    out = tmp_path / f"out{suffix}"
    write_table(table, out, io.StringIO())
    if suffix == ".parquet":
        rows = pd.read_parquet(out).to_dict("records")
        assert [list(row["predicted"]) for row in rows] == [["x"], []]
    elif suffix == ".jsonl":
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        assert [row["predicted"] for row in rows] == [["x"], []]
        assert "ü" in out.read_text(encoding="utf-8")
    else:
        rows = pd.read_csv(out, sep="\t" if suffix == ".tsv" else ",").to_dict("records")
        assert [json.loads(row["predicted"]) for row in rows] == [["x"], []]
    assert [(row["text"], row["n"]) for row in rows] == [("a, b", 1), ('say "ü"', 2)]
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_csv_goes_to_the_stream_where_no_file_is_named(table):
    stream = io.StringIO()
    write_table(table, None, stream)
    assert pd.read_csv(io.StringIO(stream.getvalue()))["text"].tolist() == ["a, b", 'say "ü"']


def test_a_full_disk_leaves_the_earlier_file_and_nothing_else(table, tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    out.write_text("earlier")

    def fail(self, path, **_):
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(StorageError, match="No space left"):
        write_table(table, out, io.StringIO())
    assert out.read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_an_output_that_cannot_be_is_refused_before_any_work(tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("text\na\n")
    taken = tmp_path / "taken.csv"
    taken.write_text("mine")
    (tmp_path / "folder.csv").mkdir()
    cases = [
        (tmp_path / "out.xlsx", "ending in"),
        (tmp_path / "out", "ending in"),
        (tmp_path / "folder.csv", "is a folder"),
        (taken, "exists already"),
        (source, "the input itself"),
        (tmp_path / "gone" / "out.csv", "no folder"),
    ]
    for out, message in cases:
        with pytest.raises(OutputError, match=message):
            check_output(out, str(source), overwrite=False)
    assert taken.read_text() == "mine"
    check_output(taken, str(source), overwrite=True)
    with pytest.raises(OutputError, match="the input itself"):
        check_output(source, str(source), overwrite=True)
    check_output(None, "-", overwrite=False)
    check_output(tmp_path / "new.JSONL", "-", overwrite=False)


def test_a_split_of_a_folder_is_read(tmp_path):
    for split, text in (("train", "a"), ("test", "b")):
        (tmp_path / f"{split}.csv").write_text(f"text,label\n{text},x\n")
    rows, where = read_split(str(tmp_path), "test")
    assert rows["text"][:] == ["b"]
    assert where == str(tmp_path / "test.csv")
    assert read_split(str(tmp_path / "train.csv"), "test")[0]["text"][:] == ["a"]
    with pytest.raises(DataError, match="validation"):
        read_split(str(tmp_path), "validation")
    (tmp_path / "test.jsonl").write_text('{"text": "c"}\n')
    with pytest.raises(DataError, match=r"test\.csv and test\.jsonl"):
        read_split(str(tmp_path), "test")


def test_a_bundled_name_is_read():
    rows, where = read_split("reviews", "test")
    assert rows.num_rows >= 300
    assert "test" in where


@pytest.mark.parametrize("name", ["gone.csv", "gone", "./gone/"])
def test_what_is_not_there_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="gone"):
        read_split(name, "test")
