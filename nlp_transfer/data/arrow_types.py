"""What Arrow can hold and the rest of the package does not read, as columns that it does.

Nothing is refused here: a column that nobody reads must not stop a run. A column that cannot be stored as it is becomes
text, and its field remembers what it was, for the message of whoever does read it.
"""

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from nlp_transfer.data.spelling import spell_column, spell_interval

__all__ = ["UNUSABLE", "describe_column", "explain_column", "hold_columns", "join_orders", "read_category_order"]

ORDER, KIND = b"nlp_transfer.order", b"nlp_transfer.kind"
"""Keys in the metadata of a field: the order of ordered categories, and what a column of text was before."""

UNUSABLE = b"nlp_transfer.unusable"
"""Likewise: why a column is neither text nor label, though it is kept as text."""

EXTENSION, EXTENSION_SETTINGS = b"ARROW:extension:name", b"ARROW:extension:metadata"
"""Where Arrow keeps an extension type that nobody has registered."""


def read_category_order(field: pa.Field) -> tuple[str, ...] | None:
    """Read the order of an ordered categorical, low to high; None where the column has none."""
    found = (field.metadata or {}).get(ORDER)
    return None if found is None else tuple(json.loads(found))


def explain_column(field: pa.Field) -> str | None:
    """Say why a column cannot be read as texts or labels; None where it can."""
    found = (field.metadata or {}).get(UNUSABLE)
    return None if found is None else str(found.decode())


def describe_column(field: pa.Field) -> str | None:
    """Say what a column of text was before it became that; None where it always was text."""
    found = (field.metadata or {}).get(KIND)
    return None if found is None else str(found.decode())


def hold_columns(table: pa.Table) -> pa.Table:
    """Read columns of extension types as what they mean, and note the order of ordered categories.

    Periods and intervals are spelled as pandas spells them; any other extension type is what it is stored as.

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
    return field, column


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


def join_orders(joined: pa.Table, parts: Sequence[pa.Table]) -> pa.Table:
    """Keep the order of ordered categories in a table that was put together, where all of its parts go with one.

    Args:
        joined: The whole.
        parts: What it was put together from.

    Returns:
        The same rows; the very same table where no part has such a column.
    """
    for index, field in enumerate(joined.schema):
        orders = [
            read_category_order(part.schema.field(field.name)) for part in parts if field.name in part.column_names
        ]
        if all(order is None for order in orders):
            continue
        order = _join_orders([None if known is None else list(known) for known in orders])
        metadata = {key: value for key, value in (field.metadata or {}).items() if key != ORDER}
        if order is not None:
            metadata[ORDER] = json.dumps(order).encode()
        joined = joined.set_column(index, field.with_metadata(metadata), joined.column(index))
    return joined
