"""A sheet of an Excel workbook as an Arrow table."""

import datetime
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import pyarrow as pa

from nlp_transfer.data.delimited import check_columns
from nlp_transfer.data.findings import Findings
from nlp_transfer.data.textfiles import get_size_limit
from nlp_transfer.errors import DataError, MissingExtraError

__all__ = ["read_workbook"]

MIDNIGHT = datetime.time()

LARGEST_WHOLE = 2**63
"""Beyond it a number is no int64; Excel itself keeps fifteen digits."""


def read_workbook(path: Path, *, sheet: str | None = None, findings: Findings) -> pa.Table:
    """Read one sheet, whose first row that is not empty is the header.

    Excel types cells, not columns. A column of numbers becomes whole numbers where all of them are whole, real ones
    otherwise; one of truth values, dates, or dates with a time likewise. A column of texts, or of several types, is
    read as text, dates in the way of ISO. An empty cell is null. Rows without any value are left out, as a csv's empty
    lines are.

    Args:
        path: An xlsx or xlsm file.
        sheet: Its name; the first sheet that is shown where absent.
        findings: Gets which sheet was read where there are several, and the count of repeated headers.

    Returns:
        The table.

    Raises:
        DataError: The file is broken, or has no such sheet, no rows or one name twice.
        MissingExtraError: openpyxl is not installed.
    """
    try:
        import openpyxl
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError:
        raise MissingExtraError("openpyxl", extra="excel", purpose=f"{path}: reading Excel workbooks") from None
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            # It warns of what has no place in a table: printing, charts, conditional formats.
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
            try:
                chosen = _choose_sheet(path, book, sheet, findings)
                rows = list(_list_rows(chosen))
            finally:
                book.close()
    except (zipfile.BadZipFile, InvalidFileException, KeyError, ValueError, TypeError, EOFError, ParseError) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise DataError(
            f"{path}: expected a whole Excel workbook, came a broken one: {reason}. Open it in a spreadsheet program, "
            "and save it again."
        ) from None
    return _build_table(f"{path}, sheet {chosen.title}", rows, findings)


def _check_archive(path: Path) -> None:
    """Refuse what is no workbook, or a bomb."""
    with path.open("rb") as file:
        head = file.read(4)
    if head == b"\xd0\xcf\x11\xe0":
        raise DataError(
            f"{path}: expected an Excel workbook that can be read, came one with a password, or an old .xls. Save it "
            "as .xlsx without a password, or as .csv."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile:
        raise DataError(
            f"{path}: expected a whole Excel workbook, came a cut one or another file. Save it again, or give it the "
            "ending of its format."
        ) from None
    if size > get_size_limit(path):
        raise DataError(
            f"{path}: expected a workbook in proportion to its file, came one that grows to {size >> 20} MB. Save it "
            "as .csv where you trust it."
        )


def _choose_sheet(path: Path, book: Any, wanted: str | None, findings: Findings) -> Any:
    """The sheet that is named, or the first one that is shown."""
    sheets = {sheet.title: sheet for sheet in book.worksheets}
    names = ", ".join(sheets)
    if wanted is not None:
        if wanted not in sheets:
            raise DataError(f"data.sheet: expected a sheet of {path}, came {wanted!r}; there are: {names}. Name one.")
        return sheets[wanted]
    if not sheets:
        raise DataError(f"{path}: expected a sheet with cells, came none. Add one.")
    shown = [sheet for sheet in sheets.values() if sheet.sheet_state == "visible"] or list(sheets.values())
    if len(sheets) > 1:
        findings.notes.append(
            f"{path}: the sheet {shown[0].title!r} was read, of {names}. Name another with data.sheet."
        )
    return shown[0]


def _list_rows(sheet: Any) -> Iterator[list[Any]]:
    """The rows that hold something; each ends with its last cell that does."""
    # Some programs write a size that is not that of the sheet.
    sheet.reset_dimensions()
    for row in sheet.iter_rows(values_only=True):
        cells = [None if isinstance(cell, str) and not cell.strip() else cell for cell in row]
        while cells and cells[-1] is None:
            cells.pop()
        if cells:
            yield cells


def _build_table(where: str, rows: list[list[Any]], findings: Findings) -> pa.Table:
    """Make columns of rows, the first of which is the header."""
    if not rows:
        raise DataError(f"{where}: expected a header and rows, came an empty sheet. Fill it, or name another.")
    width = max(len(row) for row in rows)
    header, *rest = [row + [None] * (width - len(row)) for row in rows]
    names = [(_spell_cell(cell) or "").strip() or f"unnamed_{index}" for index, cell in enumerate(header)]
    check_columns(names, where=where)
    kept = [row for row in rest if row != header]
    if not kept:
        raise DataError(f"{where}: expected rows below the header, came the header only. Add rows.")
    if len(kept) < len(rest):
        count = len(rest) - len(kept)
        came = "1 row repeats the header and was" if count == 1 else f"{count} rows repeat the header and were"
        findings.drop("repeated_header", count, f"{where}: {came} left out (row {rest.index(header) + 1}).")
    columns = [_make_column(cells) for cells in zip(*kept, strict=True)]
    return pa.table(columns, names=names)


def _make_column(cells: Sequence[Any]) -> pa.Array:
    """A column of the type that all its cells have, or of text."""
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds == {bool}:
        return pa.array(cells, pa.bool_())
    if kinds and kinds <= {int, float}:
        is_whole = all(cell is None or (float(cell).is_integer() and abs(cell) < LARGEST_WHOLE) for cell in cells)
        kind = pa.int64() if is_whole else pa.float64()
        return pa.array([cell if cell is None else int(cell) if is_whole else float(cell) for cell in cells], kind)
    if kinds and kinds <= {datetime.datetime, datetime.date}:
        if all(cell is None or _is_day(cell) for cell in cells):
            return pa.array([cell and datetime.date(cell.year, cell.month, cell.day) for cell in cells], pa.date32())
        return pa.array(cells, pa.timestamp("us"))
    return pa.array([_spell_cell(cell) for cell in cells], pa.string())


def _is_day(cell: datetime.date) -> bool:
    """Whether a date has no time, or midnight."""
    return not isinstance(cell, datetime.datetime) or cell.time() == MIDNIGHT


def _spell_cell(cell: Any) -> str | None:
    """A cell as text, as csv files have it."""
    if isinstance(cell, datetime.datetime) and _is_day(cell):
        cell = cell.date()
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < LARGEST_WHOLE:
        cell = int(cell)
    return None if cell is None else str(cell)
