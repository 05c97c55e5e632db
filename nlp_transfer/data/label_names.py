"""One label a row as names, whatever type the column has; what all kinds of labels share."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel

from nlp_transfer.contracts import TaskKind
from nlp_transfer.errors import DataError, LabelError

__all__ = ["INTEGER", "NUMBER", "RawLabels", "combine_chunks", "map_unique", "read_names"]

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
INTEGER = re.compile(r"[+-]?\d+", re.ASCII)


@dataclass(frozen=True)
class RawLabels:
    """The labels of one table before they become ids.

    Attributes:
        values: Names as strings (classification, ordinal), lists of names (multi_label) or doubles (regression),
            one a row; null where the label is missing.
        declared: Names in the order that the source declares (`ClassLabel`, several 0/1 columns); None for none.
        numeric: Whether the source holds numbers, not words.
        where: The table, for messages.
        is_stated: Whether the source says yes or no to every label of a row (0/1 columns and lists), so that a row
            without any is known to have none.
        placeholder: What the source writes in place of a missing label, for messages; empty where it writes nothing.
    """

    values: pa.Array
    declared: tuple[str, ...] | None
    numeric: bool
    where: str
    is_stated: bool = False
    placeholder: str = ""

    @property
    def missing(self) -> np.ndarray:
        """Rows without a label: bool, shape (N,)."""
        return np.asarray(self.values.is_null())


def combine_chunks(column: pa.ChunkedArray) -> pa.Array:
    """One array from the chunks of a column."""
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def map_unique(column: pa.Array, texts: Mapping[object, str | None]) -> pa.Array:
    """Replace every value by its text; a value without one becomes null."""
    keys = pa.array(list(texts), column.type)
    return pa.array(list(texts.values()), pa.string()).take(pc.index_in(column, keys))


def read_names(
    feature: object, column: pa.Array, name: str, where: str, kind: TaskKind, names: Sequence[str] | None
) -> tuple[pa.Array, tuple[str, ...] | None, bool]:
    """Read a column of single labels.

    Args:
        feature: What `datasets` knows of the column.
        column: The column.
        name: Its name.
        where: The table, for messages.
        kind: The task.
        names: ``task.labels``.

    Returns:
        Names, null where missing; the order that the source declares, None for none; whether they are numbers.

    Raises:
        LabelError: An id is beyond the names that a `ClassLabel` declares.
        DataError: The values cannot be labels of this task.
    """
    if isinstance(feature, ClassLabel):
        declared = tuple(feature.names)
        ids = np.asarray(column.fill_null(-1))
        if len(ids) and (ids.min() < -1 or ids.max() >= len(declared)):
            raise LabelError(
                f"{where}: expected label ids from 0 to {len(declared) - 1} in {name!r} as its ClassLabel declares, "
                f"came {ids.min() if ids.min() < -1 else ids.max()}. Correct the column."
            )
        index = pa.array(ids, pa.int64(), mask=ids < 0)
        return pa.array(declared, pa.string()).take(index), declared, False
    if pa.types.is_null(column.type):
        return column.cast(pa.string()), None, False
    if pa.types.is_string(column.type):
        blank = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(column)), 0)
        values = pc.if_else(blank, pa.scalar(None, pa.string()), column)
        unique = [value for value in pc.unique(values).to_pylist() if value is not None]
        numeric = bool(unique) and all(NUMBER.fullmatch(value) for value in unique)
        if numeric and kind == "classification" and names is None:
            _refuse_fractions(values, [v for v in unique if not float(v).is_integer()], name, where)
        return values, None, numeric
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int64())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise DataError(f"{where}: expected names or numbers in {name!r}, came {column.type}. Convert the column.")
    texts: dict[object, str | None] = {}
    for value in pc.unique(column).to_pylist():
        if value is not None and value == value:
            texts[value] = str(int(value)) if float(value).is_integer() else repr(float(value))
    values = map_unique(column, texts)
    if kind == "classification" and names is None:
        _refuse_fractions(
            values, [text for text in texts.values() if text and not INTEGER.fullmatch(text)], name, where
        )
    return values, None, True


def _refuse_fractions(values: pa.Array, fractions: Sequence[str], name: str, where: str) -> None:
    """Refuse numbers that look like a quantity where classes are expected."""
    if fractions:
        row = pc.index(values, fractions[0]).as_py() + 1
        raise DataError(
            f"{where}, row {row}: expected classes in {name!r}, came the number {fractions[0]}. Say "
            "task.kind=regression to predict it, or list the classes in task.labels."
        )
