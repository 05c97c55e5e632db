"""The labels of one table as names or numbers, before a label contract makes ids of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset

from nlp_transfer.contracts import TaskKind
from nlp_transfer.data.tables import get_arrow_table
from nlp_transfer.errors import DataError, LabelError

__all__ = ["INTEGER", "NUMBER", "RawLabels", "combine_chunks", "is_unlabelled", "map_unique", "read_labels"]

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
    """

    values: pa.Array
    declared: tuple[str, ...] | None
    numeric: bool
    where: str

    @property
    def missing(self) -> np.ndarray:
        """Rows without a label: bool, shape (N,)."""
        return np.asarray(self.values.is_null())


def read_labels(
    table: Dataset,
    columns: Sequence[str],
    kind: TaskKind,
    *,
    separator: str,
    where: str,
    names: Sequence[str] | None = None,
) -> RawLabels:
    """Read the labels of a table.

    Args:
        table: The table as it was read.
        columns: The label column, or several 0/1 columns for multi_label.
        kind: The task.
        separator: What stands between labels in one text cell of multi_label.
        where: The table, for messages.
        names: ``task.labels``.

    Returns:
        Names or numbers, null where missing. -1 of a `ClassLabel` counts as missing, as GLUE's test splits have it.

    Raises:
        DataError: A value is of a type that the task cannot have.
    """
    arrow = get_arrow_table(table.select_columns(list(columns)))
    if len(columns) > 1 or (kind == "multi_label" and _holds_flags(table, arrow, columns[0], names)):
        return _read_flags(arrow, columns, where)
    name = columns[0]
    column = combine_chunks(arrow[name])
    if pa.types.is_nested(column.type):
        if kind != "multi_label" or not pa.types.is_list(column.type):
            hint = "Say task.kind=multi_label." if pa.types.is_list(column.type) else "Flatten it."
            raise DataError(f"{where}: expected one label a row in {name!r}, came {column.type}. {hint}")
        return _read_lists(table, column, name, names, where)
    if kind == "regression":
        return RawLabels(_read_numbers(table, column, name, where), None, True, where)
    values, declared, numeric = _read_names(table.features[name], column, name, where, kind, names)
    if kind == "multi_label" and pa.types.is_string(column.type):
        return RawLabels(_split_cells(column, separator), None, False, where)
    if kind == "multi_label":
        missing = np.asarray(values.is_null())
        values = _make_lists(np.flatnonzero(~missing), values.drop_null(), missing)
    return RawLabels(values, declared, numeric, where)


def combine_chunks(column: pa.ChunkedArray) -> pa.Array:
    """One array from the chunks of a column."""
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def map_unique(column: pa.Array, texts: Mapping[object, str | None]) -> pa.Array:
    """Replace every value by its text; a value without one becomes null."""
    keys = pa.array(list(texts), column.type)
    return pa.array(list(texts.values()), pa.string()).take(pc.index_in(column, keys))


def _read_names(
    feature: object, column: pa.Array, name: str, where: str, kind: TaskKind, names: Sequence[str] | None
) -> tuple[pa.Array, tuple[str, ...] | None, bool]:
    """A column of single labels as names; also the declared order, and whether they are numbers."""
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


def _read_numbers(table: Dataset, column: pa.Array, name: str, where: str) -> pa.Array:
    """A column of numbers as doubles; null where missing or not a number."""
    if isinstance(table.features[name], ClassLabel):
        raise DataError(f"{where}: expected numbers in {name!r}, came a ClassLabel. Say task.kind=classification.")
    if pa.types.is_string(column.type):
        trimmed = pc.utf8_trim_whitespace(column)
        trimmed = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
        fits = pc.match_substring_regex(trimmed, rf"^{NUMBER.pattern}$").fill_null(True)
        row = pc.index(fits, False).as_py()
        if row >= 0:
            raise DataError(
                f"{where}, row {row + 1}: expected a number in {name!r}, came {trimmed[row].as_py()!r}. "
                "Correct it (a decimal point, not a comma), or say task.kind=classification."
            )
        column = pc.replace_substring_regex(trimmed, r"^\+", "")
    elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_null(column.type)):
        raise DataError(f"{where}: expected numbers in {name!r}, came {column.type}. Convert the column.")
    numbers = column.cast(pa.float64())
    numbers = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    row = pc.index(pc.is_inf(numbers).fill_null(False), True).as_py()
    if row >= 0:
        raise DataError(f"{where}, row {row + 1}: expected a finite number in {name!r}, came infinity. Correct it.")
    return numbers


def _holds_flags(table: Dataset, arrow: pa.Table, name: str, names: Sequence[str] | None) -> bool:
    """Whether a single column of multi_label is itself a 0/1 column, named after its label."""
    kind = arrow[name].type
    flag = pa.types.is_boolean(kind) or pa.types.is_integer(kind)
    return flag and not isinstance(table.features[name], ClassLabel) and names in (None, [name])


def _read_flags(arrow: pa.Table, columns: Sequence[str], where: str) -> RawLabels:
    """Several 0/1 columns as lists of their names; a row with -1 or nothing in one of them has no labels."""
    flags = np.zeros((arrow.num_rows, len(columns)), dtype=bool)
    missing = np.zeros(arrow.num_rows, dtype=bool)
    for index, name in enumerate(columns):
        values, _, _ = _read_names(None, combine_chunks(arrow[name]), name, where, "ordinal", None)
        lowered = pc.utf8_lower(values)
        on = pc.is_in(lowered, pa.array(["1", "1.0", "true"]))
        known = pc.is_in(lowered, pa.array(["0", "0.0", "false", "1", "1.0", "true", "-1", "-1.0"]))
        row = pc.index(pc.or_(known, values.is_null()), False).as_py()
        if row >= 0:
            raise DataError(
                f"{where}, row {row + 1}: expected 0 or 1 in {name!r}, came {values[row].as_py()!r}. Correct it."
            )
        flags[:, index] = np.asarray(on)
        missing |= np.asarray(values.is_null()) | np.asarray(pc.is_in(lowered, pa.array(["-1", "-1.0"])))
    rows, ids = np.nonzero(flags & ~missing[:, None])
    flat = pa.array(list(columns), pa.string()).take(pa.array(ids))
    return RawLabels(_make_lists(rows, flat, missing), tuple(columns), False, where)


def _read_lists(table: Dataset, column: pa.Array, name: str, names: Sequence[str] | None, where: str) -> RawLabels:
    """A column of lists as lists of names."""
    missing = np.asarray(column.is_null())
    lengths = np.asarray(pc.list_value_length(column).fill_null(0))
    rows = np.repeat(np.arange(len(column)), lengths)
    inner = column.flatten()
    if names is not None and not pa.types.is_string(inner.type) and bool(np.all(lengths[~missing] == len(names))):
        numbers = np.asarray(inner).astype(float)
        if np.isin(numbers, (0, 1)).all():
            on = numbers == 1
            ids = np.tile(np.arange(len(names)), int((~missing).sum()))
            flat = pa.array(list(names), pa.string()).take(pa.array(ids[on]))
            return RawLabels(_make_lists(rows[on], flat, missing), tuple(names), False, where)
    feature = getattr(table.features[name], "feature", None)
    flat, declared, numeric = _read_names(feature, inner, name, where, "classification", None)
    holes = np.asarray(flat.is_null())
    if holes.any():
        raise DataError(
            f"{where}, row {rows[holes][0] + 1}: expected names in the list in {name!r}, came an empty one. Remove it."
        )
    return RawLabels(_make_lists(rows, flat, missing), declared, numeric, where)


def _split_cells(column: pa.Array, separator: str) -> pa.Array:
    """Text cells with several labels as lists; an empty cell has none, a null one is missing."""
    missing = np.asarray(column.is_null())
    parts = pc.split_pattern(column, separator)
    rows = np.repeat(np.arange(len(column)), np.asarray(pc.list_value_length(parts).fill_null(0)))
    flat = pc.utf8_trim_whitespace(parts.flatten())
    filled = np.asarray(pc.greater(pc.binary_length(flat), 0))
    return _make_lists(rows[filled], flat.filter(pa.array(filled)), missing)


def _make_lists(rows: np.ndarray, flat: pa.Array, missing: np.ndarray) -> pa.Array:
    """Lists from their flat items and the row of each, in ascending order of rows."""
    lengths = np.bincount(rows, minlength=len(missing)) if len(missing) else np.zeros(0, dtype=np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), flat.cast(pa.string()), mask=pa.array(missing))


def is_unlabelled(raw: RawLabels, known: Sequence[str] = ()) -> bool:
    """Say whether a split as a whole has no labels: nothing, or -1 everywhere where train knows no -1.

    Example:
        >>> is_unlabelled(RawLabels(pa.array(["-1", "-1"]), None, True, "test"))
        True
    """
    values = raw.values
    if values.null_count == len(values):
        return True
    if pa.types.is_floating(values.type):
        return "-1" not in known and bool(pc.all(pc.equal(values, -1.0)).as_py())
    if pa.types.is_list(values.type):
        return False
    unique = {value for value in pc.unique(values).to_pylist() if value is not None}
    return unique <= {"-1", "-1.0"} and not unique & set(known)
