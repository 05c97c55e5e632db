"""The labels of one table as names or numbers, before a label contract makes ids of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset

from nlp_transfer.contracts import DataFacts, TaskKind
from nlp_transfer.data.label_lists import holds_flags, make_lists, read_flags, read_lists, split_cells
from nlp_transfer.data.label_names import NUMBER, RawLabels, combine_chunks, read_names
from nlp_transfer.data.tables import get_arrow_table
from nlp_transfer.errors import DataError

__all__ = ["is_unlabelled", "list_known", "read_labels", "settle_minus_one"]

MINUS_ONE = frozenset({"-1", "-1.0"})
LARGEST = float(np.finfo(np.float32).max)
"""A model gives its numbers in float32."""

RARE_SHARE = 0.05
"""Below this share of the rows, -1 beside 0, 1, ... stands for a missing label; chosen."""


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
    if len(columns) > 1 or (kind == "multi_label" and holds_flags(table, arrow, columns[0], names)):
        return read_flags(arrow, columns, where)
    name = columns[0]
    column = combine_chunks(arrow[name])
    if pa.types.is_nested(column.type):
        if kind != "multi_label" or not pa.types.is_list(column.type):
            hint = "Say task.kind=multi_label." if pa.types.is_list(column.type) else "Flatten it."
            raise DataError(f"{where}: expected one label a row in {name!r}, came {column.type}. {hint}")
        return read_lists(table, column, name, names, where)
    if kind == "regression":
        return RawLabels(_read_numbers(table, column, name, where), None, True, where)
    if kind == "multi_label" and pa.types.is_string(column.type):
        return RawLabels(split_cells(column, name, separator, where), None, False, where)
    values, declared, numeric = read_names(table.features[name], column, name, where, kind, names)
    placeholder = "-1" if declared is not None and column.null_count < values.null_count else ""
    if kind == "multi_label":
        missing = np.asarray(values.is_null())
        values = make_lists(np.flatnonzero(~missing), values.drop_null(), missing)
    return RawLabels(values, declared, numeric, where, placeholder=placeholder)


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
    row = pc.index(pc.greater(pc.abs(numbers), LARGEST).fill_null(False), True).as_py()
    if row >= 0:
        raise DataError(
            f"{where}, row {row + 1}: expected a number in {name!r} that float32 can hold, up to 3.4e38, came "
            f"{numbers[row].as_py()!r}. Divide the column by a constant."
        )
    return numbers


def list_known(raw: RawLabels) -> list[str]:
    """List the labels of train, as far as they tell a split with labels from one without.

    Args:
        raw: The labels of train.

    Returns:
        The names that occur; of a regression only whether -1 does.
    """
    if pa.types.is_floating(raw.values.type):
        return ["-1"] if pc.any(pc.equal(raw.values, -1.0)).as_py() else []
    values = raw.values.flatten() if pa.types.is_list(raw.values.type) else raw.values
    return [value for value in pc.unique(values).to_pylist() if value is not None]


def is_unlabelled(raw: RawLabels, known: Sequence[str] = ()) -> bool:
    """Say whether a split as a whole has no labels.

    Args:
        raw: The labels of the split.
        known: The labels of train.

    Returns:
        True where there is nothing, -1 everywhere though train knows no -1, or where no row of many labels has any
        though rows of train do; 0/1 columns state that there is none.

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
        return bool(known) and not raw.is_stated and not len(values.flatten())
    unique = {value for value in pc.unique(values).to_pylist() if value is not None}
    return unique <= MINUS_ONE and not unique & set(known)


def settle_minus_one(
    raws: Mapping[str, RawLabels], names: Sequence[str] | None, facts: DataFacts
) -> dict[str, RawLabels]:
    """Decide whether -1 beside the class numbers 0, 1, ... is a class or stands for a missing label.

    GLUE and SNLI write -1 where there is no label; a sentiment may as well be -1, 0 or 1. It counts as missing where
    it is rare, fills a whole split or does not occur in train, and as a class otherwise. ``task.labels`` settles it.

    Args:
        raws: Split name to its labels of a classification.
        names: ``task.labels``.
        facts: Where the decision is said.

    Returns:
        The labels, null in place of a -1 that is no class.
    """
    held = {split: _count_minus_one(raw) for split, raw in raws.items()}
    values = {value for raw in raws.values() for value in pc.unique(raw.values).to_pylist() if value is not None}
    others = {float(value) for value in values - MINUS_ONE if NUMBER.fullmatch(value)}
    is_counted = all(raw.declared is None for raw in raws.values()) and all(NUMBER.fullmatch(value) for value in values)
    mixed = [split for split, count in held.items() if 0 < count < len(raws[split].values)]
    named = names is not None and bool(MINUS_ONE & set(names))
    if not mixed or named or not is_counted or len(others) < 2 or others != set(range(len(others))):
        return dict(raws)
    partly = [split for split, count in held.items() if count < len(raws[split].values)]
    count, rows = sum(held[split] for split in partly), sum(len(raws[split].values) for split in partly)
    where = f"beside 0 to {len(others) - 1} it stands in {count} of {rows} rows"
    is_rare = count < RARE_SHARE * rows
    if names is None and not is_rare and len(partly) == len(raws) and held.get("train"):
        facts.notes.append(f"-1 is read as a class: {where}. Remove these rows if it means that the label is missing.")
        return dict(raws)
    facts.warnings.append(f"-1 is read as a missing label: {where}. If it is a class, name all classes in task.labels.")
    null = pa.scalar(None, pa.string())
    return {
        split: replace(raw, values=pc.if_else(_find_minus_one(raw), null, raw.values), placeholder="-1")
        for split, raw in raws.items()
    }


def _find_minus_one(raw: RawLabels) -> pa.Array:
    """Rows whose label is the number -1: bool."""
    return pc.is_in(raw.values, pa.array(sorted(MINUS_ONE)))


def _count_minus_one(raw: RawLabels) -> int:
    """How many those are."""
    return int(pc.sum(_find_minus_one(raw)).as_py() or 0)
