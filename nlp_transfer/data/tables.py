"""One file or frame in, one `datasets.Dataset` out.

Small tables stay in memory; larger ones are written to the cache of `datasets` and memory-mapped from there, so that
a table may be larger than the memory.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features
from datasets.features.features import generate_from_arrow_type

from nlp_transfer.data.arrow_types import UNUSABLE, explain_column, hold_columns, join_orders
from nlp_transfer.data.delimited import check_columns, parse_delimited
from nlp_transfer.data.findings import Findings
from nlp_transfer.data.lines import holds_json, parse_lines
from nlp_transfer.data.textfiles import (
    MixedColumns,
    TextSource,
    find_mixed_value,
    get_size_limit,
    open_text_file,
    parse_json_lines,
    spell_value,
)
from nlp_transfer.data.workbooks import read_workbook
from nlp_transfer.errors import DataError, name_cause
from nlp_transfer.files import explain_reading, explain_writing, settle_modes
from nlp_transfer.recipe.formats import OTHER_WAYS, TABLE_SUFFIXES, TableName, read_delimiter, split_table_name

__all__ = [
    "check_delimiter",
    "explain_unusable",
    "get_arrow_table",
    "holds_table",
    "read_table",
    "read_tables",
    "read_text",
    "store_table",
]

CONTENTS = {
    b"\x1f\x8b": ("a gzip file", ".gz"),
    b"\x28\xb5\x2f\xfd": ("a Zstandard file", ".zst"),
    b"\xfd7zXZ\x00": ("an xz file", ".xz"),
    b"PK\x03\x04": ("an Excel workbook or another zip file", ""),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook, or one with a password", ""),
    b"ARROW1\0\0": ("an Arrow file", ""),
}
"""How files begin that are no text, whatever they are called, and the ending that is missing where one more will do."""

POINTER = b"version https://git-lfs.github.com/spec/"
"""How a file begins that Git LFS left in place of the real one."""

SPILL_BYTES = 16 << 20
"""A table larger than this is memory-mapped; chosen."""

LARGE_FILE_BYTES = 64 << 20
"""A file larger than this is no bomb that a few bytes make; chosen."""

BATCH_ROWS = 20_000
"""Rows of a batch while a table is copied; small, so that long texts stay below Arrow's 2 GB a chunk."""


def read_table(
    source: object,
    *,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    sheet: str | None = None,
    findings: Findings | None = None,
) -> Dataset:
    """Read one table from a file or from memory.

    In csv and tsv files every cell is text: ``NA``, ``None``, ``null`` and ``nan`` are those words, and an empty
    cell is the empty text.

    Args:
        source: Path of a file (`TABLE_SUFFIXES`; text formats also compressed, as ``.csv.gz``), or in memory a pandas
            or polars frame, an Arrow table, a dictionary of columns, a list of dictionaries, or a `datasets.Dataset`,
            which comes back as it is.
        encoding: Character encoding of a csv, tsv, txt or jsonl file.
        delimiter: What stands between cells of a csv, tsv or txt file; told from its rows where absent.
        sheet: Sheet of an Excel workbook; the first where absent.
        findings: Gets what was decided and left out. Without it, rows that are left out cause a `TransferWarning`.

    Returns:
        The table, rows and columns in their order, with at least one row.

    Raises:
        DataError: The source is missing, empty, unreadable or broken; names the line where there is one.
        MissingExtraError: A workbook is read without openpyxl.
        StorageError: The machine cannot read or write.

    Example:
        >>> read_table({"text": ["a joy"], "label": ["positive"]}).column_names
        ['text', 'label']
    """
    found = Findings()
    if isinstance(source, Dataset):
        table, name = source, "data"
    elif isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        reader = _FileReader(encoding, check_delimiter(delimiter), sheet, found)
        table, name = _wrap_table(reader.read(path), where=str(path)), str(path)
    else:
        table, name = _wrap_table(_convert_memory(source), where="data"), "data"
    if not table.num_rows or not table.column_names:
        raise DataError(f"{name}: expected a table with rows, came one without. Add rows, or name another table.")
    if findings is not None:
        findings.take(found)
    else:
        found.warn()
    return table


def read_tables(
    paths: Sequence[Path],
    *,
    where: str,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    sheet: str | None = None,
    findings: Findings,
) -> Dataset:
    """Read the shards of one table, below each other.

    Args:
        paths: Files of one format, in their order.
        where: All of them, for messages.
        encoding: As for `read_table`.
        delimiter: Likewise.
        sheet: Likewise.
        findings: Gets what was decided and left out.

    Returns:
        The table.

    Raises:
        DataError: A shard cannot be read, or has other columns than the first; names it.
        StorageError: The machine cannot read or write.
    """
    read = partial(read_table, encoding=encoding, delimiter=delimiter, sheet=sheet, findings=findings)
    tables = [read(path) for path in paths]
    if len(tables) == 1:
        return tables[0]
    first = tables[0]
    for path, table in zip(paths[1:], tables[1:], strict=True):
        if set(table.column_names) != set(first.column_names):
            raise DataError(
                f"{path}: expected the columns of {paths[0].name} ({', '.join(first.column_names)}), came: "
                f"{', '.join(table.column_names)}. Shards of one table have the same columns."
            )
        changed = [name for name in first.column_names if _differs(first.features[name], table.features[name])]
        if changed:
            raise DataError(
                f"{path}: expected in {changed[0]!r} the class names of {paths[0].name}, came others. "
                "Write the shards anew."
            )
    try:
        joined = _join([get_arrow_table(table).select(first.column_names) for table in tables])
    except MixedColumns as error:
        raise DataError(f"{where}: {error}") from None
    return _wrap_table(joined, where=where)


def _differs(first: Any, other: Any) -> bool:
    """Whether two columns declare different class names."""
    return getattr(first, "names", None) != getattr(other, "names", None)


def read_text(
    source: TextSource,
    *,
    columns: Iterable[str | None] = (),
    delimiter: str | None = None,
    findings: Findings | None = None,
) -> Dataset:
    """Read text of which only the beginning tells what it is: JSON lines, a table with a header, or one text a line.

    Args:
        source: The text.
        columns: Further names that make a first line a header, where they are not None.
        delimiter: What stands between cells: with it the text is a table.
        findings: Gets what was decided and left out.

    Returns:
        A table; lines become its column ``text``.

    Raises:
        DataError: Nothing came, or a line is not what the first one promised.
    """
    found = findings if findings is not None else Findings()
    return _wrap_table(_read_lines(source, columns, check_delimiter(delimiter), found), where=source.where)


def _read_lines(
    source: TextSource, columns: Iterable[str | None], delimiter: str | None, findings: Findings
) -> pa.Table:
    """The same as Arrow has it."""
    if delimiter is None and holds_json(source):
        return _read_json(source, findings)
    return _collect(parse_lines(source, columns=columns, delimiter=delimiter, findings=findings))


def check_delimiter(delimiter: str | None) -> str | None:
    """Read the character that stands between cells.

    Args:
        delimiter: As a person writes it, or None.

    Returns:
        The character, or None.

    Raises:
        DataError: It is none.
    """
    try:
        return None if delimiter is None else read_delimiter(delimiter)
    except ValueError as error:
        raise DataError(f"data.delimiter: {error}, came {delimiter!r}. Give one of these.") from None


class _FileReader:
    """Reads files by the end of their names.

    Args:
        encoding: Of text.
        delimiter: Of delimited text; None to tell it.
        sheet: Of workbooks; None for the first.
        findings: Gets what was decided and left out.
    """

    def __init__(self, encoding: str, delimiter: str | None, sheet: str | None, findings: Findings) -> None:
        self.encoding = encoding
        self.delimiter = delimiter
        self.sheet = sheet
        self.findings = findings

    def read(self, path: Path) -> pa.Table:
        """Read one file."""
        name = split_table_name(path)
        if path.is_dir():
            raise DataError(f"{path}: expected a file, came a folder. Name a file in it.")
        if name.kind is None:
            raise DataError(_explain_name(path, name))
        try:
            if not path.stat().st_size:
                raise DataError(f"{path}: expected rows, came an empty file. Fill it, or name another file.")
            _check_content(path, name)
            if name.kind == "parquet" or name.kind == "arrow":
                return _read_binary(path, name.suffix)
            if name.kind == "workbook":
                return _simplify_types(read_workbook(path, sheet=self.sheet, findings=self.findings))
            return self._read_text(open_text_file(path, encoding=self.encoding), name)
        except FileNotFoundError:
            raise DataError(f"{path}: expected a file, came nothing: no such file. Check the name.") from None
        except PermissionError:
            raise DataError(
                f"{path}: expected a readable file, came: permission denied. Change its permissions."
            ) from None
        except OSError as error:
            raise explain_reading(path, error, DataError, way_out="Check the path.") from error

    def _read_text(self, source: TextSource, name: TableName) -> pa.Table:
        """Read a file of text."""
        if name.kind == "json":
            return _read_json(source, self.findings)
        if name.kind == "lines":
            return _read_lines(source, (), self.delimiter, self.findings)
        usual = "\t" if name.suffix == ".tsv" else ","
        return _collect(parse_delimited(source, delimiter=self.delimiter, usual=usual, findings=self.findings))


def _explain_name(path: Path, name: TableName) -> str:
    """Say that a file's name does not end as that of a table that is read."""
    came = f"{name.suffix}{name.compression}" or "no ending"
    if name.compression and name.suffix in TABLE_SUFFIXES:
        return f"{path}: expected a format of text before {name.compression}, came {name.suffix}. Unpack the file."
    if name.compression and not name.suffix:
        hint = f"Say what is in it, as in {path.stem}.csv{name.compression}."
    else:
        hint = OTHER_WAYS.get(name.suffix, "Rename or convert the file.")
    return f"{path}: expected a name that ends in one of {', '.join(TABLE_SUFFIXES)}, came {came!r}. {hint}"


def _check_content(path: Path, name: TableName) -> None:
    """Refuse a file that begins as one of quite another format, where that format would tell a riddle."""
    with path.open("rb") as file:
        head = file.read(len(POINTER))
    if head == POINTER:
        raise DataError(
            f"{path}: expected the file itself, came a pointer that Git LFS left in its place. Run git lfs pull."
        )
    if name.kind in ("parquet", "arrow", "workbook") or name.compression:
        return
    for mark, (what, ending) in CONTENTS.items():
        if head.startswith(mark):
            way = f"Name it {path.name}{ending}." if ending else "Give it the ending of its format, or save it as text."
            raise DataError(f"{path}: expected text, as {name.suffix} says, came {what}. {way}")


def _read_json(source: TextSource, findings: Findings) -> pa.Table:
    """Read JSON lines; a column that holds values of several types is kept as text, and refused where it is used."""
    mixed: dict[str, str] = {}
    while True:
        try:
            table = _collect(parse_json_lines(source, mixed=mixed))
            break
        except MixedColumns as found:
            mixed |= found.reasons
    reasons = {
        name: reason if reason.startswith(source.where) else f"{source.where}: {reason}"
        for name, reason in mixed.items()
        if reason
    }
    for reason in reasons.values():
        findings.notes.append(f"A column is kept as text, since it is not of one type. {reason}")
    return _mark_unusable(table, reasons)


def _mark_unusable(table: pa.Table, reasons: Mapping[str, str]) -> pa.Table:
    """Write down with columns why they cannot be texts or labels."""
    if not reasons:
        return table
    fields = [
        field.with_metadata({UNUSABLE: reasons[field.name].encode(errors="replace")})
        if field.name in reasons
        else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))


def explain_unusable(table: Dataset, name: str) -> str | None:
    """Say why a column that was kept as text cannot be read as texts or labels.

    Args:
        table: A table as `read_table` gives it.
        name: One of its columns.

    Returns:
        The message, or None for a column like any other.
    """
    return explain_column(table.data.table.schema.field(name))


def _refuse_bomb(path: Path, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Hand batches on as long as what they hold is in proportion to the file, every repeated text counted in full."""
    limit = get_size_limit(path)
    size = 0
    for batch in batches:
        for column in batch.columns:
            size += column.nbytes
            if pa.types.is_dictionary(column.type) and pa.types.is_string(column.type.value_type):
                lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
                size += pc.sum(lengths, min_count=0).as_py()
        if size > limit:
            raise DataError(
                f"{path}: expected a table in proportion to its file, came one that grows to more than "
                f"{limit >> 20} MB when it is read. Take it from where you trust it, as csv or jsonl."
            )
        yield batch


def _open_parquet(path: Path) -> pq.ParquetFile:
    """Open a file; of a small one repeated texts stay single, since a few bytes may stand for any number of them."""
    file = pq.ParquetFile(path)
    if path.stat().st_size > LARGE_FILE_BYTES:
        return file
    texts = [field.name for field in file.schema_arrow if pa.types.is_string(field.type)]
    file.close()
    return pq.ParquetFile(path, read_dictionary=texts)


def _read_binary(path: Path, suffix: str) -> pa.Table:
    """Read a columnar file."""
    kind = "Parquet" if suffix == ".parquet" else "Arrow"
    with path.open("rb"):
        pass  # Arrow would name no reason where reading is not permitted.
    try:
        if suffix == ".parquet":
            with _open_parquet(path) as file:
                schema = file.schema_arrow
                batches = (batch.cast(schema) for batch in _refuse_bomb(path, file.iter_batches(BATCH_ROWS)))
                return _collect(batches, schema=schema)
        try:
            return _read_arrow(path)
        except pa.ArrowInvalid:
            return _simplify_types(pa.ipc.open_stream(pa.memory_map(str(path))).read_all())
    except (pa.ArrowException, OSError, TypeError) as error:  # TypeError: of an extension type that reads itself.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(
            f"{path}: expected a whole {kind} file, came another: {name_cause(error)}. Write it again."
        ) from None


def _read_arrow(path: Path) -> pa.Table:
    """Read a file of Arrow's own format; batches that are not compressed are mapped, not copied."""
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
    return _simplify_types(pa.Table.from_batches(_refuse_bomb(path, batches), schema=reader.schema))


def holds_table(source: object) -> bool:
    """Say whether a source in memory, or a path, is one table; a mapping of tables by split is none.

    Args:
        source: Anything.

    Returns:
        Whether `read_table` may read it.

    Example:
        >>> holds_table({"text": ["a joy"], "label": ["good"]}), holds_table({"train": "train.csv"})
        (True, False)
    """
    if isinstance(source, Mapping):
        return bool(source) and all(_is_column(values) for values in source.values())
    if isinstance(source, list):
        return bool(source) and all(isinstance(row, Mapping) for row in source)
    is_known = isinstance(source, Dataset | pd.DataFrame | str | os.PathLike)
    return is_known or (_is_arrow_like(source) and not _is_column(source)) or _is_lazy(source)


def _is_column(values: object) -> bool:
    """Whether something is the values of one column: a sequence that is neither text nor a list of rows."""
    if isinstance(values, list | tuple):
        return not (values and all(isinstance(value, Mapping) for value in values))
    if isinstance(values, str | bytes | Mapping | pd.DataFrame | Dataset | pa.Table | pa.RecordBatch):
        return False
    return getattr(values, "ndim", None) == 1 or isinstance(values, pa.Array | pa.ChunkedArray) or _is_series(values)


def _is_series(values: object) -> bool:
    """Whether something is a column of polars, which need not be installed."""
    return type(values).__name__ == "Series" and hasattr(values, "to_arrow")


def _is_arrow_like(source: object) -> bool:
    """Whether something gives itself away as an Arrow table: of polars, duckdb, cudf, or Arrow itself."""
    return isinstance(source, pa.Table | pa.RecordBatch) or hasattr(source, "__arrow_c_stream__")


def _is_lazy(source: object) -> bool:
    """Whether something is a query of polars that was not run yet."""
    return type(source).__module__.split(".")[0] == "polars" and hasattr(source, "collect")


def _convert_memory(source: object) -> pa.Table:
    """Turn what is in memory into an Arrow table."""
    if isinstance(source, pd.DataFrame):
        return _convert_frame(source)
    if _is_lazy(source):
        source = source.collect()  # type: ignore[attr-defined]
    if isinstance(source, list) and holds_table(source):
        names = list(dict.fromkeys(str(name) for row in source for name in row))
        rows = [{str(name): value for name, value in row.items()} for row in source]
        return _convert_columns({name: [row.get(name) for row in rows] for name in names})
    if isinstance(source, Mapping) and holds_table(source):
        return _convert_columns(source)
    if _is_arrow_like(source) and not _is_column(source):
        if isinstance(source, pa.RecordBatch):
            source = pa.Table.from_batches([source])
        table = source if isinstance(source, pa.Table) else pa.table(source)
        check_columns(table.column_names, where="data")
        return _simplify_types(table)
    raise DataError(
        "data: expected a file, a pandas or polars frame, an Arrow table, a dictionary of columns, a list of "
        f'dictionaries or a datasets.Dataset, came {_name_source(source)}. Write {{"text": [...], "label": [...]}}, '
        "for instance."
    )


def _name_source(source: object) -> str:
    """The type of something that is no table, and what of it is in the way."""
    kind = type(source).__name__
    if isinstance(source, Mapping) and source:
        return f"{kind} of {', '.join(dict.fromkeys(type(value).__name__ for value in source.values()))}"
    if isinstance(source, list | tuple) and source:
        return f"{kind} of {type(source[0]).__name__}"
    return kind


def _convert_columns(columns: Mapping[Any, Any]) -> pa.Table:
    """Turn columns of any kind into an Arrow table."""
    lengths = {str(name): len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name}: {length}" for name, length in list(lengths.items())[:10])
        raise DataError(f"data: expected columns of one length, came {shown}. Give every row a value in each, or None.")
    check_columns([str(name) for name in columns], where="data")
    return _build_table({str(name): values for name, values in columns.items()})


def _convert_frame(frame: pd.DataFrame) -> pa.Table:
    """Turn a pandas frame into an Arrow table."""
    check_columns([str(name) for name in frame.columns], where="data")
    return _build_table({str(name): frame[name] for name in frame.columns})


def _build_table(columns: Mapping[str, Any]) -> pa.Table:
    """Make a table; a column of several types is kept as text, and refused where it is used."""
    arrays, reasons = [], {}
    for name, values in columns.items():
        try:
            arrays.append(_make_column(values))
        except (pa.ArrowException, OverflowError, UnicodeError, ValueError, TypeError) as error:
            plain = [None if pd.api.types.is_scalar(value) and pd.isna(value) else value for value in values]
            place = find_mixed_value(plain)
            where = f"data, row {place[0] + 1}" if place else "data"
            reasons[name] = (
                f"{where}: expected one type of value in column {name!r}, came "
                f"{place[1] if place else str(error).rstrip('.')}. Make all its values alike, with astype(str) for "
                "instance."
            )
            arrays.append(pa.chunked_array([pa.array([spell_value(value) for value in plain], pa.string())]))
    return _mark_unusable(_simplify_types(pa.table(arrays, names=list(columns))), reasons)


def _make_column(values: Any) -> pa.ChunkedArray:
    """Turn the values of one column into Arrow's, NaN into nothing."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        array = values
    elif _is_series(values):
        array = values.to_arrow()
    elif isinstance(values, pd.Series):
        array = pa.Array.from_pandas(_spell_kinds(values))
    else:
        # Arrow knows neither tuples nor tensors.
        values = np.asarray(values) if hasattr(values, "__array__") else list(values)
        array = pa.array(values, from_pandas=True)
    return pa.chunked_array(array.chunks if isinstance(array, pa.ChunkedArray) else [array])


def _spell_kinds(values: pd.Series) -> pd.Series:
    """Periods and intervals, which Arrow stores in ways of pandas' own, as the texts that pandas writes into a csv."""
    own = (pd.PeriodDtype, pd.IntervalDtype)
    if isinstance(values.dtype, own):
        return values.astype(object).map(str, na_action="ignore")
    if isinstance(values.dtype, pd.CategoricalDtype) and isinstance(values.cat.categories.dtype, own):
        return values.cat.rename_categories([str(value) for value in values.cat.categories])
    return values


def _simplify_types(table: pa.Table, *, nested: bool = False) -> pa.Table:
    """Turn dictionaries and other ways to store texts into plain ones, inside of lists and objects where asked.

    What `datasets` cannot hold, such as intervals of months and days, becomes text.
    """
    table = hold_columns(table)
    odd = {field.name for field in table.schema if not _is_held(field.type)}
    if odd:
        table = _spell_columns(table, odd)
    fields = [field.with_type(_simplify_type(field.type, nested=nested)) for field in table.schema]
    target = pa.schema(fields, metadata=table.schema.metadata)
    if target.equals(table.schema):
        return table
    return pa.Table.from_batches(
        (_cast_batch(batch, target) for batch in table.to_batches(max_chunksize=BATCH_ROWS)), schema=target
    )


def _cast_batch(batch: pa.RecordBatch, target: pa.Schema) -> pa.RecordBatch:
    """Change the types of a batch; what Arrow has no way for goes by way of Python's values."""
    try:
        return batch.cast(target)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        columns = zip(batch.columns, target, strict=True)
        return pa.RecordBatch.from_arrays(
            [_cast_column(column, field.type) for column, field in columns], schema=target
        )


def _cast_column(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Change the type of a column."""
    if column.type.equals(kind):
        return column
    try:
        changed = column.cast(kind)
        changed.validate()  # The cast of a view of lists may leave offsets out.
        return changed
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return pa.array(column.to_pylist(), kind)


@lru_cache(maxsize=1024)
def _is_held(kind: pa.DataType) -> bool:
    """Whether `datasets` can hold a type, or a plainer one of the same values."""
    try:
        generate_from_arrow_type(_simplify_type(kind, nested=True))
    except (ValueError, NotImplementedError, TypeError):
        return False
    return True


def _spell_columns(table: pa.Table, names: set[str]) -> pa.Table:
    """Turn columns that `datasets` cannot hold into text; those of nested values are no texts to read."""
    reasons = {}
    for index, field in enumerate(table.schema):
        if field.name not in names:
            continue
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        is_extension = isinstance(kind, pa.BaseExtensionType)
        # pandas alone knows what its periods and intervals mean; to Arrow they are numbers.
        column = table.column(index)
        values = column.to_pandas(date_as_object=True).tolist() if is_extension else column.to_pylist()
        plain = [None if pd.api.types.is_scalar(value) and pd.isna(value) else value for value in values]
        spelled = pa.array([spell_value(value) for value in plain], pa.string())
        table = table.set_column(index, pa.field(field.name, pa.string()), spelled)
        if not is_extension and (pa.types.is_nested(kind) or pa.types.is_union(kind)):
            reasons[field.name] = f"data: expected texts or labels in column {field.name!r}, came {kind}. Name another."
    return _mark_unusable(table, reasons)


def _simplify_type(kind: pa.DataType, *, nested: bool) -> pa.DataType:
    """The type as `datasets` and the rest of the package read it."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _simplify_type(kind.value_type, nested=nested)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_decimal(kind) and kind.bit_width < 128:
        return pa.decimal128(kind.precision, kind.scale)
    if isinstance(kind, pa.Bool8Type):
        return pa.bool_()
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        kind = pa.list_(kind.value_field)
    if nested and (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return pa.list_(kind.value_field.with_type(_simplify_type(kind.value_type, nested=True)))
    if nested and pa.types.is_struct(kind):
        return pa.struct([field.with_type(_simplify_type(field.type, nested=True)) for field in kind])
    return kind


def get_arrow_table(dataset: Dataset) -> pa.Table:
    """Get the rows of a data set in their order, as one Arrow table with plain texts and lists.

    Args:
        dataset: Any data set; one that was shuffled or selected from is copied into memory.

    Returns:
        The table; shared with the data set where that is possible.
    """
    plain = dataset.with_format("arrow")
    table = plain[:] if dataset._indices is not None else dataset.data.table
    return _simplify_types(table, nested=True)


def _wrap_table(table: pa.Table, *, where: str) -> Dataset:
    """Make a data set from an Arrow table without copying it."""
    check_columns(table.column_names, where=where)
    try:
        return Dataset(table)
    except (NotImplementedError, ValueError, TypeError) as error:
        raise DataError(
            f"{where}: expected columns that datasets can hold, came others: {name_cause(error)}. Drop them."
        ) from None


def _collect(batches: Iterable[pa.RecordBatch], *, schema: pa.Schema | None = None) -> pa.Table:
    """Join batches, whose types may grow from null to something or from whole to real numbers."""
    parts: list[pa.Table] = []
    held: list[pa.Table] = []
    size = 0
    for batch in batches:
        held.append(_simplify_types(pa.Table.from_batches([batch])))
        size += batch.nbytes
        if size >= SPILL_BYTES:
            parts.append(_spill(_join(held)))
            held, size = [], 0
    if not parts and not held and schema is not None:
        return _simplify_types(schema.empty_table())
    return _join(parts + held)


def _join(tables: Sequence[pa.Table]) -> pa.Table:
    """Put tables below each other, in one schema."""
    try:
        return join_orders(pa.concat_tables(tables, promote_options="permissive"), tables)
    except pa.ArrowException:
        names = dict.fromkeys(name for table in tables for name in table.column_names)
        reasons = {name: reason for name in names if (reason := _find_clash(tables, name))}
        if not reasons:
            raise
        raise MixedColumns(reasons) from None


def _find_clash(tables: Sequence[pa.Table], name: str) -> str | None:
    """Say that the types of a column do not go together."""
    kinds = [table.schema.field(name) for table in tables if name in table.column_names]
    try:
        pa.unify_schemas([pa.schema([kind]) for kind in kinds], promote_options="permissive")
    except pa.ArrowException:
        shown = " and ".join(dict.fromkeys(str(kind.type) for kind in kinds[:3]))
        return f"expected one type of value in {name!r}, came {shown}. Write all its values alike."
    return None


def _spill(table: pa.Table) -> pa.Table:
    """Move a table out of memory into a file that vanishes with the process."""
    path = _write_table(table)
    mapped = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    with suppress(OSError):  # A system that cannot remove an open file keeps it in the cache.
        path.unlink()
    return mapped


def store_table(table: pa.Table, features: Features) -> Dataset:
    """Keep a finished table: in memory while small, memory-mapped from the cache of `datasets` otherwise.

    Args:
        table: The rows.
        features: What the columns are, for `datasets`.

    Returns:
        The data set. Its file, where there is one, is named by its content: the same table is stored once.

    Raises:
        StorageError: The cache cannot be written.
    """
    table = table.cast(features.arrow_schema)
    if table.nbytes < SPILL_BYTES:
        return Dataset(table)
    path = _write_table(table)
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    target = path.with_name(f"{digest.hexdigest()}.arrow")
    if target.exists():
        path.unlink()
    else:
        path.replace(target)
    return Dataset.from_file(str(target))


def _write_table(table: pa.Table) -> Path:
    """Write a table to a new file in the cache; nothing is left where that fails."""
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "nlp_transfer"
    path: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(suffix=".tmp", dir=folder)
        path = Path(name)
        with os.fdopen(handle, "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            for batch in _slice_batches(table):
                writer.write_batch(batch)
        settle_modes(path)
    except OSError as error:
        if path is not None:
            path.unlink(missing_ok=True)
        raise explain_writing(
            folder,
            error,
            what="the table cannot be cached there",
            way_out="Free some space, or set HF_DATASETS_CACHE to another folder.",
            elsewhere="set HF_DATASETS_CACHE to another folder",
        ) from error
    return path


def _slice_batches(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """The rows of a table in batches of the size `datasets` reads quickly."""
    yield from table.to_batches(max_chunksize=1000)
