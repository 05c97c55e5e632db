import csv
import io

import pyarrow as pa
import pytest

from nlp_transfer.data.delimited import parse_delimited
from nlp_transfer.data.textfiles import TextSource, open_text_file
from nlp_transfer.errors import DataError


def rows_of(batches):
    return pa.Table.from_batches(list(batches)).to_pylist()


def read_delimited(path, *, encoding="utf-8", usual=","):
    return parse_delimited(open_text_file(path, encoding=encoding), usual=usual)


def parse(text, usual=",", **settings):
    batches = parse_delimited(TextSource.from_text(text, where="t"), usual=usual, **settings)
    return [tuple(row.values()) for row in rows_of(batches)]


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


def test_csv_reads_what_the_standard_library_wrote(tmp_path):
    written = [["text", "label"], ["a, b", 'say ""'], ["x\ny", "'"], ["", "ü\u2028"], ["=1", "\t"]]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(written)
    assert [list(row.values()) for row in rows_of(read_delimited(tmp_path / "a.csv"))] == written[1:]


def test_a_tsv_without_quoting_keeps_its_quotes(tmp_path):
    (tmp_path / "a.tsv").write_text('text\tlabel\n"Fine" he said\tgood\n"never closed\tbad\n')
    rows = rows_of(read_delimited(tmp_path / "a.tsv", usual="\t"))
    assert [row["text"] for row in rows] == ['"Fine" he said', '"never closed']


def test_a_ragged_tsv_is_refused(tmp_path):
    (tmp_path / "a.tsv").write_text("text\tlabel\na\tb\tc\n")
    with pytest.raises(DataError, match="line 2: expected 2 cells"):
        list(read_delimited(tmp_path / "a.tsv", usual="\t"))


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


def test_quotes_of_a_tsv_that_mean_nothing_swallow_no_rows(tmp_path):
    rows = [(f"plain {n}", "good") for n in range(20)]
    for first, last in ((3, 6), (10, 13)):
        rows[first] = ('"Fine, he said', "good")
        rows[last] = ('never again"', "bad")
    text = "text\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in rows)
    quoted = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True))
    assert len(quoted) == 15, "well-formed with quotes too, but short of six rows"
    assert {len(row) for row in quoted} == {2}
    assert parse(text, "\t") == rows
    assert parse(text) == rows, "as a csv whose header has tabs"
    (tmp_path / "a.tsv").write_text(text)
    assert len(rows_of(read_delimited(tmp_path / "a.tsv", usual="\t"))) == 20


def test_quotes_of_a_tsv_that_mean_something_are_taken_off():
    rows = [("two\nlines", "good"), ('she said "no"', "bad"), ("a\ttab", "good"), ('"', '"')]
    stream = io.StringIO()
    csv.writer(stream, delimiter="\t").writerows([("text", "label"), *rows])
    assert parse(stream.getvalue(), "\t") == rows
    # A single column has as many cells a line either way: its quotes are believed.
    assert parse('text\n"two\nlines"\n', "\t") == [("two\nlines",)]


@pytest.mark.parametrize("header", ['"text", "label"', "text,label", "text, label"])
def test_a_space_between_comma_and_quote_is_no_part_of_the_cell(header):
    assert parse(f'{header}\n"a joy", "good"\n"b, c",   "very, good"\n') == [("a joy", "good"), ("b, c", "very, good")]
    assert parse(f'{header}\n"a", "two\nlines"\n') == [("a", "two\nlines")]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ('1, "Great" he said', ("1", ' "Great" he said')),
        ("1, plain", ("1", " plain")),
        ('1," ""quoted"" "', ("1", ' "quoted" ')),
        ('"a, ""b""", c', ('a, "b"', " c")),
        ('"a, ", c', ("a, ", " c")),
    ],
)
def test_other_spaces_stay(row, expected):
    assert parse(f"text,label\n{row}\n") == [expected]
