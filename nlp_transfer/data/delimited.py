"""Csv and tsv as Arrow batches, with the line named where the text is broken.

The standard library's parser is used, not Arrow's: it knows the line it is on, refuses an unterminated quote, and reads
no dates or numbers into a column of texts. A million short rows take about three seconds.
"""

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TextIO

import pyarrow as pa

from nlp_transfer.data.textfiles import BATCH_ROWS, CHUNK_BYTES, check_encoding
from nlp_transfer.errors import DataError, name_cause

__all__ = ["OpenText", "choose_delimiter", "fits_header", "parse_delimited", "read_delimited"]

FIELD_LIMIT = 2**31 - 1
"""Longest csv cell; the module's own limit of 128 KB refuses long documents."""

SPACED_QUOTE = re.compile(r"[ \t]+\"")
"""How a cell starts where a space stands between the comma and the quote."""

OpenText = Callable[[], TextIO]


@dataclass(frozen=True)
class Dialect:
    """How cells are written.

    Attributes:
        delimiter: What stands between them.
        is_quoted: Whether a quote at the start of a cell opens one that may hold delimiters and line breaks;
            otherwise it is a character like any other.
        skips_space: Whether space before a cell is left out, so that a quote may follow it.
    """

    delimiter: str
    is_quoted: bool = True
    skips_space: bool = False


def read_delimited(path: Path, *, encoding: str = "utf-8", delimiter: str = ",") -> Iterator[pa.RecordBatch]:
    """Read a csv or tsv file; every cell is text and an empty cell is the empty text.

    Args:
        path: A file with a header.
        encoding: Its character encoding.
        delimiter: What stands between cells, as `parse_delimited` takes it.

    Yields:
        Batches whose columns are all strings.

    Raises:
        DataError: Bytes, quotes or cells are not as they should be; names the line.
    """
    codec = check_encoding(path, encoding)
    yield from parse_delimited(lambda: path.open(encoding=codec, newline=""), where=str(path), delimiter=delimiter)


def parse_delimited(open_text: OpenText, *, where: str, delimiter: str = ",") -> Iterator[pa.RecordBatch]:
    """Parse csv or tsv text; every cell is text and an empty cell is the empty text.

    Tsv comes with and without quoting, and csv with a space between comma and quote. Such text is parsed both ways
    before any row is given out: see `_choose_tab_dialect` and `_choose_dialect`.

    Args:
        open_text: Gives the text from its start, line breaks as they are, each time it is called.
        where: The text, for messages.
        delimiter: What stands between cells. Where it is a comma and the header holds none but semicolons or tabs,
            those are taken.

    Yields:
        Batches whose columns are all strings.

    Raises:
        DataError: Quotes or cells are not as they should be; names the line.
    """
    with open_text() as file:
        first = next((line for line in file if line.strip("\r\n")), "")
    if not first:
        raise DataError(f"{where}: expected a header and rows, came an empty file. Fill it, or name another file.")
    delimiter = choose_delimiter(first, delimiter)
    choose = _choose_tab_dialect if delimiter == "\t" else _choose_dialect
    rows = _parse_rows(open_text, where, choose(open_text, where, Dialect(delimiter)))
    schema = pa.schema([(name, pa.string()) for name in _name_columns(where, next(rows))])
    empty = True
    while batch := list(islice(rows, BATCH_ROWS)):
        yield _make_batch(batch, schema)
        empty = False
    if empty:
        raise DataError(f"{where}: expected rows below the header, came the header only. Add rows.")


def choose_delimiter(header: str, delimiter: str = ",") -> str:
    r"""Take semicolons or tabs for delimiters where a header holds no comma but them.

    Example:
        >>> choose_delimiter("text,label"), choose_delimiter("text;label"), choose_delimiter("text\tlabel")
        (',', ';', '\t')
    """
    if delimiter != "," or "," in header:
        return delimiter
    return next((other for other in (";", "\t") if other in header), ",")


def fits_header(open_text: OpenText, delimiter: str, *, num_rows: int) -> bool:
    """Say whether the first rows, at least one, have as many cells as the header.

    Args:
        open_text: Gives the text from its start.
        delimiter: What stands between cells.
        num_rows: How many rows are looked at.
    """
    try:
        return len(list(islice(_parse_rows(open_text, "", Dialect(delimiter, skips_space=True)), num_rows + 1))) > 1
    except DataError:
        return False


def _choose_tab_dialect(open_text: OpenText, where: str, dialect: Dialect) -> Dialect:
    """Find out whether quotes in a tsv mean anything.

    They do where the text is well-formed with them, unless it also is without and then has more rows: a cell that
    starts with a quote, and a later one that ends with one, would swallow the rows between them.
    """
    if not _holds_quote(open_text):
        return dialect
    plain = replace(dialect, is_quoted=False)
    try:
        num_quoted = _count_rows(open_text, where, dialect)
    except DataError as refused:
        try:
            _count_rows(open_text, where, plain)
        except DataError:
            raise refused from None
        return plain
    if len(next(_parse_rows(open_text, where, dialect))) == 1:
        return dialect  # Nothing tells a line break inside of a cell from one between two.
    try:
        return plain if _count_rows(open_text, where, plain) > num_quoted else dialect
    except DataError:
        return dialect


def _choose_dialect(open_text: OpenText, where: str, dialect: Dialect) -> Dialect:
    """Find out whether a space stands between delimiters and quotes, as in ``"a", "b"``.

    It does where header or first row have such a cell and all of the text is well-formed when space is left out.
    """
    with open_text() as file:
        head = list(islice((line for line in file if line.strip()), 2))
    # A quote inside of a quoted cell is doubled, so that a text with `, "` in it does not look like two cells.
    is_spaced = re.search(rf'{re.escape(dialect.delimiter)}[ \t]+"(?!")', "".join(head)) is not None
    if not is_spaced or not any(SPACED_QUOTE.match(cell) for cell in _split_lines(head, dialect)):
        return dialect
    spaced = replace(dialect, skips_space=True)
    try:
        num_spaced = _count_rows(open_text, where, spaced)
    except DataError:
        return dialect
    try:
        return spaced if _count_rows(open_text, where, dialect) == num_spaced else dialect
    except DataError:
        return spaced


def _split_lines(lines: list[str], dialect: Dialect) -> list[str]:
    """The cells of some lines, as far as they can be told."""
    limit = csv.field_size_limit(FIELD_LIMIT)
    try:
        return [cell for row in csv.reader(lines, delimiter=dialect.delimiter) for cell in row]
    finally:
        csv.field_size_limit(limit)


def _holds_quote(open_text: OpenText) -> bool:
    """Whether there is a quote anywhere."""
    with open_text() as file:
        while chunk := file.read(CHUNK_BYTES):
            if '"' in chunk:
                return True
    return False


def _count_rows(open_text: OpenText, where: str, dialect: Dialect) -> int:
    """Rows with the header, where all have its width."""
    return sum(1 for _ in _parse_rows(open_text, where, dialect))


def _parse_rows(open_text: OpenText, where: str, dialect: Dialect) -> Iterator[list[str]]:
    """Yield the header, then every row, all of one width."""
    limit = csv.field_size_limit(FIELD_LIMIT)
    try:
        with open_text() as file:
            reader = csv.reader(
                file,
                delimiter=dialect.delimiter,
                quoting=csv.QUOTE_MINIMAL if dialect.is_quoted else csv.QUOTE_NONE,
                strict=dialect.is_quoted,
                skipinitialspace=dialect.skips_space,
            )
            width, last = 0, 0
            try:
                for row in reader:
                    if len(row) != width and row:
                        if width:
                            raise DataError(
                                f"{where}, line {last + 1}: expected {width} cells as in the header, came {len(row)}. "
                                f"Put quotes around a cell that holds {dialect.delimiter!r} or a line break."
                            )
                        width = len(row)
                    last = reader.line_num
                    if row:
                        yield row
            except csv.Error as error:
                raise DataError(_explain_quote(where, last + 1, error)) from None
    finally:
        csv.field_size_limit(limit)


def _explain_quote(where: str, line: int, error: csv.Error) -> str:
    """Say what is wrong with the quotes of the row that starts at a line."""
    if "unexpected end" in str(error):
        return (
            f"{where}, line {line}: expected a closing quote, came the end of the file. "
            "Close the cell that opens there, or double a quote that belongs to its text."
        )
    return (
        f"{where}, line {line}: expected well-formed quotes, came: {name_cause(error)}. "
        'Write a quote inside a quoted cell twice (""), and nothing after a closing one.'
    )


def _name_columns(where: str, header: list[str]) -> list[str]:
    """Give nameless columns a name and refuse names that occur twice."""
    names = [name.strip() or f"unnamed_{index}" for index, name in enumerate(header)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"{where}, line 1: expected different column names, came twice: {', '.join(twice)}. Rename one."
        )
    return names


def _make_batch(rows: list[list[str]], schema: pa.Schema) -> pa.RecordBatch:
    """Turn rows of text into a batch."""
    columns = zip(*rows, strict=True)
    return pa.RecordBatch.from_arrays([pa.array(column, pa.string()) for column in columns], schema=schema)
