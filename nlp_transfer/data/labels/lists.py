"""Several labels a row: 0/1 columns, lists, and text cells with names in them."""

import ast
import json
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset

from nlp_transfer.data.labels.names import RawLabels, combine_chunks, list_unique, read_names, read_texts
from nlp_transfer.data.spelling import MISSING_WORDS, spell
from nlp_transfer.errors import DataError, LabelError

__all__ = [
    "find_separator",
    "holds_flags",
    "is_list_column",
    "make_lists",
    "read_flags",
    "read_lists",
    "split_cells",
]

ON, OFF, UNKNOWN = ("1", "True"), ("0", "False"), ("-1",)
"""How a 0/1 column says yes, no, and nothing, as `spell` spells it."""

SEPARATORS = ("|", ";", ",", "\t", "\n", "/")
"""What else stands between labels in a cell."""

IN_NAMES = (",", "/")
"""Those of them that names of labels hold too."""

PYTHON_NAME = r"(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
# `['a' 'b']`, which numpy prints, must not pass: Python would read it as the one name "ab".
PYTHON_NAMES = re.compile(rf"\[\s*(?:{PYTHON_NAME}(?:\s*,\s*{PYTHON_NAME})*\s*,?\s*)?\]", re.DOTALL)


def holds_flags(table: Dataset, arrow: pa.Table, name: str, names: Sequence[str] | None) -> bool:
    """Say whether a single column of multi_label is itself a 0/1 column, named after its label.

    Args:
        table: The table as it was read.
        arrow: The same as Arrow has it.
        name: The column.
        names: ``task.labels``.

    Returns:
        True for booleans and whole numbers, and for other numbers and texts that are all 0, 1, true or false.
    """
    if isinstance(table.features[name], ClassLabel) or (names is not None and list(names) != [name]):
        return False
    column = arrow[name]
    if pa.types.is_boolean(column.type) or pa.types.is_integer(column.type):
        return True
    types = pa.types
    if not any(test(column.type) for test in (types.is_string, types.is_floating, types.is_decimal)):
        return False
    unique = {spell(value) for value in list_unique(read_texts(combine_chunks(column), name, ""))}
    return unique <= {*ON, *OFF, *UNKNOWN} and not unique.isdisjoint({*ON, *OFF})


def is_list_column(kind: pa.DataType) -> bool:
    """Say whether a column holds lists."""
    return bool(pa.types.is_list(kind))


def read_flags(arrow: pa.Table, columns: Sequence[str], where: str) -> RawLabels:
    """Read 0/1 columns as lists of their names.

    Args:
        arrow: The columns.
        columns: Their names.
        where: The table, for messages.

    Returns:
        A list of names a row; a row with -1 or nothing in one of the columns has no labels.

    Raises:
        DataError: Something else than 0 and 1; names the row.
    """
    flags = np.zeros((arrow.num_rows, len(columns)), dtype=bool)
    missing = np.zeros(arrow.num_rows, dtype=bool)
    for index, name in enumerate(columns):
        values = read_texts(combine_chunks(arrow[name]), name, where)
        spelled = {value: spell(value) for value in list_unique(values)}
        strange = next((value for value in spelled if spelled[value] not in (*ON, *OFF, *UNKNOWN)), None)
        if strange is not None:
            row = pc.index(values, strange).as_py() + 1
            hint = "Leave the cell empty where it is unknown" if strange in MISSING_WORDS else "Correct it"
            raise DataError(f"{where}, row {row}: expected 0 or 1 in {name!r}, came {strange!r}. {hint}.")
        on, unknown = ([value for value in spelled if spelled[value] in known] for known in (ON, UNKNOWN))
        flags[:, index] = np.asarray(pc.is_in(values, pa.array(on, pa.string())))
        missing |= np.asarray(values.is_null()) | np.asarray(pc.is_in(values, pa.array(unknown, pa.string())))
    rows, ids = np.nonzero(flags & ~missing[:, None])
    flat = pa.array(list(columns), pa.string()).take(pa.array(ids))
    return RawLabels(make_lists(rows, flat, missing), tuple(columns), False, where, is_stated=True)


def read_lists(table: Dataset, column: pa.Array, name: str, names: Sequence[str] | None, where: str) -> RawLabels:
    """Read a column of lists: of names, of ids, or of 0 and 1 with a place for every label.

    Args:
        table: The table as it was read.
        column: Its label column.
        name: That column's name.
        names: ``task.labels``, which says what the places of 0/1 lists mean.
        where: The table, for messages.

    Returns:
        A list of names a row.

    Raises:
        LabelError: The places of 0/1 lists have no names, or another number of names.
        DataError: A list has a hole; names the row.
    """
    missing = np.asarray(column.is_null())
    lengths = np.asarray(pc.list_value_length(column).fill_null(0))
    rows = np.repeat(np.arange(len(column)), lengths)
    inner = column.flatten()
    feature = getattr(table.features[name], "feature", None)
    width = 0 if isinstance(feature, ClassLabel) else _measure_vectors(inner, lengths[~missing], names)
    if width:
        if names is None or len(names) != width:
            came = f"{len(names)} names" if names else "no names"
            raise LabelError(
                f"{where}: expected a name for each of the {width} places in the 0/1 lists of {name!r}, came {came}. "
                "Name them in their order in task.labels."
            )
        on = np.asarray(inner).astype(float) == 1
        ids = np.tile(np.arange(width), int((~missing).sum()))
        flat = pa.array(list(names), pa.string()).take(pa.array(ids[on]))
        return RawLabels(make_lists(rows[on], flat, missing), tuple(names), False, where, is_stated=True)
    flat, declared, numeric = read_names(feature, inner, name, where, "classification", None)
    holes = np.asarray(flat.is_null())
    if holes.any():
        raise DataError(
            f"{where}, row {rows[holes][0] + 1}: expected names in the list in {name!r}, came an empty one. Remove it."
        )
    return RawLabels(make_lists(rows, flat, missing), declared, numeric, where)


def _measure_vectors(inner: pa.Array, lengths: np.ndarray, names: Sequence[str] | None) -> int:
    """The one length of lists that have a 0 or 1 for every label; 0 where they are lists of ids or names."""
    kind = inner.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)) or not len(inner):
        return 0
    width = int(lengths[0])
    values = np.asarray(inner).astype(float)
    if (lengths != width).any() or not np.isin(values, (0, 1)).all():
        return 0
    if width == 1:
        return int(names is not None and len(names) == 1)
    if width == 2 and names is not None and {"0", "1"} <= set(names):
        # Labels that are called 0 and 1 may stand in lists of ids, which never repeat one.
        return width if (values[::2] == values[1::2]).any() else 0
    return width


def split_cells(column: pa.Array, name: str, separator: str, where: str) -> pa.Array:
    """Read text cells with several labels.

    Args:
        column: Texts; an empty one has no labels, a null one is missing.
        name: The column's name.
        separator: What stands between labels. Cells in brackets are lists as JSON or Python writes them.
        where: The table, for messages.

    Returns:
        A list of names a row.

    Raises:
        DataError: A cell in brackets is no list of names, or a cell is the text of a Python set; names the row.
    """
    _refuse_sets(column, where, name)
    trimmed = pc.utf8_trim_whitespace(column)
    in_brackets = pc.and_(pc.starts_with(trimmed, "["), pc.ends_with(trimmed, "]")).fill_null(False)
    bracketed = np.flatnonzero(np.asarray(in_brackets))
    plain = pc.if_else(in_brackets, pa.scalar("", pa.string()), column)
    missing = np.asarray(column.is_null())
    parts = pc.split_pattern(plain, separator)
    rows = np.repeat(np.arange(len(column)), np.asarray(pc.list_value_length(parts).fill_null(0)))
    flat = pc.utf8_trim_whitespace(parts.flatten())
    filled = np.asarray(pc.greater(pc.binary_length(flat), 0))
    rows, flat = rows[filled], flat.filter(pa.array(filled))
    if len(bracketed):
        lists = [_parse_list(trimmed[row].as_py(), f"{where}, row {row + 1}", name) for row in bracketed]
        rows = np.concatenate([rows, np.repeat(bracketed, [len(found) for found in lists])])
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        flat = pa.concat_arrays([flat, pa.array([n for found in lists for n in found], pa.string())]).take(
            pa.array(order)
        )
    return make_lists(rows, flat, missing)


def _refuse_sets(cells: pa.Array, where: str, name: str) -> None:
    """Refuse the text of a Python set, which a comma would tear apart."""
    found = pc.match_substring_regex(pc.utf8_trim_whitespace(cells), r"^(\{\s*['\"].*['\"]\s*\}|set\(\))$")
    row = pc.index(found.fill_null(False), True).as_py()
    if row >= 0:
        raise DataError(
            f"{where}, row {row + 1}: expected labels with commas between them in {name!r}, came the Python set "
            f"{cells[row].as_py()!r}. Write a list, as in sorted(labels), before the table is saved."
        )


def _parse_list(cell: str, where: str, name: str) -> list[str]:
    """Read a cell such as ["joy", "anger"]."""
    found: object = None
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        if PYTHON_NAMES.fullmatch(cell):
            try:
                found = ast.literal_eval(cell)
            except (ValueError, SyntaxError):  # A broken escape inside of a name.
                found = None
    if not isinstance(found, list) or not all(isinstance(item, str) and item.strip() for item in found):
        shown = cell if len(cell) <= 60 else f"{cell[:60]}..."
        raise DataError(
            f'{where}: expected a list of names such as ["joy", "anger"] in {name!r}, came {shown!r}. '
            "Write the names in quotes with commas between them, or leave the brackets out."
        )
    return list(found)


def make_lists(rows: np.ndarray, flat: pa.Array, missing: np.ndarray) -> pa.Array:
    """Make lists from their flat items.

    Args:
        rows: The row of each item, ascending, int, shape (M,).
        flat: M items.
        missing: Rows that have no list, bool, shape (N,).

    Returns:
        N lists of texts.
    """
    lengths = np.bincount(rows, minlength=len(missing)) if len(missing) else np.zeros(0, dtype=np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), flat.cast(pa.string()), mask=pa.array(missing))


def find_separator(raw: RawLabels, name: str, separator: str, names: Sequence[str] | None) -> str | None:
    """Notice cells whose labels are separated by something else than the recipe says.

    Args:
        raw: What `split_cells` made of the column.
        name: The column's name.
        separator: ``data.label_separator``.
        names: ``task.labels`` or a label contract; a name that stands there is whole, whatever it holds.

    Returns:
        A warning where only some cells look like that; None where none does.

    Raises:
        LabelError: No cell has the separator that is set, and others hold another between labels that occur again.
    """
    flat = raw.values.flatten()
    unique = [text for text in list_unique(flat) if names is None or text not in names]
    known = set(unique) | set(names or ())
    is_used = pc.any(pc.greater(pc.list_value_length(raw.values), 1)).as_py()
    found = {other: _find_joint(unique, known, other) for other in SEPARATORS if other != separator}
    found = {other: (joint, is_sure) for other, (joint, is_sure) in found.items() if joint and (is_sure or not is_used)}
    for other, (joint, is_sure) in found.items():
        row = int(np.searchsorted(np.asarray(raw.values.offsets), pc.index(flat, joint[0]).as_py(), side="right"))
        message = (
            f"{raw.where}, row {row}: expected {separator!r} between the labels in {name!r}, came {other!r} in "
            f"{joint[0]!r}, and so in {len(joint)} label{'s' if len(joint) > 1 else ''}. Say "
            f"data.label_separator={other!r}, or list all labels in task.labels if that is the name of one."
        )
        if others := [each for each in found if each != other]:
            message += f" Other cells hold {' and '.join(map(repr, others))}: write one separator everywhere."
        if is_sure and not is_used:
            raise LabelError(message)
        return message
    return None


def _find_joint(unique: Sequence[str], known: set[str], other: str) -> tuple[list[str], bool]:
    """The labels that look like several with another separator between them, and whether that is sure.

    It is where the parts are labels elsewhere, alone or beside others: that tells "joy/anger" from "AC/DC". Names hold
    commas and slashes, but hardly ever the other separators, which are mentioned in any case.
    """
    joint = {text: [part.strip() for part in text.split(other)] for text in unique if other in text}
    joint = {text: parts for text, parts in joint.items() if all(parts)}
    times: dict[str, int] = {}
    for parts in joint.values():
        for part in set(parts):
            times[part] = times.get(part, 0) + 1
    again = {part for part, count in times.items() if count > 1 or part in known}
    sure = [text for text, parts in joint.items() if again.issuperset(parts)]
    if sure or other in IN_NAMES:
        return sure, True
    return list(joint), False
