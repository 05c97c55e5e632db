import bz2
import gzip
import lzma

import pyarrow as pa
import pytest

from nlp_transfer.data.textfiles import MixedColumns, open_text_file, parse_json_lines, spell_value
from nlp_transfer.errors import DataError
from nlp_transfer.recipe.formats import COMPRESSIONS


def read_json_lines(path, **settings):
    return parse_json_lines(open_text_file(path, encoding="utf-8"), **settings)


def rows_of(batches):
    return pa.Table.from_batches(list(batches)).to_pylist()


BROKEN_JSON = {
    "empty": (b"\n\n", "empty file"),
    "no json": (b'{"text": "a"}\n\n{"text": \n', "line 3: expected one JSON object, came text that is no JSON"),
    "a list": (b'["a", "b"]\n', "line 1: expected one JSON object, came a list"),
    "text": (b'{"text": "a"}\n"b"\n', "line 2: expected one JSON object, came text"),
    "a number of 5000 digits": (
        b'{"n": ' + b"1" * 5000 + b"}\n",
        "line 1: expected one JSON object, came a number too",
    ),
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
    with pytest.raises(MixedColumns, match="line 5: expected one type of value in 'text', came a number after text"):
        list(read_json_lines(tmp_path / "a.jsonl"))
    reasons = {"text": "as found"}
    assert [row["text"] for row in rows_of(read_json_lines(tmp_path / "a.jsonl", mixed=reasons))] == [
        *("a", "b", None, None, "3")
    ]


def test_nan_is_nothing_infinity_a_number_and_half_a_character_in_a_key_is_written_by_its_number(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"n": NaN, "\\ud800": 1}\n{"n": -Infinity, "o": {"k": NaN}}\n')
    assert rows_of(read_json_lines(tmp_path / "a.jsonl")) == [
        {"n": None, "\\ud800": 1, "o": None},
        {"n": float("-inf"), "\\ud800": None, "o": {"k": None}},
    ]


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
        open_text_file(tmp_path / "a.csv", encoding=encoding)


LINES = b'{"text": "a"}\n{"text": "caf\xc3\xa9"}\n'


def compress(content, ending):
    if ending == ".zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(content)
        return sink.getvalue().to_pybytes()
    return {".gz": gzip, ".bz2": bz2, ".xz": lzma}[ending].compress(content)


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_a_compressed_file_is_read_as_the_one_it_was(tmp_path, ending):
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(compress(LINES, ending))
    assert [row["text"] for row in rows_of(read_json_lines(path))] == ["a", "café"]
    path.write_bytes(compress(LINES, ending) * 2)
    assert len(rows_of(read_json_lines(path))) == 4, "archives may be joined as files are"


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_a_damaged_or_cut_archive_is_named(tmp_path, ending):
    path = tmp_path / f"a.jsonl{ending}"
    whole = compress(LINES * 500, ending)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    # Arrow's writer of Zstandard adds no checksum, so that nobody could tell a letter that was changed.
    damaged = [] if ending == ".zst" else [bytes(flipped)]
    for content in (whole[: len(whole) // 2], whole[:7], LINES, *damaged):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"a\.jsonl\{ending}: expected a whole .*compress it again") as caught:
            read_json_lines(path)
        assert ".." not in str(caught.value)


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_a_mistake_inside_of_an_archive_has_its_line(tmp_path, ending):
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(compress(b'{"text": "a"}\n{"text": "\xe9"}\n', ending))
    with pytest.raises(DataError, match="line 2: expected text in utf-8, came the byte 0xe9"):
        read_json_lines(path)


def test_a_few_bytes_that_unpack_to_very_many_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("nlp_transfer.data.textfiles.SMALLEST_BOMB_BYTES", 1 << 20)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text\n" + b"a" * (4 << 20)))
    with pytest.raises(DataError, match=r"a\.csv\.gz: expected a text in proportion to its file"):
        open_text_file(tmp_path / "a.csv.gz", encoding="utf-8")


def test_a_byte_order_mark_between_joined_files_of_json_lines_belongs_to_no_line(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + LINES + b"\xef\xbb\xbf" + LINES)
    assert [row["text"] for row in rows_of(read_json_lines(tmp_path / "a.jsonl"))] == ["a", "café"] * 2


def test_values_of_several_types_are_spelled_as_text():
    values = ["as it is", 3, 2.5, True, None, float("nan"), ["a", 1], {"k": None}, 10**5000, "\ud800"]
    expected = ["as it is", "3", "2.5", "true", None, None, '["a", 1]', '{"k": null}']
    assert [spell_value(value) for value in values[:8]] == expected
    assert spell_value("\ud800") == "?"
