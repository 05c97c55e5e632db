"""One file or frame in, one `datasets.Dataset` out.

Small tables stay in memory; larger ones are written to the cache of `datasets` and memory-mapped from there, so that
a table may be larger than the memory.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features

from nlp_transfer.data.arrow_types import hold_columns, join_tables, make_text_column
from nlp_transfer.data.delimited import read_delimited
from nlp_transfer.data.textfiles import find_mixed_value, read_json_lines
from nlp_transfer.errors import DataError, StorageError

__all__ = ["TABLE_SUFFIXES", "get_arrow_table", "read_table", "store_table"]

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".feather")
"""File names that are read, by their end."""

SPILL_BYTES = 16 << 20
"""A table larger than this is memory-mapped; chosen."""

MOST_GROWTH = 200
"""A table may grow to this many times its file; texts compress to a tenth, at most to a fiftieth. Chosen."""

SMALLEST_BOMB_BYTES = 1 << 30
"""Up to this size a table may grow in any case; chosen."""

LARGE_FILE_BYTES = 64 << 20
"""A file larger than this is no bomb that a few bytes make; chosen."""

BATCH_ROWS = 20_000
"""Rows of a batch while a table is copied; small, so that long texts stay below Arrow's 2 GB a chunk."""


def read_table(source: object, *, encoding: str = "utf-8") -> Dataset:
    """Read one table from a file or from memory.

    In csv and tsv files every cell is text: ``NA``, ``None``, ``null`` and ``nan`` are those words, and an empty
    cell is the empty text.

    Args:
        source: Path of a csv, tsv, jsonl, parquet, Arrow or Feather file, a pandas frame, an Arrow table, or a
            `datasets.Dataset`, which comes back as it is.
        encoding: Character encoding of a csv, tsv or jsonl file.

    Returns:
        The table, rows and columns in their order, with at least one row.

    Raises:
        DataError: The source is missing, empty, unreadable or broken; names the line where there is one.
        StorageError: The machine cannot read or write.

    Example:
        >>> read_table(pd.DataFrame({"text": ["a joy"], "label": ["positive"]})).column_names
        ['text', 'label']
    """
    if isinstance(source, Dataset):
        table, name = source, "data"
    elif isinstance(source, pd.DataFrame):
        table, name = _wrap_table(_convert_frame(source)), "data"
    elif isinstance(source, pa.Table):
        table, name = _wrap_table(_simplify_types(source)), "data"
    elif isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        table, name = _wrap_table(_read_file(path, encoding)), str(path)
    else:
        raise DataError(
            f"data: expected a file, a pandas frame or a datasets.Dataset, came {type(source).__name__}. "
            "Convert it to one of these."
        )
    if not table.num_rows or not table.column_names:
        raise DataError(f"{name}: expected a table with rows, came one without. Add rows, or name another table.")
    return table


def _read_file(path: Path, encoding: str) -> pa.Table:
    """Read a file by the end of its name."""
    suffix = path.suffix.lower()
    if path.is_dir():
        raise DataError(f"{path}: expected a file, came a folder. Name a file in it.")
    if suffix not in TABLE_SUFFIXES:
        raise DataError(
            f"{path}: expected a name that ends in one of {', '.join(TABLE_SUFFIXES)}, came {suffix or 'no ending'!r}. "
            "Rename or convert the file."
        )
    try:
        if not path.stat().st_size:
            raise DataError(f"{path}: expected rows, came an empty file. Fill it, or name another file.")
        if suffix in (".csv", ".tsv"):
            return _collect(read_delimited(path, encoding=encoding, delimiter="\t" if suffix == ".tsv" else ","))
        if suffix in (".jsonl", ".ndjson", ".json"):
            return _collect(read_json_lines(path, encoding=encoding))
        return _read_binary(path, suffix)
    except FileNotFoundError:
        raise DataError(f"{path}: expected a file, came nothing: no such file. Check the name.") from None
    except PermissionError:
        raise DataError(f"{path}: expected a readable file, came: permission denied. Change its permissions.") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error}.") from error


def _refuse_bomb(path: Path, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Hand batches on as long as what they hold is in proportion to the file, every repeated text counted in full."""
    limit = max(SMALLEST_BOMB_BYTES, MOST_GROWTH * path.stat().st_size)
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
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{path}: expected a whole {kind} file, came another: {reason}. Write it anew.") from None


def _read_arrow(path: Path) -> pa.Table:
    """Read a file of Arrow's own format; batches that are not compressed are mapped, not copied."""
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
    return _simplify_types(pa.Table.from_batches(_refuse_bomb(path, batches), schema=reader.schema))


def _convert_frame(frame: pd.DataFrame) -> pa.Table:
    """Turn a pandas frame into an Arrow table."""
    twice = sorted({str(name) for name in frame.columns[frame.columns.duplicated()]})
    if twice:
        raise DataError(f"data: expected different column names, came twice: {', '.join(twice)}. Rename one.")
    arrays, fields = [], []
    for name in frame.columns:
        try:
            array = pa.Array.from_pandas(frame[name])
            field = pa.field(str(name), array.type)
        except (pa.ArrowException, OverflowError, UnicodeError, ValueError, TypeError) as error:
            values = [None if pd.api.types.is_scalar(v) and pd.isna(v) else v for v in frame[name]]
            place = find_mixed_value(values)
            where = f"data, row {place[0] + 1}" if place else "data"
            problem = (
                f"{where}: expected one type of value in column {str(name)!r}, came "
                f"{place[1] if place else error}. Make all its values alike, with astype(str) for instance."
            )
            field, array = make_text_column(str(name), values, kind="mixed values", problem=problem)
        arrays.append(pa.chunked_array(_as_chunks(array), field.type))
        fields.append(field)
    return _simplify_types(pa.table(arrays, schema=pa.schema(fields)))


def _as_chunks(array: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    """The chunks of an array that may have several."""
    return array.chunks if isinstance(array, pa.ChunkedArray) else [array]


def _simplify_types(table: pa.Table, *, nested: bool = False) -> pa.Table:
    """Turn dictionaries and other ways to store texts into plain ones, inside of lists and objects where asked."""
    table = hold_columns(table)
    fields = [field.with_type(_simplify_type(field.type, nested=nested)) for field in table.schema]
    target = pa.schema(fields, metadata=table.schema.metadata)
    if target.equals(table.schema):
        return table
    return pa.Table.from_batches(
        (batch.cast(target) for batch in table.to_batches(max_chunksize=BATCH_ROWS)), schema=target
    )


def _simplify_type(kind: pa.DataType, *, nested: bool) -> pa.DataType:
    """The type as `datasets` and the rest of the package read it."""
    if pa.types.is_dictionary(kind):
        return _simplify_type(kind.value_type, nested=nested)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
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


def _wrap_table(table: pa.Table) -> Dataset:
    """Make a data set from an Arrow table without copying it."""
    try:
        return Dataset(table)
    except (NotImplementedError, ValueError, TypeError) as error:
        raise DataError(f"data: expected columns that datasets can hold, came others: {error}. Drop them.") from None


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


def _join(tables: list[pa.Table]) -> pa.Table:
    """Put tables below each other, in one schema."""
    return join_tables(tables)


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
    except OSError as error:
        if path is not None:
            path.unlink(missing_ok=True)
        raise StorageError(
            f"{folder}: the table cannot be cached there: {error}. Free some space, or set HF_DATASETS_CACHE."
        ) from error
    return path


def _slice_batches(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """The rows of a table in batches of the size `datasets` reads quickly."""
    yield from table.to_batches(max_chunksize=1000)
