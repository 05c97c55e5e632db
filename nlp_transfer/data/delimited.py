"""Csv and its kin as Arrow batches: which character stands between cells, and the line named where the text is broken.

The standard library's parser is used, not Arrow's: it knows the line it is on, refuses an unterminated quote, and reads
no dates or numbers into a column of texts. A million short rows take about three seconds.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pyarrow as pa

from nlp_transfer.data.findings import Findings
from nlp_transfer.data.textfiles import BATCH_ROWS, CHUNK_BYTES, MARK, STDIN, TextSource
from nlp_transfer.data.usual_names import USUAL_NAMES
from nlp_transfer.errors import DataError, name_cause
from nlp_transfer.recipe.formats import DELIMITED_KINDS, TABLE_KINDS, name_delimiter, split_table_name

__all__ = [
    "check_columns",
    "choose_delimiter",
    "find_directive",
    "fits_header",
    "offer_delimiter",
    "parse_delimited",
    "read_head",
]

SAMPLE_LINES = 1000
"""Lines from which the delimiter is told; chosen."""

SAMPLE_CHARACTERS = 1 << 20
"""Most characters of those lines, the one that reaches it included; chosen."""

PLAIN_DELIMITERS = (",", ";", "\t")
"""What separates cells wherever a header holds it and no rival, even where rows do not fit: those are then broken."""

DELIMITERS = ("\t", ";", ",", "|", "\x1f", "\x01", "^", "~", ":")
"""What may separate cells, the likelier first. All but the plain ones stand in texts too: rows have to fit."""

GOOD_FIT = 0.9
"""Share of rows with as many cells as the header, from which a delimiter fits: a few rows may be broken. Chosen."""

DIRECTIVE = re.compile(r'"?sep=(?P<delimiter>[^"\r\n])"?(?P=delimiter)*\s*', re.IGNORECASE)
"""A first line by which Excel is told the delimiter; where Excel wrote it back, empty cells may follow."""

QUOTED = re.compile(r'(?<!\w)"(?:[^"]|"")*("|$)')
"""A cell in quotes."""

FIELD_LIMIT = 2**31 - 1
"""Longest csv cell; the module's own limit of 128 KB refuses long documents."""

SPACED_QUOTE = re.compile(r"[ \t]+\"")
"""How a cell starts where a space stands between the comma and the quote."""


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


def parse_delimited(
    source: TextSource, *, delimiter: str | None = None, usual: str = ",", findings: Findings | None = None
) -> Iterator[pa.RecordBatch]:
    """Parse delimited text; every cell is text and an empty cell is the empty text.

    Tsv comes with and without quoting, and csv with a space between comma and quote. Such text is parsed both ways
    before any row is given out: see `_choose_tab_dialect` and `_choose_dialect`. A first line ``sep=;`` is skipped, and
    so is a header that comes again where files were joined; the latter is counted.

    Args:
        source: The text.
        delimiter: What stands between cells; told from the rows where absent, see `choose_delimiter`.
        usual: What the file's ending promises.
        findings: Gets the delimiter where it is another than usual, and the count of repeated headers.

    Yields:
        Batches whose columns are all strings.

    Raises:
        DataError: Quotes or cells are not as they should be; names the line.
    """
    findings = findings if findings is not None else Findings()
    where = source.where
    lines = read_head(source)
    if not lines:
        raise DataError(f"{where}: expected a header and rows, came an empty file. Fill it, or name another file.")
    directive = find_directive(lines[0])
    if delimiter is None:
        delimiter = directive or choose_delimiter(lines, usual)
        _refuse_doubled(lines[1:] if directive else lines, delimiter, where)
        if delimiter != usual:
            findings.delimiters[where] = delimiter
    text = _Text(source, lines[0].strip() if directive else "")
    choose = _choose_tab_dialect if delimiter == "\t" else _choose_dialect
    rows = _parse_rows(text, choose(text, Dialect(delimiter)))
    header = next(rows, None)
    if header is None:
        raise DataError(f"{where}: expected a header and rows, came the line {lines[0].strip()} only. Add rows.")
    schema = pa.schema([(name, pa.string()) for name in _name_columns(where, header)])
    yield from _yield_batches(rows, header, schema, where, findings)


def _yield_batches(
    rows: Iterator[list[str]], header: list[str], schema: pa.Schema, where: str, findings: Findings
) -> Iterator[pa.RecordBatch]:
    """Make batches of rows, without those that repeat the header."""
    num_rows = num_repeated = first = 0
    while batch := list(islice(rows, BATCH_ROWS)):
        kept = batch
        if header in batch:  # Asked first, because sorting rows out one by one is slower than asking.
            kept = [row for row in batch if row != header]
            first = first or num_rows + batch.index(header) + 1
            num_repeated += len(batch) - len(kept)
        num_rows += len(batch)
        if kept:
            yield _make_batch(kept, schema)
    if num_rows == num_repeated:
        raise DataError(f"{where}: expected rows below the header, came the header only. Add rows.")
    if num_repeated:
        came, were = ("row repeats", "was") if num_repeated == 1 else ("rows repeat", "were")
        findings.drop(
            "repeated_header",
            num_repeated,
            f"{where}: {num_repeated} {came} the header, as in files that were joined, and {were} left out (row {first}"
            f"{' first' if num_repeated > 1 else ''}).",
        )


def read_head(source: TextSource) -> list[str]:
    """The first lines that are not empty, without byte order marks; none of an empty text."""
    found: list[str] = []
    size = 0
    with source.open() as file:
        for line in file:
            text = line.removeprefix(MARK)
            if text.strip("\r\n"):
                found.append(text)
                size += len(text)
            if len(found) == SAMPLE_LINES or size >= SAMPLE_CHARACTERS:
                break
    return found


def find_directive(line: str) -> str | None:
    r"""The delimiter that a first line ``sep=;`` names, or None where it is no such line.

    Example:
        >>> find_directive("sep=;\n"), find_directive("text;label\n")
        (';', None)
    """
    found = DIRECTIVE.fullmatch(line.rstrip("\r\n"))
    return found["delimiter"] if found else None


def choose_delimiter(lines: Sequence[str], usual: str = ",") -> str:
    r"""Tell which character stands between cells, from a header and the rows below it.

    A character that the header does not hold outside of quotes separates nothing. Of several, that one is taken by
    which the rows have as many cells as the header. Where that is true of more than one: one that is not followed by a
    space everywhere in the header, as a comma of a sentence is; then one that cuts columns of usual names out of the
    header; then one that cuts more of them; then the usual one.

    Args:
        lines: The first lines of a text, from the header.
        usual: What the file's ending promises.

    Returns:
        The delimiter; the usual one where there is but one column.

    Example:
        >>> choose_delimiter(["text,label", "a; b,x"]), choose_delimiter(["Comment, original;Label", "a, b;x"])
        (',', ';')
    """
    if lines and find_directive(lines[0]):
        lines = lines[1:]
    header = QUOTED.sub("", lines[0]) if lines else ""
    held = [delimiter for delimiter in (usual, *DELIMITERS) if delimiter in header]
    held = list(dict.fromkeys(held))
    if not held or held == [usual]:
        return usual
    if len(held) == 1 and held[0] in PLAIN_DELIMITERS:
        return held[0]
    fits = {delimiter: _measure_fit(lines, delimiter) for delimiter in held}
    able = [d for d in held if d in PLAIN_DELIMITERS or fits[d] >= GOOD_FIT]
    if not able:
        return usual

    def weigh(delimiter: str) -> tuple[float | bool, ...]:
        names = [name.strip(' "\r\n').lower() for name in lines[0].split(delimiter)]
        is_tight = re.search(rf"{re.escape(delimiter)}(?! )", header) is not None
        num_usual = sum(name in USUAL_NAMES for name in names)
        fit = 1.0 if fits[delimiter] >= GOOD_FIT else fits[delimiter]
        return fit, is_tight, num_usual, header.count(delimiter), delimiter == usual

    return max(able, key=weigh)


def _refuse_doubled(lines: Sequence[str], delimiter: str, where: str) -> None:
    """Refuse cells that two characters separate, such as ``::``: read as one, every other column would be empty."""
    pair = 2 * delimiter
    lines = [line for line in lines if line.strip()]
    if len(lines) > 1 and all(pair in line and delimiter not in line.replace(pair, "") for line in lines):
        raise DataError(
            f"{where}: expected one character between cells, came {pair!r} in every row. Replace it by one that the "
            f"texts do not hold, or say data.delimiter={delimiter!r} if every other column is empty."
        )


def _measure_fit(lines: Sequence[str], delimiter: str) -> float:
    """Share of the rows that have as many cells as the header, by the reading that fits best; 1 without rows."""
    plain = Dialect(delimiter)
    dialects = [plain, replace(plain, is_quoted=False) if delimiter == "\t" else replace(plain, skips_space=True)]
    return max(_measure_dialect(lines, dialect) for dialect in dialects)


def _measure_dialect(lines: Sequence[str], dialect: Dialect) -> float:
    """The same of one way to read them."""
    width = num_good = num_rows = last = 0
    with _allow_long_cells():
        reader = _make_reader(lines, dialect)
        try:
            for row in reader:
                last = reader.line_num
                if not width:
                    width = len(row)
                elif row:
                    num_rows += 1
                    num_good += len(row) == width
        except csv.Error:
            # The sample may end in the middle of a cell; what else cannot be parsed counts line by line.
            num_left = len(lines) - last
            num_rows += num_left if reader.line_num < len(lines) or num_left > len(lines) / 2 else 0
    if width < 2:
        return 0.0
    return num_good / num_rows if num_rows else 1.0


def offer_delimiter(where: str) -> str:
    """The sentence that ends a message about the columns of delimited text; empty for another format.

    Args:
        where: The table, as messages name it.

    Example:
        >>> offer_delimiter("a.csv.gz"), offer_delimiter("a.parquet")
        (' If its cells are separated by another character than it was read by, say so with data.delimiter.', '')
    """
    kind = TABLE_KINDS.get(split_table_name(where).suffix)
    if where != STDIN and kind not in DELIMITED_KINDS:
        return ""
    return " If its cells are separated by another character than it was read by, say so with data.delimiter."


def fits_header(source: TextSource, delimiter: str, *, num_rows: int) -> bool:
    """Say whether the first rows, at least one, have as many cells as the header.

    Args:
        source: The text.
        delimiter: What stands between cells.
        num_rows: How many rows are looked at.
    """
    text = _Text(source)
    try:
        return len(list(islice(_parse_rows(text, Dialect(delimiter, skips_space=True)), num_rows + 1))) > 1
    except DataError:
        return False


@dataclass(frozen=True)
class _Text:
    """Text to parse: without the marks inside of it and without its directive, both of which joined files repeat."""

    source: TextSource
    directive: str = ""

    def read_lines(self, file: Iterable[str]) -> Iterable[str]:
        """The lines of the open text; an empty one stands for a directive, so that lines keep their numbers."""
        if not self.source.has_marks and not self.directive:
            return file
        return self._clean(file)

    def _clean(self, file: Iterable[str]) -> Iterator[str]:
        """Take out what belongs to no cell."""
        for line in file:
            text = line.removeprefix(MARK)
            yield "\n" if self.directive and text.strip() == self.directive else text


@contextmanager
def _allow_long_cells() -> Iterator[None]:
    """Lift the csv module's limit on the length of a cell for a while."""
    limit = csv.field_size_limit(FIELD_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _make_reader(lines: Iterable[str], dialect: Dialect) -> Any:
    """The standard library's parser."""
    return csv.reader(
        lines,
        delimiter=dialect.delimiter,
        quoting=csv.QUOTE_MINIMAL if dialect.is_quoted else csv.QUOTE_NONE,
        strict=dialect.is_quoted,
        skipinitialspace=dialect.skips_space,
    )


def _choose_tab_dialect(text: _Text, dialect: Dialect) -> Dialect:
    """Find out whether quotes in a tsv mean anything.

    They do where the text is well-formed with them, unless it also is without and then has more rows: a cell that
    starts with a quote, and a later one that ends with one, would swallow the rows between them.
    """
    if not _holds_quote(text):
        return dialect
    plain = replace(dialect, is_quoted=False)
    try:
        num_quoted = _count_rows(text, dialect)
    except DataError as refused:
        try:
            _count_rows(text, plain)
        except DataError:
            raise refused from None
        return plain
    if len(next(_parse_rows(text, dialect), [""])) == 1:
        return dialect  # Nothing tells a line break inside of a cell from one between two.
    try:
        return plain if _count_rows(text, plain) > num_quoted else dialect
    except DataError:
        return dialect


def _choose_dialect(text: _Text, dialect: Dialect) -> Dialect:
    """Find out whether a space stands between delimiters and quotes, as in ``"a", "b"``.

    It does where header or first row have such a cell and all of the text is well-formed when space is left out.
    """
    if dialect.delimiter == " ":
        return dialect
    with text.source.open() as file:
        head = list(islice((line for line in text.read_lines(file) if line.strip()), 2))
    # A quote inside of a quoted cell is doubled, so that a text with `, "` in it does not look like two cells.
    is_spaced = re.search(rf'{re.escape(dialect.delimiter)}[ \t]+"(?!")', "".join(head)) is not None
    if not is_spaced or not any(SPACED_QUOTE.match(cell) for cell in _split_lines(head, dialect)):
        return dialect
    spaced = replace(dialect, skips_space=True)
    try:
        num_spaced = _count_rows(text, spaced)
    except DataError:
        return dialect
    try:
        return spaced if _count_rows(text, dialect) == num_spaced else dialect
    except DataError:
        return spaced


def _split_lines(lines: list[str], dialect: Dialect) -> list[str]:
    """The cells of some lines, as far as they can be told."""
    with _allow_long_cells():
        return [cell for row in csv.reader(lines, delimiter=dialect.delimiter) for cell in row]


def _holds_quote(text: _Text) -> bool:
    """Whether there is a quote anywhere."""
    with text.source.open() as file:
        while chunk := file.read(CHUNK_BYTES):
            if '"' in chunk:
                return True
    return False


def _count_rows(text: _Text, dialect: Dialect) -> int:
    """Rows with the header, where all have its width."""
    return sum(1 for _ in _parse_rows(text, dialect))


def _parse_rows(text: _Text, dialect: Dialect) -> Iterator[list[str]]:
    """Yield the header, then every row, all of one width."""
    where = text.source.where
    with _allow_long_cells(), text.source.open() as file:
        reader = _make_reader(text.read_lines(file), dialect)
        width, last = 0, 0
        try:
            for row in reader:
                if len(row) != width and row:
                    if width:
                        raise DataError(_explain_width(where, last + 1, width, len(row), dialect.delimiter))
                    width = len(row)
                last = reader.line_num
                if row:
                    yield row
        except csv.Error as error:
            raise DataError(_explain_quote(where, last + 1, error)) from None


def _explain_width(where: str, line: int, width: int, came: int, delimiter: str) -> str:
    """Say that a row has more or fewer cells than the header, and what may be wrong."""
    return (
        f"{where}, line {line}: expected {width} cell{'s' if width > 1 else ''} as in the header, came {came}. "
        f"Put quotes around a cell that holds {name_delimiter(delimiter)} or a line break."
        " If cells are separated by another character, say so with data.delimiter."
    )


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


def _name_columns(where: str, header: Sequence[str]) -> list[str]:
    """Give nameless columns a name and refuse names that occur twice."""
    names = [name.strip() or f"unnamed_{index}" for index, name in enumerate(header)]
    check_columns(names, where=f"{where}, line 1")
    return names


def check_columns(names: Sequence[str], *, where: str) -> None:
    """Refuse columns of one name.

    Args:
        names: What the columns are called.
        where: The table, for messages.

    Raises:
        DataError: Names those that occur twice.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{where}: expected different column names, came twice: {', '.join(twice)}. Rename one.")


def _make_batch(rows: list[list[str]], schema: pa.Schema) -> pa.RecordBatch:
    """Turn rows of text into a batch."""
    columns = zip(*rows, strict=True)
    return pa.RecordBatch.from_arrays([pa.array(column, pa.string()) for column in columns], schema=schema)
