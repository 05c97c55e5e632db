import csv
import datetime
import errno
import gzip
import io
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from nlp_transfer.data.columns import prepare_inference_table
from nlp_transfer.data.exchange import check_output, read_split, read_stdin, write_table
from nlp_transfer.data.findings import Findings
from nlp_transfer.data.tables import read_table
from nlp_transfer.errors import DataError, OutputError, StorageError, TransferWarning
from nlp_transfer.recipe.formats import WRITTEN_SUFFIXES


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
        ("id;text\n7;a, b\n", {"id": ["7"], "text": ["a, b"]}),
        ('text\tlabel\n"Fine" he said\tx\n', {"text": ['"Fine" he said'], "label": ["x"]}),
        (",review\n0,a joy\n", {"unnamed_0": ["0"], "review": ["a joy"]}),
        ('"text", "label"\n"a, b", "x"\n', {"text": ["a, b"], "label": ["x"]}),
        ("id, text\n7, a joy\n", {"id": ["7"], "text": [" a joy"]}),
        (
            "Clothing ID,Review Text,Title\n1,a joy,x\n",
            {"Clothing ID": ["1"], "Review Text": ["a joy"], "Title": ["x"]},
        ),
        ("premise,hypothesis\na,b\n", {"premise": ["a"], "hypothesis": ["b"]}),
        ("Nice phone, review, later\n", {"text": ["Nice phone, review, later"]}),
        ("Nice phone, review, later\nGood, bad, ugly\n", {"text": ["Nice phone, review, later", "Good, bad, ugly"]}),
        ("Nice phone,review\nall of it\n", {"text": ["Nice phone,review", "all of it"]}),
        ("Great, review\nall of it\n", {"text": ["Great, review", "all of it"]}),
        ("The question; well\n", {"text": ["The question; well"]}),
        ("Is it a review?,no\n", {"text": ["Is it a review?,no"]}),
        ("words,label\na,b\n", {"text": ["words,label", "a,b"]}),
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
        ("text,label\na,b\nc\n", "stdin, line 3: expected 2 cells as in the header, came 1"),
        ("text,label\na,b,c\n", "stdin, line 2: expected 2 cells as in the header, came 3"),
        ("text;label\na;b;c\n", "stdin, line 2: expected 2 cells as in the header, came 3"),
        ('text\n"open\n', "quote"),
        ("text,text\na,b\n", "different column names"),
        ('{"text": "a"}\n{"text": \n', "line 2"),
        ('{"text": "a"}\n[1]\n', "line 2: expected one JSON object, came a list"),
    ],
)
def test_stdin_that_breaks_its_promise_is_refused(text, message):
    with pytest.raises(DataError, match=message):
        read(text)


def test_a_column_that_is_named_makes_a_header():
    table = read_stdin(io.StringIO("words,label\na,b\n"), columns=("words", None))
    assert table.to_dict() == {"words": ["a"], "label": ["b"]}
    assert read_stdin(io.StringIO("words,label\n"), columns=("other",)).to_dict() == {"text": ["words,label"]}


def test_stdin_of_another_encoding_is_refused():
    stream = io.TextIOWrapper(io.BytesIO("naïve".encode("latin-1")), encoding="utf-8")
    with pytest.raises(DataError, match="utf-8"):
        read_stdin(stream)


@pytest.fixture
def table():
    return Dataset.from_dict({"text": ["a, b", 'say "ü"'], "predicted": [["x"], []], "n": [1, 2]})


@pytest.mark.parametrize("suffix", WRITTEN_SUFFIXES)
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


EXACT = {
    "text": ["a", "b", "c"],
    "big": [2**60 + 1, None, -(2**63)],
    "real": [0.1 + 0.2, None, 1e-300],
    "ids": [[1, 2**60 + 1], [], None],
    "flag": [True, None, False],
    "object": [{"x": 1, "y": None}, {"x": 2, "y": "z"}, None],
}


@pytest.mark.parametrize("suffix", WRITTEN_SUFFIXES)
def test_no_value_is_rounded_on_its_way_out(suffix, tmp_path):
    out = tmp_path / f"out{suffix}"
    table = Dataset.from_dict(EXACT)
    write_table(table, out, io.StringIO())
    if suffix == ".parquet":
        assert pq.read_table(out).to_pydict() == EXACT
    elif suffix == ".jsonl":
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        assert {name: [row[name] for row in rows] for name in EXACT} == EXACT
    else:
        with out.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ","))
        assert [row["big"] for row in rows] == ["1152921504606846977", "", "-9223372036854775808"]
        assert [float(row["real"] or "0") for row in rows] == [0.1 + 0.2, 0.0, 1e-300]
        assert [row["ids"] for row in rows] == ["[1,1152921504606846977]", "[]", ""]
        assert [row["flag"] for row in rows] == ["True", "", "False"]
        assert json.loads(rows[0]["object"]) == EXACT["object"][0]
    assert len(rows if suffix != ".parquet" else EXACT["text"]) == 3


def test_numbers_that_are_none_dates_and_single_precision_are_written(tmp_path):
    table = Dataset(
        pa.table(
            {
                "n": pa.array([float("nan"), float("inf")]),
                "single": pa.array([0.1, None], pa.float32()),
                "day": pa.array([datetime.date(2020, 1, 2), None]),
            }
        )
    )
    write_table(table, tmp_path / "o.jsonl", io.StringIO())
    assert (tmp_path / "o.jsonl").read_text() == (
        '{"n":null,"single":0.1,"day":"2020-01-02"}\n{"n":null,"single":null,"day":null}\n'
    )
    stream = io.StringIO()
    write_table(table, None, stream)
    assert stream.getvalue() == "n,single,day\n,0.1,2020-01-02\ninf,,\n"


def test_what_is_written_reads_back_as_it_was(tmp_path):
    texts = ["two\nlines", 'say "hi"', '"open', "a;b, c", "", " spaced ", "1\t2", "a\rb", "-5", "+.5e-3"]
    table = Dataset.from_dict({"text": texts, "note": texts[::-1]})
    for suffix in WRITTEN_SUFFIXES:
        write_table(table, tmp_path / f"o{suffix}", io.StringIO())
        assert read_table(tmp_path / f"o{suffix}").to_dict() == table.to_dict(), suffix
    write_table(table.select([2, 0]), tmp_path / "chosen.csv", io.StringIO())
    assert read_table(tmp_path / "chosen.csv")["text"][:] == ['"open', "two\nlines"]


def test_a_text_that_a_spreadsheet_would_run_is_disarmed_where_spreadsheets_read(tmp_path):
    armed = ["=1+1", "+cmd|'/c calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1", "\uff1d1+1"]
    table = Dataset.from_dict({"=head": armed, "n": range(len(armed))})
    for suffix in WRITTEN_SUFFIXES:
        write_table(table, tmp_path / f"o{suffix}", io.StringIO())
        found = read_table(tmp_path / f"o{suffix}")
        mark = "'" if suffix in (".csv", ".tsv") else ""
        assert found.column_names == [f"{mark}=head", "n"], suffix
        assert found[f"{mark}=head"][:] == [mark + text for text in armed], suffix


def test_class_names_survive_in_parquet(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["b", "a"])})
    table = Dataset.from_dict({"text": ["x", "y"], "label": [0, 1]}, features=features).add_column("more", [1, 2])
    write_table(table, tmp_path / "o.parquet", io.StringIO())
    assert read_table(tmp_path / "o.parquet").features["label"].names == ["b", "a"]


@pytest.mark.parametrize("suffix", WRITTEN_SUFFIXES)
def test_a_full_disk_leaves_the_earlier_file_and_nothing_else(suffix, table, tmp_path, monkeypatch):
    out = tmp_path / f"out{suffix}"
    out.write_text("earlier")
    original = Path.replace

    def fail(self, target):
        assert self.stat().st_size
        original(self, self.with_name("half.writing")).unlink()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(StorageError, match="No space left"):
        write_table(table, out, io.StringIO())
    assert out.read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


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
    with pytest.raises(DataError, match=r"test\.csv, test\.jsonl.*name the file itself"):
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


def test_stdin_follows_a_directive_a_named_delimiter_and_what_its_rows_show():
    findings = Findings()
    assert read_stdin(io.StringIO("sep=|\nv|w\na,b|c\n"), findings=findings).to_dict() == {"v": ["a,b"], "w": ["c"]}
    assert findings.delimiters == {"stdin": "|"}
    assert read_stdin(io.StringIO("v^w\na^b\n"), delimiter="^").to_dict() == {"v": ["a"], "w": ["b"]}
    findings = Findings()
    text = "Text, full;Label\na, b;x\nText, full;Label\nc, d;y\n"
    assert read_stdin(io.StringIO(text), findings=findings).to_dict() == {
        "Text, full": ["a, b", "c, d"],
        "Label": ["x", "y"],
    }
    assert findings.dropped == {"repeated_header": 1}


def test_a_stream_of_json_lines_is_read_as_a_file_of_them():
    table = read_stdin(io.StringIO('{"text": "a", "n": 1}\n{"text": "b", "n": "x"}\n'))
    assert table.to_dict() == {"text": ["a", "b"], "n": ["1", "x"]}
    table = read_stdin(io.StringIO('{"text": "a"}\n{"text": 3}\n'))
    with pytest.raises(
        DataError, match="stdin, line 2: expected one type of value in 'text', came a number after text"
    ):
        prepare_inference_table(table, is_pair=False, where="stdin")


def test_a_split_is_read_by_the_options_that_are_given(tmp_path):
    (tmp_path / "test.csv.gz").write_bytes(gzip.compress("text|label\ncafé|x\ntext|label\n".encode("latin-1")))
    with pytest.raises(DataError, match=r"test\.csv\.gz, line 2: expected text in utf-8"):
        read_split(str(tmp_path), "test")
    findings = Findings()
    rows, where = read_split(str(tmp_path), "test", encoding="latin-1", delimiter="|", findings=findings)
    assert rows.to_dict() == {"text": ["café"], "label": ["x"]}
    assert where == f"{tmp_path}/test.csv.gz"
    assert findings.dropped == {"repeated_header": 1}
    with pytest.warns(TransferWarning, match="repeats the header"):
        read_split(str(tmp_path), "test", encoding="latin-1")
    for settings, expected in (
        ({"delimiter": "||"}, r"data\.delimiter: expected one"),
        ({"path": ""}, "an empty name"),
    ):
        with pytest.raises(DataError, match=expected):
            read_split(**{"path": str(tmp_path), "split": "test", **settings})


@pytest.mark.parametrize("name", ["o.csv.gz", "o.xlsx", "o.jsonl.zst", "o.txt"])
def test_what_is_read_but_not_written_is_refused_with_what_is(name, tmp_path):
    with pytest.raises(OutputError, match=r"expected a file ending in \.csv, \.tsv, \.jsonl or \.parquet"):
        check_output(tmp_path / name, "-", overwrite=False)
