"""Text that is a table where it has a header, and one text a line otherwise: what comes from stdin, and .txt files."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import pyarrow as pa

from nlp_transfer.data.delimited import choose_delimiter, find_directive, fits_header, parse_delimited, read_head
from nlp_transfer.data.findings import Findings
from nlp_transfer.data.textfiles import BATCH_ROWS, MARK, STDIN, TextSource
from nlp_transfer.data.usual_names import PAIR_NAMES, TEXT_NAMES, USUAL_NAMES
from nlp_transfer.errors import DataError

__all__ = ["holds_json", "parse_lines"]

TEXT_COLUMNS = {"text", *TEXT_NAMES, *(name for pair in PAIR_NAMES for name in pair)}

COLUMN_NAME = re.compile(r"([\w.,:#()/%&+*@$-]+( [\w.,:#()/%&+*@$-]+){0,3})?")
"""A column's name, of four words at most; pandas leaves that of an index empty."""

MAX_NAME_LENGTH = 40
"""Characters of such a name; chosen."""

MAX_HEADER_LENGTH = 10_000
"""Characters of a line that may be a header; chosen, and less than a cell that the csv module refuses."""

ROWS_TO_FIT = 10
"""Rows below a line that may be a header or a text, which are to have as many cells; chosen."""


def holds_json(source: TextSource) -> bool:
    """Say whether a text begins as JSON lines do."""
    head = read_head(source)
    return bool(head) and next((line for line in head if line.strip()), "").lstrip().startswith("{")


def parse_lines(
    source: TextSource,
    *,
    columns: Iterable[str | None] = (),
    delimiter: str | None = None,
    findings: Findings | None = None,
) -> Iterator[pa.RecordBatch]:
    r"""Parse delimited text with a header that names a text column, or one text a line.

    Args:
        source: The text.
        columns: Further names that make a first line a header, where they are not None.
        delimiter: What stands between cells: with it the text is a table. Told from the rows where absent.
        findings: Gets what was decided and left out.

    Yields:
        Batches of the table, or of the column ``text``, lines of white space left out.

    Raises:
        DataError: There is no text, or a row is not what the header promised.

    Example:
        >>> source = TextSource.from_text("a joy to watch\n\na bore\n", where="stdin")
        >>> [batch.to_pydict() for batch in parse_lines(source)]
        [{'text': ['a joy to watch', 'a bore']}]
    """
    # Lines of white space are no texts, and no headers.
    lines = [line for line in read_head(source) if line.strip()]
    if not lines:
        way = "Pipe a file in, or name one." if source.where == STDIN else "Fill it, or name another file."
        raise DataError(f"{source.where}: expected texts, got nothing. {way}")
    is_table = delimiter is not None or find_directive(lines[0]) is not None
    if is_table or _starts_table(source, lines, {name.strip().lower() for name in columns if name}):
        yield from parse_delimited(source, delimiter=delimiter, findings=findings)
        return
    with source.open() as file:
        texts = (line.removeprefix(MARK).rstrip("\r\n") for line in _split_lines(file))
        filled = (text for text in texts if text.strip())
        while batch := list(islice(filled, BATCH_ROWS)):
            yield pa.RecordBatch.from_pydict({"text": pa.array(batch, pa.string())})


def _split_lines(file: Iterable[str]) -> Iterator[str]:
    r"""Lines as they end in \n; a carriage return alone belongs to its text."""
    held = ""
    for line in file:
        held += line
        if held.endswith("\n"):
            yield held
            held = ""
    if held:
        yield held


def _starts_table(source: TextSource, lines: Sequence[str], columns: set[str]) -> bool:
    """Whether a first line is the header of a table, not a text that happens to hold commas."""
    delimiter = choose_delimiter(lines)
    first = lines[0].rstrip("\r\n")
    if len(first) > MAX_HEADER_LENGTH:
        return False
    cells = next(csv.reader([first], delimiter=delimiter))
    names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter, skipinitialspace=True))]
    folded = {name.lower() for name in names}
    # Commas stand in texts; another character that cuts all rows alike, with a column of a usual name, makes a table.
    is_cut = delimiter != "," and bool(folded & USUAL_NAMES) and fits_header(source, delimiter, num_rows=ROWS_TO_FIT)
    if not is_cut and not folded & (TEXT_COLUMNS | columns):
        return False
    if not all(COLUMN_NAME.fullmatch(name) and len(name) <= MAX_NAME_LENGTH for name in names):
        return False
    has_spaces = any(cell != name for cell, name in zip(cells, names, strict=False))
    has_words = any(" " in name for name in names)
    if has_spaces and has_words:
        return False  # As in "Nice phone, review, later".
    return not (has_spaces or has_words) or fits_header(source, delimiter, num_rows=ROWS_TO_FIT)
