"""The labels of one table as names or numbers, before a label contract makes ids of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset

from nlp_transfer.contracts import DataFacts, TaskKind
from nlp_transfer.data.arrow_types import explain_column, read_category_order
from nlp_transfer.data.labels.lists import (
    find_separator,
    holds_flags,
    is_list_column,
    make_lists,
    read_flags,
    read_lists,
    split_cells,
)
from nlp_transfer.data.labels.names import RawLabels, combine_chunks, read_names, read_texts, settle_names
from nlp_transfer.data.spelling import MISSING_WORDS, NUMBER, is_bytes
from nlp_transfer.data.tables import get_arrow_table
from nlp_transfer.errors import DataError

__all__ = ["is_unlabelled", "list_known", "read_labels", "settle_minus_one", "warn_missing_words"]

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
    known: Sequence[str] | None = None,
) -> RawLabels:
    """Read the labels of a table, every value under the one name that it has in all file formats.

    Args:
        table: The table as it was read.
        columns: The label column, or several 0/1 columns for multi_label.
        kind: The task.
        separator: What stands between labels in one text cell of multi_label.
        where: The table, for messages.
        names: ``task.labels``.
        known: Names that values may take besides: those of train, where this is another split. See `settle_names`.

    Returns:
        Names or numbers, null where missing. -1 of a `ClassLabel` counts as missing, as GLUE's test splits have it.

    Raises:
        DataError: A value is of a type that the task cannot have.
    """
    arrow = get_arrow_table(table.select_columns(list(columns)))
    for column in columns:
        problem = explain_column(arrow.schema.field(column))
        if problem is not None:
            raise DataError(problem)
    raw = _read_raw(table, arrow, columns, kind, separator=separator, where=where, names=names)
    return settle_names(
        raw, names if known is None else [*(names or ()), *(n for n in known if n not in (names or ()))]
    )


def _read_raw(
    table: Dataset,
    arrow: pa.Table,
    columns: Sequence[str],
    kind: TaskKind,
    *,
    separator: str,
    where: str,
    names: Sequence[str] | None,
) -> RawLabels:
    """The labels to the letter."""
    if len(columns) > 1 or (kind == "multi_label" and holds_flags(table, arrow, columns[0], names)):
        return read_flags(arrow, columns, where)
    name = columns[0]
    column = combine_chunks(arrow[name])
    if is_list_column(column.type):
        if kind != "multi_label":
            raise DataError(
                f"{where}: expected one label a row in {name!r}, came {column.type}. Say task.kind=multi_label."
            )
        return read_lists(table, column, name, names, where)
    if pa.types.is_nested(column.type) and (kind == "multi_label" or not _is_interval(column.type)):
        raise DataError(f"{where}: expected one label a row in {name!r}, came {column.type}. Flatten it.")
    if kind == "regression":
        return RawLabels(_read_numbers(table, column, name, where), None, True, where)
    if (
        kind == "multi_label"
        and not isinstance(table.features[name], ClassLabel)
        and (pa.types.is_string(column.type) or is_bytes(column.type))
    ):
        texts = read_texts(column, name, where, blank=True)
        raw = RawLabels(split_cells(texts, name, separator, where), None, False, where)
        warning = find_separator(raw, name, separator, names)
        return raw if warning is None else replace(raw, warnings=(warning,))
    values, declared, numeric = read_names(table.features[name], column, name, where, kind, names)
    placeholder = "-1" if declared is not None and column.null_count < values.null_count else ""
    if kind == "multi_label":
        missing = np.asarray(values.is_null())
        values = make_lists(np.flatnonzero(~missing), values.drop_null(), missing)
    order = read_category_order(arrow.schema.field(name))
    return RawLabels(values, declared, numeric, where, placeholder=placeholder, order=order)


def _is_interval(kind: pa.DataType) -> bool:
    """Whether a type is that of intervals as pandas writes them into JSON."""
    return pa.types.is_struct(kind) and {"left", "right", "closed"} <= {field.name for field in kind}


def _read_numbers(table: Dataset, column: pa.Array, name: str, where: str) -> pa.Array:
    """A column of numbers as doubles; null where missing or not a number."""
    if isinstance(table.features[name], ClassLabel):
        raise DataError(f"{where}: expected numbers in {name!r}, came a ClassLabel. Say task.kind=classification.")
    if is_bytes(column.type):
        column = read_texts(column, name, where)
    if pa.types.is_string(column.type):
        trimmed = pc.utf8_trim_whitespace(column)
        trimmed = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
        fits = pc.match_substring_regex(trimmed, rf"^{NUMBER.pattern}$").fill_null(True)
        row = pc.index(fits, False).as_py()
        if row >= 0:
            came = trimmed[row].as_py()
            if came in MISSING_WORDS:
                raise DataError(
                    f"{where}, row {row + 1}: expected a number in {name!r}, came the text {came!r}. If the number is "
                    "missing, leave the cell empty: data.invalid=drop then drops its row."
                )
            raise DataError(
                f"{where}, row {row + 1}: expected a number in {name!r}, came {came!r}. "
                "Correct it (a decimal point, not a comma), or say task.kind=classification."
            )
        column = pc.replace_substring_regex(trimmed, r"^\+", "")
    elif not any(
        test(column.type) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    ):
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


def warn_missing_words(raws: Mapping[str, RawLabels], names: Sequence[str] | None, facts: DataFacts) -> None:
    """Warn where a label is a word that stands for a missing value elsewhere, such as ``nan``, beside other labels.

    Args:
        raws: Split name to its labels.
        names: ``task.labels``; a word that stands there is meant.
        facts: Where the warning goes, with the count of rows.
    """
    counts: dict[str, int] = {}
    others = False
    for raw in raws.values():
        if pa.types.is_floating(raw.values.type):
            return
        if raw.declared is not None:
            continue
        flat = raw.values.flatten() if pa.types.is_list(raw.values.type) else raw.values
        for item in pc.value_counts(flat.drop_null()):
            name = str(item["values"].as_py())
            if name in MISSING_WORDS and name not in (names or ()):
                counts[name] = counts.get(name, 0) + int(item["counts"].as_py())
            others |= name not in MISSING_WORDS
    for name, count in counts.items() if others else ():
        facts.warnings.append(
            f'"{name}" is read as a label like any other, in {count} row{"s" if count > 1 else ""}. If it means that '
            "the label is missing, leave these cells empty: data.invalid=drop then drops their rows. If it is a class, "
            "list all classes in task.labels."
        )
