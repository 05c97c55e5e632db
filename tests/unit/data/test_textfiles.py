import pyarrow as pa
import pytest

from nlp_transfer.data.textfiles import check_encoding, read_json_lines
from nlp_transfer.errors import DataError


def rows_of(batches):
    return pa.Table.from_batches(list(batches)).to_pylist()


BROKEN_JSON = {
    "empty": (b"\n\n", "empty file"),
    "no json": (b'{"text": "a"}\n\n{"text": \n', "line 3: expected one JSON object, came text that is no JSON"),
    "a list": (b'["a", "b"]\n', "line 1: expected one JSON object, came a list"),
    "text": (b'{"text": "a"}\n"b"\n', "line 2: expected one JSON object, came text"),
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


def test_json_keys_may_be_absent_and_dates_stay_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "2020-01-01", "n": 1}\n\n{"label": "x", "text": "2021-01-01"}\n')
    assert rows_of(read_json_lines(tmp_path / "a.jsonl")) == [
        {"text": "2020-01-01", "n": 1, "label": None},
        {"text": "2021-01-01", "n": None, "label": "x"},
    ]


@pytest.mark.parametrize("encoding", ["utf-9", "hex"])
def test_an_unknown_encoding_is_refused(tmp_path, encoding):
    (tmp_path / "a.csv").write_text("text\na\n")
    with pytest.raises(DataError, match=r"data\.encoding: expected the name of a text encoding"):
        check_encoding(tmp_path / "a.csv", encoding)
