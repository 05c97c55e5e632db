"""From a label column to the label contract: which names there are, in which order, and what each row has."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from nlp_transfer.contracts import LabelSpace, TaskKind
from nlp_transfer.data.columns import find_label_columns
from nlp_transfer.data.delimited import offer_delimiter
from nlp_transfer.data.labels.names import BOOLEANS, INTEGER, RawLabels, combine_chunks, list_unique, map_unique
from nlp_transfer.data.labels.values import is_unlabelled, read_labels
from nlp_transfer.data.spelling import MISSING_WORDS, read_order
from nlp_transfer.data.tables import get_arrow_table
from nlp_transfer.data.textfiles import name_rows
from nlp_transfer.errors import DataError, LabelError

__all__ = [
    "attach_labels",
    "build_label_space",
    "check_declared",
    "check_order",
    "encode_labels",
    "list_names",
    "make_label_array",
    "map_labels",
    "name_by_label_text",
    "rename_labels",
    "sort_naturally",
]


def name_by_label_text(table: Dataset, raw: RawLabels, column: str) -> dict[str, str] | None:
    """Find what the numbers of a ``label`` column are called, where ``label_text`` beside it tells.

    Args:
        table: The table as it was read.
        raw: The labels read from ``column``.
        column: The label column.

    Returns:
        Number (as text) to name; None where there is no ``label_text``, the labels are no integers, or the two
        columns do not go together one to one.
    """
    other = next((name for name in table.column_names if name.lower() == "label_text"), None)
    if other is None or column.lower() != "label" or not raw.numeric or raw.declared is not None:
        return None
    texts = combine_chunks(get_arrow_table(table.select_columns([other]))[other])
    if not pa.types.is_string(texts.type) or not pa.types.is_string(raw.values.type):
        return None
    pairs = pa.table({"number": raw.values, "name": texts}).group_by(["number", "name"]).aggregate([])
    names: dict[str, str] = {}
    for number, name in zip(pairs["number"].to_pylist(), pairs["name"].to_pylist(), strict=True):
        if number is None or number == "-1":
            continue
        if not name or not (INTEGER.fullmatch(number) or number in BOOLEANS) or number in names:
            return None
        names[number] = name
    return names if names and len(set(names.values())) == len(names) else None


def rename_labels(raw: RawLabels, names: Mapping[str, str]) -> RawLabels:
    """Replace numbers by names; a number without a name stays."""
    texts = {value: names.get(value, value) for value in list_unique(raw.values)}
    declared = tuple(names[number] for number in sort_naturally(names))
    return replace(raw, values=map_unique(raw.values, texts), declared=declared, numeric=False)


def sort_naturally(names: Sequence[str] | Mapping[str, str]) -> list[str]:
    """Sort names as a person would: numbers, intervals and spans of time by their value, also inside of text.

    Example:
        >>> sort_naturally(["10", "2", "-1"]), sort_naturally(["item 10", "item 2"])
        (['-1', '2', '10'], ['item 2', 'item 10'])
    """
    places = read_order(names)
    if places is not None:
        return sorted(names, key=lambda name: (places[name], name))
    return sorted(names, key=lambda name: ([_rank_part(part) for part in re.split(r"([0-9]+)", name)], name))


def _rank_part(part: str) -> tuple[int, int, str]:
    """Numbers before text, each among its own."""
    return (0, int(part), "") if re.fullmatch(r"[0-9]+", part) else (1, 0, part)


def build_label_space(raw: RawLabels, kind: TaskKind, *, names: Sequence[str] | None, column: str) -> LabelSpace:
    """Make the label contract from the train split.

    Args:
        raw: The labels of train.
        kind: The task.
        names: ``task.labels``, which fixes the order.
        column: The label column; the name of a regression's target.

    Returns:
        The contract.

    Raises:
        LabelError: The order of the classes is unknown, or ``task.labels`` does not fit the task.
        DataError: There is only one class.
    """
    if names is not None and (len(set(names)) < len(names) or not names or "" in names):
        raise LabelError(f"task.labels: expected different names, came {list(names)}. Name each once.")
    if kind == "regression":
        if names is not None and len(names) != 1:
            raise LabelError(f"task.labels: expected one name for task.kind=regression, came {len(names)}. Remove it.")
        return LabelSpace(kind, (names[0] if names else column,))
    values = raw.values.flatten() if kind == "multi_label" else raw.values
    found = [value for value in pc.unique(values).to_pylist() if value is not None]
    if not found:
        raise DataError(f"{raw.where}: expected labels in {column!r}, came none. Fill the column.")
    ordered = list_in_order(raw, found) if kind == "ordinal" else None
    if names is None and kind == "ordinal" and raw.declared is None and not raw.numeric and ordered is None:
        raise LabelError(
            f"{raw.where}: expected numbers or an order for task.kind=ordinal, came the names "
            f"{list_names(sort_naturally(found))}. Give their order, low to high, in task.labels, or make the column "
            "an ordered categorical."
        )
    space = LabelSpace(kind, tuple(names or raw.declared or ordered or sort_naturally(found)))
    if kind != "multi_label" and len(found) < 2:
        raise DataError(
            f"{raw.where}: expected at least two classes in {column!r}, came only {found[0]!r}. "
            "Add rows of another class, or name another column with data.label."
        )
    return space


def list_in_order(raw: RawLabels, found: Sequence[str]) -> tuple[str, ...] | None:
    """List the labels that occur in the order of an ordered categorical; None where there is none that has them all."""
    if raw.order is None or not set(found) <= set(raw.order):
        return None
    return tuple(name for name in raw.order if name in found)


def check_order(raw: RawLabels, space: LabelSpace) -> None:
    """Refuse a table whose ordered categories stand in another order than the label contract of an ordinal task.

    Raises:
        LabelError: Names both sides.
    """
    if space.kind != "ordinal" or raw.order is None:
        return
    came = [name for name in raw.order if name in space.names]
    if came != [name for name in space.names if name in came]:
        raise LabelError(
            f"{raw.where}: expected the order {list_names(space.names)}, came the ordered categories "
            f"{list_names(came)}. Bring them into the expected order, or give it in task.labels."
        )


def list_names(names: Sequence[str]) -> str:
    """Names for a message, the first ten."""
    return ", ".join(f'"{name}"' for name in names[:10]) + (f", ... ({len(names)})" if len(names) > 10 else "")


def encode_labels(raw: RawLabels, space: LabelSpace) -> np.ndarray:
    """Turn names into class ids.

    Args:
        raw: Labels without missing ones.
        space: The label contract.

    Returns:
        Int64 class ids of shape (N,) (classification, ordinal), float32 of shape (N, C) with 0 and 1
        (multi_label), or float64 of shape (N,) (regression).

    Raises:
        LabelError: A label is not in the contract; names it, and how often it occurs.

    Example:
        >>> space = LabelSpace("classification", ("negative", "positive"))
        >>> encode_labels(RawLabels(pa.array(["positive", "negative"]), None, False, "test.csv"), space)
        array([1, 0])
    """
    if space.kind == "regression":
        return np.asarray(raw.values, dtype=np.float64)
    is_list = pa.types.is_list(raw.values.type)
    flat = raw.values.flatten() if is_list else raw.values
    rows = np.arange(len(raw.values))
    if is_list:
        rows = np.repeat(rows, np.asarray(pc.list_value_length(raw.values).fill_null(0)))
    ids = np.asarray(pc.index_in(flat, pa.array(space.names, pa.string())).fill_null(-1)).astype(np.int64)
    unknown = np.flatnonzero(ids < 0)
    if len(unknown):
        strange = flat.take(pa.array(unknown))
        counts = {str(item["values"].as_py()): item["counts"].as_py() for item in pc.value_counts(strange)}
        first = strange[0].as_py()
        others = f", and {len(counts) - 1} more unknown labels" if len(counts) > 1 else ""
        hint = " If it means that the label is missing, leave the cell empty." if first in MISSING_WORDS else ""
        raise LabelError(
            f"{raw.where}, row {rows[unknown[0]] + 1}: expected one of the labels {list_names(space.names)}, came "
            f'"{first}" (in {counts[str(first)]} rows{others}). Correct the labels, or train with rows of that class.'
            f"{hint}"
        )
    if not is_list:
        return ids
    matrix = np.zeros((len(raw.values), space.num_outputs), dtype=np.float32)
    matrix[rows, ids] = 1
    return matrix


def check_declared(declared: Sequence[str] | None, space: LabelSpace, *, where: str) -> None:
    """Refuse a table that declares other classes, or another order, than the label contract.

    Raises:
        LabelError: Names both sides.
    """
    if declared is None or tuple(declared) == space.names:
        return
    same = sorted(declared) == sorted(space.names)
    what = "the same labels in another order" if same else f"{len(declared)} labels"
    raise LabelError(
        f"{where}: expected the labels {list_names(space.names)} in this order, came {what}: "
        f"{list_names(list(declared))}. Bring them into the expected order, or store the labels as names."
    )


def map_labels(
    table: Dataset,
    space: LabelSpace,
    *,
    label: str | list[str] | None = None,
    label_separator: str = ",",
    where: str,
) -> Dataset:
    """Map the labels of new data by a stored label contract.

    Args:
        table: A table as `read_table` or `prepare_inference_table` gives it.
        space: The contract of the artefact.
        label: The label column, or several 0/1 columns; found by the usual names where absent.
        label_separator: What stands between labels in one text cell of multi_label.
        where: The table, for messages.

    Returns:
        The table with ``label`` as ids, in the place of the column it was read from.

    Raises:
        LabelError: A label is new, or the table declares another count or order of labels; names both sides.
        DataError: There is no label column, or a label is missing; names the row.

    Example:
        >>> table = Dataset.from_dict({"text": ["a joy", "a bore"], "label": ["good", "bad"]})
        >>> map_labels(table, LabelSpace("classification", ("bad", "good")), where="new.csv")["label"][:]
        [1, 0]
    """
    if label is None and space.kind == "regression" and space.names[0] in table.column_names:
        label = space.names[0]
    if label is None and space.kind == "multi_label" and set(space.names) <= set(table.column_names):
        label = list(space.names)
    texts = [name for name in ("text", "text_b") if name in table.column_names]
    columns = find_label_columns(table, label=label, kind=space.kind, texts=texts, where=where)
    if not columns:
        raise DataError(
            f"{where}: expected a column of labels, came {', '.join(table.column_names)}. Name it with data.label."
            f"{offer_delimiter(where)}"
        )
    raw = read_labels(table, columns, space.kind, separator=label_separator, where=where, names=space.names)
    check_order(raw, space)
    names = name_by_label_text(table, raw, columns[0])
    if names and not set(list_unique(raw.values)) <= set(space.names):
        raw = replace(rename_labels(raw, names), declared=None)
    missing = np.flatnonzero(raw.missing)
    if len(missing):
        raise DataError(
            f"{where}, {name_rows(where, missing[:1].tolist())}: expected a label in {columns[0]!r}, came none; so in "
            f"{len(missing)} of {len(table)} rows. Fill or remove them."
        )
    if space.kind == "multi_label" and is_unlabelled(raw, space.names):
        raise DataError(
            f"{where}: expected labels in {columns[0]!r}, came none in the whole table. Fill the column, or say 0 in a "
            "column for every label if there really are none."
        )
    check_declared(raw.declared, space, where=where)
    return attach_labels(table.remove_columns(columns), encode_labels(raw, space))


def attach_labels(table: Dataset, labels: np.ndarray) -> Dataset:
    """Add encoded labels as the column ``label``, replacing one of that name."""
    if "label" in table.column_names:
        table = table.rename_column("label", "source_label")
    return table.add_column("label", make_label_array(labels))


def make_label_array(labels: np.ndarray) -> pa.Array:
    """Encoded labels as Arrow stores them: whole numbers, numbers, or lists of 0 and 1."""
    if labels.ndim == 1:
        return pa.array(labels)
    offsets = np.arange(0, labels.size + 1, labels.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(labels.reshape(-1)))
