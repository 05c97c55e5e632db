"""Files of text: their encoding, and JSON lines as Arrow batches, with the line named where a file is broken.

The standard library's parser is used, not Arrow's: it knows the line it is on and reads no dates or numbers into a
column of texts.
"""

import codecs
import json
from collections.abc import Iterator
from numbers import Number
from pathlib import Path
from typing import Any

import pyarrow as pa

from nlp_transfer.errors import DataError, name_cause

__all__ = ["BATCH_ROWS", "check_encoding", "find_mixed_value", "read_json_lines"]

BATCH_ROWS = 20_000
"""Rows a batch holds; chosen: large enough to be fast, small enough for long texts."""

CHUNK_BYTES = 1 << 20
LEAST_NUMBER = -(2**63) + 1
"""Whole numbers below it, or above its opposite, do not fit a column."""


def check_encoding(path: Path, encoding: str) -> str:
    """Make sure that a file is text in an encoding, from its first byte to its last.

    Args:
        path: The file.
        encoding: What ``data.encoding`` says.

    Returns:
        The codec to open the file with; for UTF-8 one that skips a byte order mark.

    Raises:
        DataError: The encoding is unknown, or the file holds other bytes or null bytes; names line and byte.
    """
    try:
        name = codecs.lookup(encoding).name
        "".encode(encoding)
    except (LookupError, ValueError):  # ValueError: the name holds a null character.
        raise DataError(
            f"data.encoding: expected the name of a text encoding, came {encoding!r}. "
            "Use utf-8, utf-16, cp1252 or latin-1, for instance."
        ) from None
    codec = "utf-8-sig" if name == "utf-8" else encoding
    decoder = codecs.getincrementaldecoder(codec)()
    line, offset = 1, 0
    with path.open("rb") as file:
        while True:
            chunk = file.read(CHUNK_BYTES)
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, not chunk)
            except UnicodeError as error:
                raise _explain_encoding(path, encoding, error, line=line, offset=offset - pending) from None
            null = text.find("\0")
            if null >= 0:
                raise DataError(
                    f"{path}, line {line + text.count(chr(10), 0, null)}: expected text, came a null byte. "
                    "Remove it, or say data.encoding=utf-16 if that is what the file is."
                )
            line += text.count("\n")
            offset += len(chunk)
            if not chunk:
                return codec


def _explain_encoding(path: Path, encoding: str, error: UnicodeError, *, line: int, offset: int) -> DataError:
    """Say where the bytes stop being text, and which encoding they may be in."""
    with path.open("rb") as file:
        mark = file.read(2)
    guess = "utf-16" if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "cp1252"
    guess = "utf-8" if encoding.lower().replace("_", "-").startswith("utf-16") else guess
    if not isinstance(error, UnicodeDecodeError):
        return DataError(
            f"{path}: expected text in {encoding}, came something else ({name_cause(error)}). "
            f"Try data.encoding={guess}."
        )
    line += error.object[: error.start].count(b"\n")
    byte = error.object[error.start]
    return DataError(
        f"{path}, line {line}: expected text in {encoding}, came the byte 0x{byte:02x} at offset "
        f"{offset + error.start}. Save the file as {encoding}, or try data.encoding={guess}."
    )


def read_json_lines(path: Path, *, encoding: str = "utf-8") -> Iterator[pa.RecordBatch]:
    """Read a file that holds one JSON object a line; blank lines are skipped.

    Args:
        path: The file.
        encoding: Its character encoding.

    Yields:
        Batches; a key that a line lacks is null there.

    Raises:
        DataError: A line is no JSON object, or a key holds values of several types; names the line.
    """
    codec = check_encoding(path, encoding)
    kinds: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    empty = True
    with path.open(encoding=codec) as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            rows.append(_parse_object(path, number, line))
            lines.append(number)
            if len(rows) == BATCH_ROWS:
                yield _make_json_batch(path, rows, lines, kinds)
                rows, lines, empty = [], [], False
    if rows:
        yield _make_json_batch(path, rows, lines, kinds)
    elif empty:
        raise DataError(f"{path}: expected one JSON object a line, came an empty file. Fill it, or name another file.")


def _parse_object(path: Path, number: int, line: str) -> dict[str, Any]:
    """Read one line."""
    where = f"{path}, line {number}"
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: expected one JSON object, came text that is no JSON ({error.msg}, column {error.colno}). "
            "Write every row as one object on one line."
        ) from None
    except RecursionError:
        raise DataError(f"{where}: expected one JSON object, came values nested too deep. Flatten it.") from None
    if not isinstance(row, dict):
        raise DataError(
            f"{where}: expected one JSON object, came {_name_kind(row)}. "
            'Write every row as {"text": ..., "label": ...} on its own line.'
        )
    return row


def _make_json_batch(path: Path, rows: list[dict[str, Any]], lines: list[int], kinds: dict[str, str]) -> pa.RecordBatch:
    """Turn objects into a batch; ``kinds`` remembers what each key held in earlier batches."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    columns = []
    for name in names:
        if not _is_encodable(name):
            line = next(line for line, row in zip(lines, rows, strict=True) if name in row)
            raise DataError(
                f"{path}, line {line}: expected keys of text, came half a surrogate pair: {name!r}. Rename it."
            )
        values = [row.get(name) for row in rows]
        kind = kinds.get(name)
        try:
            column = pa.array(values)
        except (pa.ArrowException, OverflowError, UnicodeError, ValueError) as error:
            place = find_mixed_value(values, kind)
            where = f"{path}, line {lines[place[0]]}" if place else f"{path}, lines {lines[0]} to {lines[-1]}"
            came = place[1] if place else str(error)
            raise DataError(
                f"{where}: expected one type of value in {name!r}, came {came}. Write all its values alike."
            ) from None
        place = find_mixed_value(values, kind, only_first=True)
        if place and kind:
            raise DataError(
                f"{path}, line {lines[place[0]]}: expected one type of value in {name!r}, came {place[1]}. "
                "Write all its values alike."
            )
        kinds.setdefault(name, next((_name_kind(value) for value in values if value is not None), ""))
        if not kinds[name]:
            del kinds[name]
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=names)


def find_mixed_value(values: Any, kind: str | None = None, *, only_first: bool = False) -> tuple[int, str] | None:
    """Find the first value of another type than those before it.

    Args:
        values: Python values; None is of every type.
        kind: The type that is expected; that of the first value where absent.
        only_first: Look at the first value that is not None, and no further.

    Returns:
        Its index and what came, in words; None where all are alike.

    Example:
        >>> find_mixed_value(["fine", None, 3])
        (2, 'a number after text')
    """
    for index, value in enumerate(values):
        if value is None or (isinstance(value, float) and value != value):
            continue
        came = _name_kind(value)
        if isinstance(value, str) and not _is_encodable(value):
            return index, "text with half a surrogate pair"
        if isinstance(value, int) and not LEAST_NUMBER <= value <= -LEAST_NUMBER:
            return index, "a number of more than 64 bits"
        if kind and came != kind:
            return index, f"{came} after {kind}"
        if only_first:
            return None
        kind = came
    return None


def _name_kind(value: object) -> str:
    """The type of a value in the user's words."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, Number):
        return "a number"
    names = {str: "text", list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _is_encodable(value: str) -> bool:
    """Whether a text can be written as UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
