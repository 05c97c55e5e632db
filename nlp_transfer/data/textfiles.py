"""Files of text: how they are packed and encoded, and JSON lines as Arrow batches, with the line of a mistake named.

The standard library's parser is used, not Arrow's: it knows the line it is on and reads no dates or numbers into a
column of texts.
"""

import bz2
import codecs
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import pyarrow as pa

from nlp_transfer.errors import DataError, name_cause
from nlp_transfer.recipe.formats import COMPRESSIONS, split_table_name

__all__ = [
    "BATCH_ROWS",
    "MARK",
    "STDIN",
    "MixedColumns",
    "TextSource",
    "find_mixed_value",
    "get_size_limit",
    "name_rows",
    "open_text_file",
    "parse_json_lines",
    "spell_value",
]

BATCH_ROWS = 20_000
"""Rows a batch holds; chosen: large enough to be fast, small enough for long texts."""

CHUNK_BYTES = 1 << 20
LEAST_NUMBER = -(2**63) + 1
"""Whole numbers below it, or above its opposite, do not fit a column."""

STDIN = "stdin"
"""How messages name what was piped in."""

MARK = "\ufeff"
"""The byte order mark; in the middle of a text it is left from files that were joined."""

MOST_GROWTH = 200
"""A table may grow to this many times its file; texts compress to a tenth, at most to a fiftieth. Chosen."""

SMALLEST_BOMB_BYTES = 1 << 30
"""Up to this size a table may grow in any case; chosen."""

DAMAGE = (EOFError, zlib.error, lzma.LZMAError, OSError)
"""What the readers of compressed files raise where one is damaged; an `OSError` of the machine has a number."""


@dataclass(frozen=True)
class TextSource:
    """Text that can be read from its start as often as needed.

    Attributes:
        where: The text, for messages.
        open: Opens it, line breaks as they are.
        has_marks: Whether byte order marks stand inside of it.
    """

    where: str
    open: Callable[[], TextIO]
    has_marks: bool = False

    @classmethod
    def from_text(cls, text: str, *, where: str) -> "TextSource":
        """Wrap a text that is in memory; a byte order mark at its start is left out."""
        text = text.removeprefix(MARK)
        return cls(where, lambda: io.StringIO(text, newline=""), MARK in text)


class MixedColumns(Exception):  # noqa: N818 - what reads the file starts again, and nobody else sees it
    """Columns that hold values of several types.

    Args:
        reasons: Column to the sentence that says where and what.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        super().__init__("; ".join(reasons.values()))


def get_size_limit(path: Path) -> int:
    """Bytes that a file may grow to while it is read; beyond that it is a bomb, not a table."""
    return max(SMALLEST_BOMB_BYTES, MOST_GROWTH * path.stat().st_size)


def open_text_file(path: Path, *, encoding: str) -> TextSource:
    """Make sure that a file is text in an encoding, from its first byte to its last, and whole where it is compressed.

    Args:
        path: The file; how it is compressed is told by its ending, such as ``.csv.gz``.
        encoding: What ``data.encoding`` says.

    Returns:
        What opens it as text; in UTF-8 a byte order mark at its start is left out.

    Raises:
        DataError: The encoding is unknown, the file is damaged, or it holds other bytes or null bytes; names line and
            byte.
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
    compression = split_table_name(path).compression
    has_marks = _check_bytes(path, encoding, codec, compression)

    def open_text() -> TextIO:
        if not compression:
            return path.open(encoding=codec, newline="")
        return io.TextIOWrapper(_open_bytes(path, compression), encoding=codec, newline="")

    return TextSource(str(path), open_text, has_marks)


def _open_bytes(path: Path, compression: str) -> BinaryIO:
    """Open a file as it was before it was compressed."""
    if compression == ".gz":
        return cast("BinaryIO", gzip.open(path, "rb"))
    if compression == ".bz2":
        return cast("BinaryIO", bz2.open(path, "rb"))
    if compression == ".xz":
        return cast("BinaryIO", lzma.open(path, "rb"))
    if compression == ".zst":
        # The standard library learns it in Python 3.14 only.
        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    return path.open("rb")


def _check_bytes(path: Path, encoding: str, codec: str, compression: str) -> bool:
    """Read all of a file; says whether there are byte order marks inside of it."""
    decoder = codecs.getincrementaldecoder(codec)()
    line, offset, has_marks = 1, 0, False
    limit = get_size_limit(path) if compression else None
    with _open_bytes(path, compression) as file:
        while True:
            chunk = _read_chunk(file, path, compression)
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
            has_marks = has_marks or MARK in text
            line += text.count("\n")
            offset += len(chunk)
            if limit is not None and offset > limit:
                raise DataError(
                    f"{path}: expected a text in proportion to its file, came one that grows to more than "
                    f"{limit >> 20} MB when it is unpacked. Unpack it yourself where you trust it."
                )
            if not chunk:
                return has_marks


def _read_chunk(file: BinaryIO, path: Path, compression: str) -> bytes:
    """Some bytes more; damage of a compressed file is the file's, not the disk's."""
    if not compression:
        return file.read(CHUNK_BYTES)
    try:
        return file.read(CHUNK_BYTES)
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(
            f"{path}: expected a whole file of {COMPRESSIONS[compression]}, came a damaged one or another: "
            f"{str(error).rstrip('.')}. Download or compress it again; if it is not compressed, take {compression} "
            "off its name."
        ) from None


def _explain_encoding(path: Path, encoding: str, error: UnicodeError, *, line: int, offset: int) -> DataError:
    """Say where the bytes stop being text, and which encoding they may be in."""
    with _open_bytes(path, split_table_name(path).compression) as file:
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


def parse_json_lines(source: TextSource, *, mixed: Mapping[str, str] | None = None) -> Iterator[pa.RecordBatch]:
    """Parse text that holds one JSON object a line; blank lines are skipped.

    ``NaN``, which JSON does not have and pandas and Python write all the same, is a missing value as ``null`` is.

    Args:
        source: The text.
        mixed: Columns that are known to hold values of several types; they become text.

    Yields:
        Batches; a key that a line lacks is null there.

    Raises:
        DataError: A line is no JSON object; names the line.
        MixedColumns: Further columns hold values of several types.
    """
    kinds: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    empty = True
    with source.open() as file:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(MARK).strip()
            if not text:
                continue
            rows.append(_parse_object(source.where, number, text))
            lines.append(number)
            if len(rows) == BATCH_ROWS:
                yield _make_json_batch(source.where, rows, lines, kinds, mixed or {})
                rows, lines, empty = [], [], False
    if rows:
        yield _make_json_batch(source.where, rows, lines, kinds, mixed or {})
    elif empty:
        raise DataError(
            f"{source.where}: expected one JSON object a line, came an empty file. Fill it, or name another file."
        )


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
    except ValueError:
        raise DataError(f"{where}: expected one JSON object, came a number too long to read. Shorten it.") from None
    except RecursionError:
        raise DataError(f"{where}: expected one JSON object, came values nested too deep. Flatten it.") from None
    if not isinstance(row, dict):
        raise DataError(
            f"{where}: expected one JSON object, came {_name_kind(row)}. "
            'Write every row as {"text": ..., "label": ...} on its own line.'
        )
    # Python would keep the last of two values without a word. More ends of keys than keys: one comes twice, or a text
    # or an object holds some.
    if line.count('":') > len(row):
        _refuse_repeated(where, line)
    return row


def _refuse_repeated(where: str, line: str) -> None:
    """Refuse an object in which a key comes twice."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            name = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{where}: expected every key once, came {name!r} twice. Keep one.")

    json.loads(line, object_pairs_hook=check)


def _make_json_batch(
    path: str, rows: list[dict[str, Any]], lines: list[int], kinds: dict[str, str], mixed: Mapping[str, str]
) -> pa.RecordBatch:
    """Turn objects into a batch; ``kinds`` remembers what each key held in earlier batches."""
    keys = {_write_key(key): key for row in rows for key in row}
    columns = []
    found: dict[str, str] = {}
    for name, key in keys.items():
        values = [row.get(key) for row in rows]
        if name in mixed:
            columns.append(pa.array([spell_value(value) for value in values], pa.string()))
            continue
        column, reason = _make_json_column(path, name, values, lines, kinds)
        columns.append(column)
        if reason is not None:
            found[name] = reason
    if found:
        raise MixedColumns(found)
    return pa.RecordBatch.from_arrays(columns, names=list(keys))


def _write_key(key: str) -> str:
    """A key as the name of a column: half of a surrogate pair, which no file can hold, by its number."""
    return key.encode(errors="backslashreplace").decode()


def _make_json_column(
    path: str, name: str, values: list[Any], lines: list[int], kinds: dict[str, str]
) -> tuple[pa.Array | None, str | None]:
    """A column of one type, or the reason why it is none; an empty one where it becomes text and is usable."""
    kind = kinds.get(name)
    expected = f"expected one type of value in {name!r}, came"
    try:
        column = pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeError, ValueError, TypeError) as error:
        if all(value is None or _name_kind(value) == "a number" for value in values) and kind in (None, "a number"):
            return None, ""  # Whole numbers of more than 64 bits, which are labels as well as any.
        place = find_mixed_value(values, kind)
        where = f"{path}, line {lines[place[0]]}" if place else f"{path}, lines {lines[0]} to {lines[-1]}"
        came = place[1] if place else str(error).rstrip(".")
        return None, f"{where}: {expected} {came}. Write all its values alike."
    place = find_mixed_value(values, kind, only_first=True)
    if place and kind:
        return None, f"{path}, line {lines[place[0]]}: {expected} {place[1]}. Write all its values alike."
    kind = next((_name_kind(value) for value in values if value is not None), "")
    if kind:
        kinds.setdefault(name, kind)
    return column, None


def spell_value(value: Any) -> str | None:
    """Write a value of any type as text: text as it is, all else as JSON, nothing as None.

    Example:
        >>> spell_value("fine"), spell_value(3), spell_value({"a": [True]}), spell_value(float("nan"))
        ('fine', '3', '{"a": [true]}', None)
    """
    if value is None or (isinstance(value, float) and value != value):
        return None
    text = str(value)
    if isinstance(value, bool | int | float | list | dict | tuple):
        with suppress(
            TypeError, ValueError, RecursionError
        ):  # As for keys that are no text, or a number of 5000 digits.
            text = json.dumps(value, ensure_ascii=False, default=str)
    return text if _is_encodable(text) else text.encode(errors="replace").decode()


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
