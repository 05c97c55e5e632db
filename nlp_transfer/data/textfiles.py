"""Files of text: their encoding, and JSON lines as Arrow batches, with the line named where a file is broken.

The standard library's parser is used, not Arrow's: it knows the line it is on and reads no dates or numbers into a
column of texts.
"""

import codecs
import json
from collections.abc import Iterable, Iterator, Sequence
from numbers import Number
from pathlib import Path
from typing import Any

import pyarrow as pa

from nlp_transfer.data.arrow_types import LARGE_NUMBERS, make_text_column
from nlp_transfer.errors import DataError

__all__ = ["BATCH_ROWS", "check_encoding", "find_mixed_value", "name_rows", "parse_json_lines", "read_json_lines"]

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
            f"{path}: expected text in {encoding}, came something else ({error}). Try data.encoding={guess}."
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
        Batches, as `parse_json_lines` makes them.

    Raises:
        DataError: A line is no JSON object; names the line.
    """
    codec = check_encoding(path, encoding)
    with path.open(encoding=codec) as file:
        yield from parse_json_lines(enumerate(file, 1), where=str(path))


def parse_json_lines(lines: Iterable[tuple[int, str]], *, where: str) -> Iterator[pa.RecordBatch]:
    """Parse one JSON object a line; blank lines are skipped.

    ``NaN``, which JSON does not have and pandas and Python write all the same, is a missing value as ``null`` is. A key
    with values of several types becomes text: that is an error only for whoever reads it.

    Args:
        lines: Number and text of every line.
        where: The file, for messages.

    Yields:
        Batches; a key that a line lacks is null there.

    Raises:
        DataError: A line is no JSON object; names the line.
    """
    kinds: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    empty = True
    for number, line in lines:
        if not line or line.isspace():
            continue
        rows.append(_parse_object(where, number, line))
        numbers.append(number)
        if len(rows) == BATCH_ROWS:
            yield _make_json_batch(where, rows, numbers, kinds)
            rows, numbers, empty = [], [], False
    if rows:
        yield _make_json_batch(where, rows, numbers, kinds)
    elif empty:
        raise DataError(f"{where}: expected one JSON object a line, came an empty file. Fill it, or name another file.")


def _parse_constant(name: str) -> float | None:
    """What JSON has no word for: NaN is a missing value, infinity a number."""
    return None if name == "NaN" else float(name)


DECODER = json.JSONDecoder(parse_constant=_parse_constant)
"""Made once: `json.loads` would make one for every line."""


def _parse_object(path: str, number: int, line: str) -> dict[str, Any]:
    """Read one line."""
    where = f"{path}, line {number}"
    try:
        row = DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: expected one JSON object, came text that is no JSON ({error.msg}, column {error.colno}). "
            "Write every row as one object on one line."
        ) from None
    except RecursionError:
        raise DataError(f"{where}: expected one JSON object, came values nested too deep. Flatten it.") from None
    except ValueError:
        raise DataError(
            f"{where}: expected one JSON object, came a number of more than 4,300 digits. Write it as text."
        ) from None
    if not isinstance(row, dict):
        raise DataError(
            f"{where}: expected one JSON object, came {_name_kind(row)}. "
            'Write every row as {"text": ..., "label": ...} on its own line.'
        )
    return row


def _make_json_batch(where: str, rows: list[dict[str, Any]], lines: list[int], kinds: dict[str, str]) -> pa.RecordBatch:
    """Turn objects into a batch; ``kinds`` remembers what each key held in earlier batches."""
    # A key with half of a surrogate pair is the name of no column, so nobody can ask for it.
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if _is_encodable(name)]
    fields, columns = [], []
    for name in names:
        values = [row.get(name) for row in rows]
        field, column = _make_json_column(name, values, where, lines, kinds.get(name))
        kind = next((_name_kind(value) for value in values if value is not None), "")
        if kind:
            kinds.setdefault(name, kind)
        fields.append(field)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _make_json_column(
    name: str, values: list[Any], where: str, lines: list[int], kind: str | None
) -> tuple[pa.Field, pa.Array]:
    """One column of a batch; as text that says what is wrong with it where its values are of several types."""
    try:
        column = pa.array(values)
        place = find_mixed_value(values, kind, only_first=True) if kind else None
        if place is None:
            return pa.field(name, column.type), column
        came = place[1]
    except (pa.ArrowException, OverflowError, UnicodeError, ValueError, TypeError) as error:
        place = find_mixed_value(values, kind)
        came = place[1] if place else str(error).splitlines()[0].rstrip(".")
        if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
            return make_text_column(name, values, kind=LARGE_NUMBERS, problem=None)
    line = f"line {lines[place[0]]}" if place else f"lines {lines[0]} to {lines[-1]}"
    problem = f"{where}, {line}: expected one type of value in {name!r}, came {came}. Write all its values alike."
    return make_text_column(name, values, kind="mixed values", problem=problem)


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


def name_rows(where: str, rows: Sequence[int], *, most: int = 5) -> str:
    """Name some rows for a message: by their line where a file of JSON lines holds them, else by their number.

    Args:
        where: The table, as messages name it.
        rows: Row indices from 0, ascending, at least one.
        most: How many are named.

    Returns:
        ``row 3``, ``rows 1, 2``, or ``line 4``.

    Example:
        >>> name_rows("frame", [0, 6])
        'rows 1, 7'
    """
    shown = [int(row) for row in rows[:most]]
    lines = _find_lines(Path(where), shown)
    what, numbers = ("row", [row + 1 for row in shown]) if lines is None else ("line", lines)
    more = ", ..." if len(rows) > most else ""
    return f"{what}{'s' if len(rows) > 1 else ''} {', '.join(map(str, numbers))}{more}"


def _find_lines(path: Path, rows: Sequence[int]) -> list[int] | None:
    """The lines that hold some rows of a file of JSON lines; None where that is none, or cannot be told."""
    if path.suffix.lower() not in (".jsonl", ".ndjson", ".json"):
        return None
    wanted = max(rows)
    lines: list[int] = []
    try:
        with path.open(encoding="utf-8", errors="strict") as file:
            for number, line in enumerate(file, 1):
                if len(lines) > wanted:
                    break
                if not line.isspace():
                    lines.append(number)
    except (OSError, UnicodeError):  # No file of that name, or one in another encoding.
        return None
    return [lines[row] for row in rows] if len(lines) > wanted else None
