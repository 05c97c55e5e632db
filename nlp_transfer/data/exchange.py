"""Tables that come in and go out around a prediction: one split of a folder, stdin, and files written whole."""

import csv
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from nlp_transfer.data.findings import Findings
from nlp_transfer.data.sources import open_split
from nlp_transfer.data.tables import check_delimiter, get_arrow_table, read_text
from nlp_transfer.data.textfiles import STDIN, TextSource
from nlp_transfer.errors import DataError, OutputError, StorageError
from nlp_transfer.recipe.formats import WRITTEN_SUFFIXES
from nlp_transfer.recipe.schema import DataConfig

__all__ = ["FORMULA", "check_output", "read_split", "read_stdin", "write_table"]

FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""What a text begins with that a spreadsheet takes for a formula, the wide forms of the four signs included."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""A number is no formula, whatever its sign."""

BATCH_ROWS = 1000
"""Rows that are Python values at once; chosen."""

DOUBLE_BITS = 64


def check_output(out: Path | None, source: str, *, overwrite: bool) -> None:
    """Refuse an output that could not be written, before any work is done.

    Args:
        out: The file to write, or None for stdout.
        source: The input; never overwritten.
        overwrite: Whether a file of that name may be replaced.

    Raises:
        OutputError: The file exists, is a folder, has no known ending, or is the input.

    Example:
        >>> check_output(Path("new.xlsx"), "old.csv", overwrite=False)
        Traceback (most recent call last):
        nlp_transfer.errors.OutputError: --out: new.xlsx: expected a file ending in .csv, .tsv, .jsonl or .parquet.
    """
    if out is None:
        return
    if out.suffix.lower() not in WRITTEN_SUFFIXES:
        *most, last = WRITTEN_SUFFIXES
        raise OutputError(f"--out: {out}: expected a file ending in {', '.join(most)} or {last}.")
    if out.is_dir():
        raise OutputError(f"--out: {out}: is a folder. Name a file in it.")
    if out.exists() and source != "-" and Path(source).exists() and out.samefile(source):
        raise OutputError(f"--out: {out}: is the input itself. Name another file.")
    if out.exists() and not overwrite:
        raise OutputError(f"--out: {out}: exists already. Name another file, or add --overwrite.")
    if not out.parent.is_dir():
        raise OutputError(f"--out: {out}: there is no folder {out.parent}. Make it first.")


def read_stdin(
    stream: TextIO,
    *,
    columns: Sequence[str | None] = (),
    delimiter: str | None = None,
    findings: Findings | None = None,
) -> Dataset:
    r"""Read a table from a stream: jsonl, csv or tsv with a header that names a text column, or one text a line.

    Args:
        stream: Text.
        columns: Further names that make a first line a header, where they are not None: ``--text`` and ``--text-b``.
        delimiter: What stands between cells: with it the text is a table. Told from the rows where absent.
        findings: Gets what was decided and left out.

    Returns:
        A table; lines become its column ``text``.

    Raises:
        DataError: Nothing came, or a line is not what the first one promised.

    Example:
        >>> import io
        >>> read_stdin(io.StringIO("a joy to watch\na bore\n"))["text"][:]
        ['a joy to watch', 'a bore']
    """
    try:
        content = stream.read()
    except UnicodeDecodeError as error:
        raise DataError(f"stdin: is not {error.encoding} text. Convert it first.") from error
    return read_text(
        TextSource.from_text(content, where=STDIN), columns=columns, delimiter=delimiter, findings=findings
    )


def read_split(
    path: str,
    split: str,
    *,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    sheet: str | None = None,
    findings: Findings | None = None,
) -> tuple[Dataset, str]:
    """Read one labelled table to evaluate on.

    Args:
        path: A file, a folder of splits, a bundled name or a Hub id.
        split: Which split; a file is read whole.
        encoding: Character encoding of csv, tsv, txt and jsonl files.
        delimiter: What stands between cells of csv, tsv and txt files; told from their rows where absent.
        sheet: Sheet of an Excel workbook; the first where absent.
        findings: Gets what was decided and left out.

    Returns:
        The table and how messages name it.

    Raises:
        DataError: There is no such table.
    """
    if not path:
        raise DataError(
            "data.path: expected a file, a folder of splits, a bundled name or a Hub id, came an empty name."
        )
    data = DataConfig(path=path, encoding=encoding, sheet=sheet or None, delimiter=check_delimiter(delimiter))
    found = open_split(data, split)
    if findings is not None:
        findings.take(found.findings)
    else:
        found.findings.warn()
    return found.tables[split], found.where[split]


def write_table(table: Dataset, out: Path | None, stream: TextIO) -> None:
    """Write a table by its file ending, whole or not at all; csv to the stream where no file is named.

    Values stay as they are: no number is rounded, and a whole number beside missing ones stays whole. In csv and tsv,
    however, a text that a spreadsheet would run as a formula when it opens the file gets an apostrophe in front, names
    of columns likewise; jsonl and parquet keep every text to the letter.

    Args:
        table: What to write; lists and other nested values are written as JSON in csv cells, nothing as an empty one.
        out: csv, tsv, jsonl or parquet.
        stream: Where csv goes in place of a file.

    Raises:
        StorageError: The disk is full or failing.
    """
    if out is None:
        _write_delimited(table, stream, ",")
        return
    suffix = out.suffix.lower()
    aside = out.with_name(f".{out.name}.writing")
    try:
        if suffix == ".parquet":
            with aside.open("wb") as file:
                pq.write_table(_get_rows(table), file)
        else:
            with aside.open("w", encoding="utf-8", newline="") as text:
                if suffix == ".jsonl":
                    _write_json_lines(table, text)
                else:
                    _write_delimited(table, text, "\t" if suffix == ".tsv" else ",")
        aside.replace(out)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise StorageError(f"{out}: could not be written: {error}. Free space and try again.") from error


def _get_rows(table: Dataset) -> pa.Table:
    """All rows in their order, with what `datasets` knows of the columns."""
    rows = get_arrow_table(table)
    try:
        return rows.cast(table.features.arrow_schema)
    except pa.ArrowException:
        return rows


def _list_rows(table: Dataset) -> Iterator[dict[str, Any]]:
    """The rows as Python values."""
    rows = get_arrow_table(table)
    for index, field in enumerate(rows.schema):
        if pa.types.is_floating(field.type) and field.type.bit_width < DOUBLE_BITS:
            # By way of text: as a double, 0.1 in single precision would become 0.10000000149011612.
            column = rows.column(index).cast(pa.float32()).cast(pa.string()).cast(pa.float64())
            rows = rows.set_column(index, field.name, column)
    for batch in rows.to_batches(max_chunksize=BATCH_ROWS):
        yield from batch.to_pylist()


def _write_delimited(table: Dataset, file: TextIO, delimiter: str) -> None:
    """Write csv or tsv with quotes where they are needed."""
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    # The module leaves a carriage return without quotes where that does not end the lines it writes.
    quoting = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow([_disarm(name) for name in table.column_names])
    for row in _list_rows(table):
        cells = [_format_cell(value) for value in row.values()]
        chosen = quoting if any(isinstance(cell, str) and "\r" in cell for cell in cells) else writer
        chosen.writerow(cells)


def _format_cell(value: Any) -> Any:
    """A value as the csv module writes it."""
    if isinstance(value, list | dict):
        return _format_json(value)
    if isinstance(value, str):
        return _disarm(value)
    return "" if isinstance(value, float) and math.isnan(value) else value


def _disarm(text: str) -> str:
    """Keep a spreadsheet from running a text.

    Source:
        https://owasp.org/www-community/attacks/CSV_Injection; what is a plain number is left alone.
    """
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def _write_json_lines(table: Dataset, file: TextIO) -> None:
    """Write one object a line."""
    for row in _list_rows(table):
        file.write(_format_json(row) + "\n")


def _format_json(value: Any) -> str:
    """A value as compact JSON."""
    return json.dumps(_to_json(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _to_json(value: Any) -> Any:
    """A value in types that JSON has: null for a number that is none, text for a date."""
    if isinstance(value, dict):
        return {str(name): _to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
