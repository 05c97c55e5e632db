"""What Arrow can hold and the rest of the package does not read, as columns that it does.

Nothing is refused here: a column that nobody reads must not stop a run. A column that cannot be stored as it is becomes
text, and its field remembers what it was, for the message of whoever does read it.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features

from nlp_transfer.data.spelling import spell_column, spell_interval

__all__ = [
    "LARGE_NUMBERS",
    "describe_column",
    "explain_column",
    "hold_columns",
    "join_tables",
    "make_text_column",
    "read_category_order",
]

ORDER, KIND, PROBLEM = b"nlp_transfer.order", b"nlp_transfer.kind", b"nlp_transfer.problem"
"""Keys in the metadata of a field: the order of ordered categories, what the column was, why it cannot be read."""

LARGE_NUMBERS = "numbers of more than 64 bits"

EXTENSION, EXTENSION_SETTINGS = b"ARROW:extension:name", b"ARROW:extension:metadata"
"""Where Arrow keeps an extension type that nobody has registered."""


def read_category_order(field: pa.Field) -> tuple[str, ...] | None:
    """Read the order of an ordered categorical, low to high; None where the column has none."""
    found = (field.metadata or {}).get(ORDER)
    return None if found is None else tuple(json.loads(found))


def explain_column(field: pa.Field) -> str | None:
    """Say why a column cannot be read as texts or labels; None where it can."""
    found = (field.metadata or {}).get(PROBLEM)
    return None if found is None else str(found.decode())


def describe_column(field: pa.Field) -> str | None:
    """Say what a column of text was before it became that; None where it always was text."""
    found = (field.metadata or {}).get(KIND)
    return None if found is None else str(found.decode())


def make_text_column(name: str, values: Sequence[Any], *, kind: str, problem: str | None) -> tuple[pa.Field, pa.Array]:
    """Store values of no common type as text: texts as they are, others as JSON.

    Args:
        name: The column.
        values: Python values.
        kind: What they are, in words.
        problem: What is said to whoever reads the column as texts or labels; None where it may be read as labels.

    Returns:
        The field, which remembers both, and the column.
    """
    metadata = {KIND: kind.encode(), **({} if problem is None else {PROBLEM: problem.encode()})}
    return pa.field(name, pa.string(), metadata=metadata), pa.array(
        [_write_value(value) for value in values], pa.string()
    )


def _write_value(value: Any) -> str | None:
    """A value as text; half of a surrogate pair, which no file can hold, by its number."""
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return None
    if not isinstance(value, str):
        try:
            value = json.dumps(value, ensure_ascii=False, default=str)
        except (ValueError, TypeError, RecursionError):
            value = str(value)
    return str(value).encode("utf-8", "backslashreplace").decode()


def hold_columns(table: pa.Table) -> pa.Table:
    """Bring columns that `datasets` cannot hold into a form that it can, and note the order of ordered categories.

    Periods and intervals are spelled as pandas spells them, small decimals grow, other ways to store a list or a
    repeated value are unpacked, and whatever is left becomes JSON text.

    Args:
        table: Any table.

    Returns:
        The same rows; the very same table where there is nothing to do.

    Example:
        >>> table = pa.table({"month": pd.PeriodIndex(["2020-01", "2020-02"], freq="M")})
        >>> hold_columns(table)["month"].to_pylist()
        ['2020-01', '2020-02']
    """
    for index, field in enumerate(table.schema):
        column = table.column(index)
        kept, values = _hold_column(field, column)
        if kept is not field:
            table = table.set_column(index, kept, values)
    return table


def _hold_column(field: pa.Field, column: pa.ChunkedArray) -> tuple[pa.Field, pa.ChunkedArray]:
    """One column; the very same field where nothing has to change."""
    kind = field.type
    if pa.types.is_dictionary(kind):
        return _hold_dictionary(field, column)
    extension = _read_extension(field)
    if extension is not None:
        return _hold_extension(field, column, *extension)
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        wide = pa.decimal128(kind.precision, kind.scale)
        return field.with_type(wide), column.cast(wide)
    if pa.types.is_run_end_encoded(kind):
        decoded = pa.chunked_array([pc.run_end_decode(chunk) for chunk in column.chunks], kind.value_type)
        return _hold_column(pa.field(field.name, kind.value_type), decoded)
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        plain = pa.large_list(kind.value_field)
        return _hold_column(pa.field(field.name, plain), column.cast(plain))
    if _is_held(kind):
        return field, column
    held, text = make_text_column(field.name, column.to_pylist(), kind=f"values of type {kind}", problem=None)
    return held, pa.chunked_array([text])


def _is_held(kind: pa.DataType) -> bool:
    """Whether `datasets` has a type for it."""
    try:
        Features.from_arrow_schema(pa.schema([pa.field("column", kind)]))
    except (ValueError, TypeError, NotImplementedError):
        return False
    return True


def _hold_dictionary(field: pa.Field, column: pa.ChunkedArray) -> tuple[pa.Field, pa.ChunkedArray]:
    """A categorical: its order is noted, its values are unpacked later unless they are of an extension type."""
    kind = field.type
    if kind.ordered and read_category_order(field) is None:
        order = _join_orders([_list_categories(chunk.dictionary, kind.value_type) for chunk in column.chunks])
        if order is not None:
            field = field.with_metadata({**(field.metadata or {}), ORDER: json.dumps(order).encode()})
    if not isinstance(kind.value_type, pa.BaseExtensionType):
        return field, column
    value_field = pa.field(field.name, kind.value_type)
    chunks = []
    for chunk in column.chunks:
        held, values = _hold_column(value_field, pa.chunked_array([chunk.dictionary]))
        chunks.append(pa.concat_arrays(values.chunks).take(chunk.indices))
    if not chunks:
        return pa.field(field.name, pa.string()), pa.chunked_array([], pa.string())
    return held.with_metadata({**(held.metadata or {}), **(field.metadata or {})}), pa.chunked_array(chunks)


def _list_categories(dictionary: pa.Array, kind: pa.DataType) -> list[str] | None:
    """The categories of a chunk as labels; None where they have no spelling."""
    if isinstance(kind, pa.BaseExtensionType):
        _, values = _hold_column(pa.field("column", kind), pa.chunked_array([dictionary]))
        dictionary = pa.concat_arrays(values.chunks)
    try:
        return [str(name) for name in spell_column(dictionary).to_pylist()]
    except (TypeError, ValueError):
        return None


def _join_orders(orders: Sequence[list[str] | None]) -> list[str] | None:
    """The order that all chunks go with: the longest, where the others are parts of it."""
    known = [order for order in orders if order is not None]
    if not known or len(known) < len(orders):
        return None
    longest = max(known, key=len)
    return longest if all([n for n in longest if n in set(order)] == order for order in known) else None


def _read_extension(field: pa.Field) -> tuple[str, bytes] | None:
    """The name and settings of an extension type, registered or not; None where the type is a plain one."""
    if isinstance(field.type, pa.ExtensionType):
        return field.type.extension_name, field.type.__arrow_ext_serialize__()
    if isinstance(field.type, pa.BaseExtensionType):
        return field.type.extension_name, b""
    metadata = field.metadata or {}
    name = metadata.get(EXTENSION)
    return None if name is None else (name.decode(), metadata.get(EXTENSION_SETTINGS, b""))


def _hold_extension(
    field: pa.Field, column: pa.ChunkedArray, name: str, settings: bytes
) -> tuple[pa.Field, pa.ChunkedArray]:
    """A column of an extension type as what it means, or as what it is stored as."""
    stored = [chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk for chunk in column.chunks]
    kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
    storage = pa.chunked_array(stored, kind)
    if name == "arrow.bool8":
        return pa.field(field.name, pa.bool_()), storage.cast(pa.bool_())
    texts: list[str | None] | None = None
    if name == "pandas.period":
        texts = _spell_periods(storage, settings)
    elif name == "pandas.interval":
        closed = _read_settings(settings).get("closed", "right")
        texts = [row and spell_interval(row["left"], row["right"], closed) for row in storage.to_pylist()]
    elif name == "arrow.uuid":
        texts = [None if value is None else str(value) for value in column.to_pylist()]
    if texts is None:
        return _hold_column(pa.field(field.name, kind), storage)
    metadata = {KIND: f"values of type {name}".encode()}
    return pa.field(field.name, pa.string(), metadata=metadata), pa.chunked_array([pa.array(texts, pa.string())])


def _spell_periods(storage: pa.ChunkedArray, settings: bytes) -> list[str | None] | None:
    """Periods as pandas writes them; None where their length is unknown."""
    try:
        frequency = _read_settings(settings)["freq"]
        ordinals = storage.drop_null().to_numpy()
        periods = pd.PeriodIndex.from_ordinals(ordinals, freq=frequency)  # type: ignore[attr-defined]
        spelled = iter([str(period) for period in periods])
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return [next(spelled) if valid else None for valid in storage.is_valid().to_pylist()]


def _read_settings(settings: bytes) -> dict[str, Any]:
    """What an extension type of pandas says of itself."""
    try:
        found = json.loads(settings)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def join_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """Put tables below each other in one schema; a column whose types do not go together becomes text.

    Args:
        tables: Parts of one table.

    Returns:
        All rows. What a field says of its column in any of the parts, it says in the whole.
    """
    fields: dict[str, list[pa.Field]] = {}
    for table in tables:
        for field in table.schema:
            fields.setdefault(field.name, []).append(field)
    mixed = {name: found for name, found in fields.items() if not _go_together(found)}
    parts = [_write_columns(table, mixed) for table in tables]
    try:
        joined = pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowInvalid:  # A whole number that is too large for the numbers with a point beside it.
        wide = {name: found for name, found in fields.items() if len({field.type for field in found}) > 1}
        joined = pa.concat_tables([_write_columns(table, wide) for table in tables], promote_options="permissive")
    for index, field in enumerate(joined.schema):
        metadata = _join_metadata([found.metadata or {} for found in fields[field.name]], field)
        if field.name in mixed and PROBLEM not in metadata and not _hold_numbers(mixed[field.name]):
            came = " and ".join(sorted({str(found.type) for found in mixed[field.name]}))
            metadata[PROBLEM] = (
                f"expected one type of value in {field.name!r}, came {came}. Write its values alike.".encode()
            )
        if metadata != (field.metadata or {}):
            joined = joined.set_column(index, field.with_metadata(metadata), joined.column(index))
    return joined


def _join_metadata(found: Sequence[dict[bytes, bytes]], field: pa.Field) -> dict[bytes, bytes]:
    """What the parts of a column say of it; an order has to be the same in all."""
    joined: dict[bytes, bytes] = {}
    for metadata in found:
        joined = {**metadata, **joined}
    if ORDER in joined:
        orders = [read_category_order(field.with_metadata(metadata)) for metadata in found]
        order = _join_orders([None if known is None else list(known) for known in orders])
        joined.pop(ORDER)
        if order is not None:
            joined[ORDER] = json.dumps(order).encode()
    return joined


def _hold_numbers(fields: Iterable[pa.Field]) -> bool:
    """Whether a column that became text holds nothing but numbers, some too large to be stored as such."""
    return all(
        describe_column(field) == LARGE_NUMBERS or pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        for field in fields
    )


def _go_together(fields: Iterable[pa.Field]) -> bool:
    """Whether columns can be one."""
    kinds = list(dict.fromkeys(field.type for field in fields))
    if len(kinds) == 1:
        return True
    try:
        pa.unify_schemas([pa.schema([pa.field("column", kind)]) for kind in kinds], promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return False
    return True


def _write_columns(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """The table with some of its columns as text."""
    for name in names:
        index = table.schema.get_field_index(name)
        if index < 0 or pa.types.is_string(table.schema.field(index).type):
            continue
        field = table.schema.field(index)
        held, text = make_text_column(name, table.column(index).to_pylist(), kind="mixed values", problem=None)
        metadata = {**(held.metadata or {}), **(field.metadata or {})}
        table = table.set_column(index, held.with_metadata(metadata), pa.chunked_array([text]))
    return table
