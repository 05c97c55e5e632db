import csv
import io

import pyarrow as pa
import pytest
from datasets import Dataset

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.data.columns import prepare_inference_table
from nlp_transfer.data.delimited import choose_delimiter, parse_delimited
from nlp_transfer.data.findings import Findings
from nlp_transfer.data.labels.contract import map_labels
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


REVIEWS = [("a room, clean and bright", "good"), ("noisy, small; dear", "bad"), ("plain", "good")] * 4


def make_table(header, rows, delimiter):
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows([header, *rows])
    return stream.getvalue()


@pytest.mark.parametrize("delimiter", [*",;\t|^~:", "\x01", "\x1f"])
def test_a_delimiter_is_told_from_the_rows_and_said_once_unless_it_is_the_usual_one(delimiter):
    findings = Findings()
    assert parse(make_table(("text", "label"), REVIEWS, delimiter), findings=findings) == REVIEWS
    assert findings.delimiters == ({} if delimiter == "," else {"t": delimiter})
    assert len(findings.list_notes()) == len(findings.delimiters)


DELIMITERS_SOUGHT = {
    "a comma of a name in quotes": ('"Remark, full";Mood\n"a, b";x\n"c, d";y\n', ";"),
    "a comma of a name without quotes": ("Remark, full;Mood\na, b;x\nc, d;y\n", ";"),
    "a comma of a name and decimal commas": ("text;label;weight, kg\nab;x;1,5\ncd;y;2,5\n", ";"),
    "a comma of a name before a tab": ("text, full\tmood\na, b\tx\nc, d\ty\n", "\t"),
    "decimal commas, names that are not usual": ("satz;klasse;preis,eur\nab;x;1,5\ncd;y;2,5\n", ";"),
    "a semicolon of a name": ("text,place (x;y)\nab,1;2\ncd,3;4\n", ","),
    "a semicolon in some rows alone": ("text,tags;all\nab,1;2\ncd,3\nef,4\n", ","),
    "a bar of a name": ("text|full,label\nab,x\ncd,y\n", ","),
    "a colon of a name": ("Note: text\nab\ncd: ef: gh\n", ","),
    "a time in every row": ("start: time,text,label\n12:30,ab,x\n12:45,cd,y\n", ","),
    "one broken row": ("text;label, all\n" + "a, b;x\n" * 30 + "a;b;c\n", ";"),
    "one column": ("text\na, b; c\n", ","),
    "quotes that hold line breaks": ('text;label, all\n"a,\nb";x\n"c,\nd";y\n', ";"),
    "a quote inside of a name": ('5" screens;label, all\na, b;x\nc;y\n', ";"),
}


@pytest.mark.parametrize("case", DELIMITERS_SOUGHT)
def test_a_header_alone_does_not_decide_the_delimiter(case):
    text, wanted = DELIMITERS_SOUGHT[case]
    assert choose_delimiter(text.splitlines(keepends=True)) == wanted


def test_a_tsv_that_has_no_tabs_is_read_by_what_it_has():
    findings = Findings()
    assert parse("text,label\na b,x\n", usual="\t", findings=findings) == [("a b", "x")]
    assert findings.delimiters == {"t": ","}


def test_a_delimiter_that_is_named_is_taken_whatever_the_rows_say():
    findings = Findings()
    assert parse("text;a,label\nb;c,d\n", delimiter=";", findings=findings) == [("b", "c,d")]
    assert parse("text|label\nb|d\n", delimiter=",") == [("b|d",)]
    assert findings.list_notes() == []


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"', "sep=;;;", "\ufeffsep=;"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_directive_is_skipped_and_followed(first, end):
    findings = Findings()
    text = end.join([first, "text;label", "a, b;x", "c;y", ""])
    assert parse(text, findings=findings) == [("a, b", "x"), ("c", "y")]
    assert findings.delimiters == {"t": ";"}
    with pytest.raises(DataError, match="line 5: expected 2 cells"):
        parse(text + "d;e;f" + end)


def test_a_directive_of_a_tab_or_a_comma_is_followed_too():
    assert parse("sep=\t\ntext\tlabel\na\tx\n") == [("a", "x")]
    assert parse("sep=,\ntext,a;b\nc,d;e\n", usual="\t") == [("c", "d;e")]
    assert parse("sep=;\ntext,label\na,x\n", delimiter=",") == [("a", "x")], "what is named wins"
    with pytest.raises(DataError, match="came the line sep=; only"):
        parse("sep=;\n")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_header_of_joined_files_is_left_out_and_counted(mark):
    findings = Findings()
    parts = ['"text","label"\r\n"a, b",x\r\n', 'text,label\nc,y\n"text",z\n', "text,label\nd,x\n"]
    assert parse(mark.join(["", *parts]), findings=findings) == [("a, b", "x"), ("c", "y"), ("text", "z"), ("d", "x")]
    assert findings.dropped == {"repeated_header": 2}
    assert findings.warnings == [
        "t: 2 rows repeat the header, as in files that were joined, and were left out (row 2 first)."
    ]
    directed = "sep=;\ntext;label\na;x\n"
    assert parse(mark + directed + mark + directed) == [("a", "x"), ("a", "x")]


def test_the_header_of_joined_files_is_found_in_every_batch(monkeypatch):
    monkeypatch.setattr("nlp_transfer.data.delimited.BATCH_ROWS", 2)
    findings = Findings()
    rows = parse("text,label\na,x\nb,y\ntext,label\ntext,label\nc,x\n", findings=findings)
    assert rows == [("a", "x"), ("b", "y"), ("c", "x")]
    assert findings.dropped == {"repeated_header": 2}
    assert "row 3 first" in findings.warnings[0]
    with pytest.raises(DataError, match="header only"):
        parse("text,label\ntext,label\n")


def test_a_row_too_wide_offers_another_delimiter_but_a_quote_does_not():
    with pytest.raises(DataError, match=r"holds \";\" or a line break.*data\.delimiter"):
        parse("text;label\na;b;c\n")
    with pytest.raises(DataError, match=r"holds a tab or a line break"):
        parse("text\tlabel\na\tb\tc\n")


@pytest.mark.parametrize("where", ["d.csv", "set/train.tsv.gz", "set/train-*-of-00002.csv", "d.txt", "stdin"])
def test_messages_about_columns_of_delimited_text_offer_a_delimiter(where):
    table = Dataset.from_dict({"one;two;three": ["a;b;c"], "four": ["d"]})
    messages = []
    for settings in ({"text": None}, {"text": "words"}):
        with pytest.raises(DataError) as caught:
            prepare_inference_table(table, is_pair=False, where=where, **settings)
        messages.append(str(caught.value))
    with pytest.raises(DataError) as caught:
        map_labels(table, LabelSpace("classification", ("a", "b")), where=where)
    messages.append(str(caught.value))
    assert len([message for message in messages if "data.delimiter" in message]) == 3
    with pytest.raises(DataError) as caught:
        prepare_inference_table(table, is_pair=False, where="d.parquet")
    assert "data.delimiter" not in str(caught.value)
