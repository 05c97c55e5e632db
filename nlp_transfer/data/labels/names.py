"""One label a row as names, whatever type the column has; what all kinds of labels share."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel

from nlp_transfer.contracts import TaskKind
from nlp_transfer.data.checks import find_visible
from nlp_transfer.data.spelling import NUMBER, read_order, spell, spell_alike, spell_column
from nlp_transfer.errors import DataError, LabelError

__all__ = [
    "BOOLEANS",
    "INTEGER",
    "RawLabels",
    "combine_chunks",
    "list_unique",
    "map_unique",
    "read_names",
    "read_texts",
    "settle_names",
]

INFINITE = re.compile(r"\s*[+-]?inf(inity)?\s*", re.IGNORECASE)
"""How text files write a number without end."""

INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
BOOLEANS, FLAGS = ("False", "True"), ("0", "1")


@dataclass(frozen=True)
class RawLabels:
    """The labels of one table before they become ids.

    Attributes:
        values: Names as strings (classification, ordinal), lists of names (multi_label) or doubles (regression),
            one a row; null where the label is missing.
        declared: Names in the order that the source declares (`ClassLabel`, several 0/1 columns); None for none.
        numeric: Whether the source holds numbers, or other values that have an order of their own, not words.
        where: The table, for messages.
        is_stated: Whether the source says yes or no to every label of a row (0/1 columns and lists), so that a row
            without any is known to have none.
        placeholder: What the source writes in place of a missing label, for messages; empty where it writes nothing.
        order: Names in the order of an ordered categorical, low to high; None where the source has none.
        respelled: What the source writes to the name that it got, where a text is spelled as the value that it is.
        warnings: What the user may want to change, one sentence each.
    """

    values: pa.Array
    declared: tuple[str, ...] | None
    numeric: bool
    where: str
    is_stated: bool = False
    placeholder: str = ""
    order: tuple[str, ...] | None = None
    respelled: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def missing(self) -> np.ndarray:
        """Rows without a label: bool, shape (N,)."""
        return np.asarray(self.values.is_null())


def combine_chunks(column: pa.ChunkedArray) -> pa.Array:
    """One array from the chunks of a column."""
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def map_unique(column: pa.Array, texts: Mapping[Any, str | None]) -> pa.Array:
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
        Names to the letter, null where missing; the order that the source declares, None for none; whether they have
        an order of their own, as numbers, booleans, times and intervals do.

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
    values = read_texts(column, name, where)
    unique = list_unique(values)
    endless = [value for value in unique if INFINITE.fullmatch(value)]
    finite = [value for value in unique if value not in endless]
    if kind != "multi_label" and names is None and endless and all(NUMBER.fullmatch(value) for value in finite):
        # As columns of numbers have it: a csv holds the word.
        _refuse_fractions(values, endless, name, where)
    is_number = pa.types.is_floating(column.type) or all(NUMBER.fullmatch(value) for value in unique)
    if kind == "classification" and names is None and is_number:
        _refuse_fractions(values, [value for value in unique if not float(value).is_integer()], name, where)
    return values, None, bool(unique) and read_order(unique) is not None


def read_texts(column: pa.Array, name: str, where: str, *, blank: bool = False) -> pa.Array:
    """Read the values of a column of any type as texts.

    Args:
        column: The column.
        name: Its name.
        where: The table, for messages.
        blank: Whether empty texts and white space stay as they are; otherwise they are missing.

    Returns:
        Texts to the letter, null where missing; other values as `spell_column` spells them.

    Raises:
        DataError: The type has no names or numbers, or bytes are no text.
    """
    kind = column.type
    if not blank and (pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_float64(kind)):
        column = column.dictionary_encode()  # Labels are few: each is looked at once.
        values = _clear_blank(spell_column(column.dictionary)).take(column.indices)
        return values.cast(pa.string())
    try:
        values = spell_column(column)
    except TypeError:
        raise DataError(
            f"{where}: expected names or numbers in {name!r}, came {column.type}. Convert the column."
        ) from None
    except ValueError as error:
        raise DataError(
            f"{where}, row {error}: expected text in {name!r}, came bytes that are no UTF-8. Convert the column."
        ) from None
    return values if blank else _clear_blank(values)


def _clear_blank(values: pa.Array) -> pa.Array:
    """Texts, null in place of one in which there is nothing to see."""
    return pc.if_else(pa.array(find_visible(values)), values, pa.scalar(None, pa.string()))


def list_unique(values: pa.Array) -> list[str]:
    """The different texts of a column, in the order in which they occur."""
    return [str(value) for value in pc.unique(values).to_pylist() if value is not None]


def settle_names(raw: RawLabels, known: Sequence[str] | None) -> RawLabels:
    """Give every value the one name that it has in all file formats.

    Args:
        raw: Labels to the letter.
        known: Names that are settled: ``task.labels``, the labels of train, or a stored label contract. A value that is
            one of them to the letter is that one; else it is the one that is the same value.

    Returns:
        The labels under the names that are known, or else as `spell_alike` spells them. A contract of the names 0 and
        1, as booleans once had them, takes true and false for 1 and 0, and the other way round.
    """
    if raw.declared is not None or pa.types.is_floating(raw.values.type):
        return raw
    is_list = pa.types.is_list(raw.values.type)
    flat = raw.values.flatten() if is_list else raw.values
    unique = list_unique(flat)
    names = spell_alike(unique)
    if known is not None:
        names = _match_known(names, known)
    order = raw.order and tuple(names.get(name, name) for name in raw.order)
    respelled = {written: name for written, name in names.items() if written != name}
    if not respelled:
        return replace(raw, order=order)
    named = map_unique(flat, {**names})
    if is_list:
        named = pa.ListArray.from_arrays(raw.values.offsets, named, mask=raw.values.is_null())
    return replace(raw, values=named, order=order, respelled=respelled)


def _match_known(names: Mapping[str, str], known: Sequence[str]) -> dict[str, str]:
    """Each text to the known name that it is, or is the same value as; to its spelling where there is none."""
    by_value: dict[str, str | None] = {}
    for name in known:  # A value that two names write, as 1.0 and 1 do, stands for neither.
        by_value[spell(name)] = None if spell(name) in by_value else name
    found = {}
    for written, spelled in names.items():
        value = spell(written)
        is_other = written in known or value not in by_value
        found[written] = (written if written in known else spelled) if is_other else by_value[value] or written
    strange = {written for written, name in found.items() if name not in known}
    for said, meant in ((BOOLEANS, FLAGS), (FLAGS, BOOLEANS)):
        values = dict(zip(said, meant, strict=True))
        if set(by_value) == set(meant) and {spell(written) for written in strange} <= set(said):
            found |= {written: by_value[values[spell(written)]] or written for written in strange}
    return found


def _refuse_fractions(values: pa.Array, fractions: Sequence[str], name: str, where: str) -> None:
    """Refuse numbers that look like a quantity where classes are expected."""
    if fractions:
        row = pc.index(values, fractions[0]).as_py() + 1
        raise DataError(
            f"{where}, row {row}: expected classes in {name!r}, came the number {fractions[0]}. Say "
            "task.kind=regression to predict it, or list the classes in task.labels."
        )
