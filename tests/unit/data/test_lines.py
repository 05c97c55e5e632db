import pytest

from nlp_transfer.data.lines import parse_lines
from nlp_transfer.data.tables import read_table, read_text
from nlp_transfer.data.textfiles import TextSource
from nlp_transfer.errors import DataError


def read(text, **settings):
    return read_text(TextSource.from_text(text, where="t"), **settings).to_dict()


CONTENTS = {
    "one text a line": ("a room, clean\nanother; small\n", {"text": ["a room, clean", "another; small"]}),
    "a header of a usual text column": ("review,stars\na b,5\n", {"review": ["a b"], "stars": ["5"]}),
    "tabs, with a usual label column": ("v\tlabel\na b\tx\n", {"v": ["a b"], "label": ["x"]}),
    "commas, with a usual label column": ("v,label\na b,x\n", {"text": ["v,label", "a b,x"]}),
    "tabs in texts": ("first\tlabel\nno more\n", {"text": ["first\tlabel", "no more"]}),
    "a directive": ("sep=|\nv|w\na|b\n", {"v": ["a"], "w": ["b"]}),
    "json lines": ('\n{"text": "a"}\n{"text": "b"}\n', {"text": ["a", "b"]}),
    "a carriage return inside": ("a\rb\nc\r\n", {"text": ["a\rb", "c"]}),
    "a very long first line": ("text," + "x" * 200_000 + "\nb\n", {"text": ["text," + "x" * 200_000, "b"]}),
    "marks of joined files": ("\ufeffa\n\ufeffb\n", {"text": ["a", "b"]}),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_text_is_a_table_where_it_has_a_header_and_lines_otherwise(case, tmp_path):
    text, wanted = CONTENTS[case]
    assert read(text) == wanted
    (tmp_path / "a.txt").write_text(text, newline="", encoding="utf-8")
    assert read_table(tmp_path / "a.txt").to_dict() == wanted, "a .txt file is read as stdin is"


def test_a_named_column_or_delimiter_makes_a_table():
    assert read("v,w\na,b\n", columns=("w", None)) == {"v": ["a"], "w": ["b"]}
    assert read("v,w\na,b\n", delimiter=",") == {"v": ["a"], "w": ["b"]}
    assert read("v\\tw\na\\tb\n", delimiter="\\") == {"v": ["a"], "tw": ["tb"]}
    with pytest.raises(DataError, match=r"data\.delimiter: expected one character"):
        read("v,w\na,b\n", delimiter=",,")


def test_lines_come_in_batches_and_none_is_lost(monkeypatch):
    monkeypatch.setattr("nlp_transfer.data.lines.BATCH_ROWS", 2)
    source = TextSource.from_text("a\n\nb\n \nc\nd\ne", where="t")
    batches = [batch.to_pydict()["text"] for batch in parse_lines(source)]
    assert batches == [["a", "b"], ["c", "d"], ["e"]]
    with pytest.raises(DataError, match="t: expected texts, got nothing"):
        next(parse_lines(TextSource.from_text(" \n", where="t")))
