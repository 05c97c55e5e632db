import csv

import pyarrow as pa
import pytest

from nlp_transfer.data.textfiles import check_encoding, read_delimited, read_json_lines
from nlp_transfer.errors import DataError


def rows_of(batches):
    return pa.Table.from_batches(list(batches)).to_pylist()


BROKEN_CSV = {
    "empty": (b"", "empty file"),
    "header only": (b"text,label\n", "came the header only"),
    "ragged": (b"text,label\na,b\nc,d,e\n", "line 3: expected 2 cells as in the header, came 3"),
    "ragged after a quoted line break": (b'text,label\n"a\nb",c\nd\n', "line 4: expected 2 cells"),
    "short row": (b"text,label\na\n", "line 2: expected 2 cells as in the header, came 1"),
    "open quote": (b'text,label\na,b\n"c,d\ne,f\n', "line 3: expected a closing quote"),
    "stray quote": (b'text,label\n"a"b,c\n', "line 2: expected well-formed quotes"),
    "null byte": (b"text,label\na\0b,c\n", "line 2: expected text, came a null byte"),
    "wrong encoding": (b"text,label\ncaf\xe9,c\n", r"line 2: .* came the byte 0xe9 at offset 14.*=cp1252"),
    "utf-16": ("text,label\na,b\n".encode("utf-16"), r"line 1: .*data.encoding=utf-16"),
    "cut character": ("text\ncafé".encode()[:-1], "line 2: expected text in utf-8"),
    "same column twice": (b"text,text\na,b\n", "came twice: text"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_CSV)
def test_a_broken_csv_is_refused_with_its_line(tmp_path, case):
    content, expected = BROKEN_CSV[case]
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=expected) as caught:
        list(read_delimited(tmp_path / "a.csv"))
    assert str(tmp_path / "a.csv") in str(caught.value)


BROKEN_JSON = {
    "empty": (b"\n\n", "empty file"),
    "no json": (b'{"text": "a"}\n\n{"text": \n', "line 3: expected one JSON object, came text that is no JSON"),
    "a list": (b'["a", "b"]\n', "line 1: expected one JSON object, came a list"),
    "text": (b'{"text": "a"}\n"b"\n', "line 2: expected one JSON object, came text"),
    "mixed": (
        b'{"text": "a"}\n{"text": 3}\n',
        "line 2: expected one type of value in 'text', came a number after text",
    ),
    "half a pair": (b'{"text": "\\ud800"}\n', "line 1: expected one type of value in 'text', came text with half"),
    "nested too deep": (b'{"text": ' + b"[" * 200_000 + b"\n", "line 1: expected one JSON object, came values nested"),
    "null byte": (b'{"text": "a\0"}\n', "line 1: expected text, came a null byte"),
    "wrong encoding": (b'{"text": "\xe9"}\n', "line 1: expected text in utf-8"),
}


@pytest.mark.parametrize("case", BROKEN_JSON)
def test_a_broken_jsonl_is_refused_with_its_line(tmp_path, case):
    content, expected = BROKEN_JSON[case]
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=expected):
        list(read_json_lines(tmp_path / "a.jsonl"))


def test_mixed_types_are_found_across_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("nlp_transfer.data.textfiles.BATCH_ROWS", 2)
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n{"text": null}\n{"text": null}\n{"text": 3}\n')
    with pytest.raises(DataError, match="line 5: expected one type of value in 'text', came a number after text"):
        list(read_json_lines(tmp_path / "a.jsonl"))


def test_json_keys_may_be_absent_and_dates_stay_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "2020-01-01", "n": 1}\n\n{"label": "x", "text": "2021-01-01"}\n')
    assert rows_of(read_json_lines(tmp_path / "a.jsonl")) == [
        {"text": "2020-01-01", "n": 1, "label": None},
        {"text": "2021-01-01", "n": None, "label": "x"},
    ]


def test_csv_reads_what_the_standard_library_wrote(tmp_path):
    written = [["text", "label"], ["a, b", 'say ""'], ["x\ny", "'"], ["", "ü\u2028"], ["=1", "\t"]]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(written)
    assert [list(row.values()) for row in rows_of(read_delimited(tmp_path / "a.csv"))] == written[1:]


def test_a_tsv_without_quoting_keeps_its_quotes(tmp_path):
    (tmp_path / "a.tsv").write_text('text\tlabel\n"Fine" he said\tgood\n"never closed\tbad\n')
    rows = rows_of(read_delimited(tmp_path / "a.tsv", delimiter="\t"))
    assert [row["text"] for row in rows] == ['"Fine" he said', '"never closed']


def test_a_ragged_tsv_is_refused(tmp_path):
    (tmp_path / "a.tsv").write_text("text\tlabel\na\tb\tc\n")
    with pytest.raises(DataError, match="line 2: expected 2 cells"):
        list(read_delimited(tmp_path / "a.tsv", delimiter="\t"))


def test_semicolons_byte_order_mark_blank_lines_and_nameless_columns(tmp_path):
    (tmp_path / "a.csv").write_bytes("\ufeff;text;label\r\n0;a, b;x\r\n\r\n1;c;y\r\n".encode())
    assert rows_of(read_delimited(tmp_path / "a.csv")) == [
        {"unnamed_0": "0", "text": "a, b", "label": "x"},
        {"unnamed_0": "1", "text": "c", "label": "y"},
    ]


def test_other_encodings_are_read_when_named(tmp_path):
    for encoding in ("cp1252", "utf-16", "latin-1"):
        (tmp_path / "a.csv").write_bytes("text\ncafé\n".encode(encoding))
        assert rows_of(read_delimited(tmp_path / "a.csv", encoding=encoding)) == [{"text": "café"}]


def test_a_cell_of_ten_megabytes_is_read(tmp_path):
    limit = csv.field_size_limit()
    (tmp_path / "a.csv").write_text("text\n" + "x" * 10_000_000 + "\n")
    assert len(rows_of(read_delimited(tmp_path / "a.csv"))[0]["text"]) == 10_000_000
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("encoding", ["utf-9", "hex"])
def test_an_unknown_encoding_is_refused(tmp_path, encoding):
    (tmp_path / "a.csv").write_text("text\na\n")
    with pytest.raises(DataError, match=r"data\.encoding: expected the name of a text encoding"):
        check_encoding(tmp_path / "a.csv", encoding)
