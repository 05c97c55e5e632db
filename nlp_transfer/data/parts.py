"""One split on its way: read, in the package's columns, without its invalid rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features

from nlp_transfer.contracts import DataFacts
from nlp_transfer.data.checks import find_long_texts
from nlp_transfer.data.columns import (
    build_columns,
    describe_empty,
    find_empty_rows,
    find_label_columns,
    find_text_columns,
)
from nlp_transfer.data.delimited import offer_delimiter
from nlp_transfer.data.labels.contract import list_names, name_by_label_text, rename_labels, sort_naturally
from nlp_transfer.data.labels.names import RawLabels
from nlp_transfer.data.labels.values import (
    is_unlabelled,
    list_known,
    read_labels,
    settle_minus_one,
    warn_missing_words,
)
from nlp_transfer.data.sources import Source
from nlp_transfer.data.spelling import NUMBER
from nlp_transfer.data.textfiles import name_rows
from nlp_transfer.errors import DataError, LabelError
from nlp_transfer.recipe.schema import DataConfig, TaskConfig

__all__ = ["Part", "build_parts", "choose_side", "find_columns"]

SHOWN_ROWS = 5
"""How many rows a message names."""

READINGS = {
    "truncate": "only data.max_length tokens of each are read",
    "head_tail": "only data.max_length tokens of each are read, from its start and its end",
    "windows": "at most data.max_windows windows of data.max_length tokens of each are read",
}
"""What `data.long_text` makes of a text of unusual length."""


@dataclass
class Part:
    """One split between reading and handing on.

    Attributes:
        table: ``id``, texts and further columns.
        features: What those columns are, for `datasets`.
        raw: Labels as the source has them; None where there are none.
        where: The table, for messages.
        labels: Labels by the contract, once there is one.
        keys: What `hash_texts` made of the texts.
        sides: Whether each row is of the ``source``, of the ``target`` or of neither, text, shape (N,); None where
            domains are not told apart.
    """

    table: pa.Table
    features: Features
    raw: RawLabels | None
    where: str
    labels: np.ndarray | None = None
    keys: tuple[np.ndarray, np.ndarray] = field(default_factory=lambda: (np.zeros(0), np.zeros(0)))
    sides: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Self:
        """The same split with some of its rows, in the order given."""
        return replace(
            self,
            table=self.table.take(pa.array(rows)),
            raw=self.raw and replace(self.raw, values=self.raw.values.take(pa.array(rows))),
            labels=None if self.labels is None else self.labels[rows],
            keys=(self.keys[0][rows], self.keys[1][rows]) if len(self.keys[0]) else self.keys,
            sides=None if self.sides is None else self.sides[rows],
        )


def find_columns(
    opened: Source, data: DataConfig, task: TaskConfig, facts: DataFacts
) -> tuple[tuple[str, str | None], list[str]]:
    """The columns of texts and labels, as train has them."""
    train, where = opened.tables["train"], opened.where["train"]
    label = [data.label] if isinstance(data.label, str) else (data.label or [])
    visible = train.remove_columns([name for name in label if name in train.column_names]) if not data.text else train
    if not visible.column_names:
        visible = train
    text, text_b, notes = find_text_columns(visible, text=data.text, text_b=data.text_b, where=where)
    facts.notes += notes
    columns = find_label_columns(train, label=data.label, kind=task.kind, texts=(text, text_b), where=where)
    if not columns:
        raise DataError(
            f"{where}: expected a column of labels (label, target, class, ...), came the columns: "
            f"{', '.join(train.column_names)}. Name it with data.label.{offer_delimiter(where)}"
        )
    return (text, text_b), columns


def build_parts(
    opened: Source,
    data: DataConfig,
    task: TaskConfig,
    texts: tuple[str, str | None],
    columns: Sequence[str],
    facts: DataFacts,
    sides: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> dict[str, Part]:
    """Bring every split into the package's form, without its invalid rows; those of the target need no label."""
    parts: dict[str, Part] = {}
    names = _find_label_texts(opened, data, task, columns, facts)
    raws = _read_raws(opened, data, task, columns)
    if task.kind == "classification":
        raws = settle_minus_one(raws, task.labels, facts)
    _note_labels(raws, task, names, facts)
    known = list_known(raws["train"]) if "train" in raws else []
    for split, table in opened.tables.items():
        where = opened.where[split]
        raw = raws.get(split)
        if raw is not None and is_unlabelled(raw, known):
            raw = None
        if raw is not None and names:
            raw = rename_labels(raw, names)
        if raw is None and split != "test":
            raise DataError(
                f"{where}: expected labels in {', '.join(columns)}, came none in the whole split. Fill the column, or "
                f"name other splits in data.splits: validation is needed to choose, train to learn."
            )
        if raw is None:
            facts.notes.append("The test split has no labels: it is predicted, not scored.")
        built, features = build_columns(
            table, text=texts[0], text_b=texts[1], label=columns, id_column=data.id, where=where
        )
        _refuse_numbers(built, texts, where)
        part = Part(built, features, raw, where, sides=sides.get(split))
        parts[split] = _drop_invalid(part, data, facts, choose_side(split))
        _note_part(split, parts[split], data, facts)
    return parts


def _note_labels(raws: dict[str, RawLabels], task: TaskConfig, names: dict[str, str] | None, facts: DataFacts) -> None:
    """Say how labels are spelled where the source spells them otherwise, and what of them looks odd."""
    for raw in raws.values():
        facts.warnings += raw.warnings
    warn_missing_words(raws, task.labels, facts)
    train = raws.get("train")
    if train is None:
        return
    if train.respelled and not names:
        shown = [f'"{written}" as "{name}"' for written, name in list(train.respelled.items())[:3]]
        more = ", ..." if len(train.respelled) > 3 else ""
        facts.notes.append(f"Labels are spelled alike in all file formats: {', '.join(shown)}{more}.")
    if task.kind == "ordinal" and task.labels is None and train.declared is None and train.order is not None:
        facts.notes.append(f"The order of the labels is that of the ordered categories: {list_names(train.order)}.")


def _read_raws(opened: Source, data: DataConfig, task: TaskConfig, columns: Sequence[str]) -> dict[str, RawLabels]:
    """The labels of every split that has the columns."""
    raws: dict[str, RawLabels] = {}
    names = task.labels
    known: list[str] | None = None
    for split, table in opened.tables.items():
        if not set(columns) <= set(table.column_names):
            continue
        raws[split] = read_labels(
            table,
            columns,
            task.kind,
            separator=data.label_separator,
            where=opened.where[split],
            names=names,
            known=known,
        )
        if split == "train" and task.kind != "regression":
            known = sort_naturally(list_known(raws[split]))
        if split == "train" and task.kind == "multi_label" and names is None:
            # Whether a 0 or 1 is a label's name or says that there is one, a small split alone may not tell.
            names = known if known and ({"0", "1"} <= set(known) or known == list(columns)) else None
    return raws


def _find_label_texts(
    opened: Source, data: DataConfig, task: TaskConfig, columns: Sequence[str], facts: DataFacts
) -> dict[str, str] | None:
    """What numeric labels are called by a ``label_text`` column; all splits have to agree."""
    if task.kind not in ("classification", "ordinal") or columns[0].lower() != "label":
        return None
    found: dict[str, str] = {}
    for split, table in opened.tables.items():
        if columns[0] not in table.column_names:
            continue
        where = opened.where[split]
        raw = read_labels(table, columns, task.kind, separator=data.label_separator, where=where, names=task.labels)
        names = name_by_label_text(table, raw, columns[0])
        if names is None:
            if split == "train":
                return None
            continue
        for number, name in names.items():
            if found.setdefault(number, name) != name:
                raise LabelError(
                    f'{where}: expected label {number} to mean "{found[number]}" as in train, came "{name}". '
                    "Give both splits one mapping."
                )
    facts.notes.append(f"The names of the labels come from label_text: {list_names(list(found.values()))}.")
    return found


def _refuse_numbers(table: pa.Table, texts: tuple[str, str | None], where: str) -> None:
    """Refuse a column in which every text is a number: it is an id or a score."""
    for name, source in zip(("text", "text_b"), texts, strict=True):
        if source is None:
            continue
        column = table[name]
        for piece in (column.slice(0, 1000), column):
            filled = piece.filter(pc.greater(pc.binary_length(piece), 0))
            numbers = pc.match_substring_regex(pc.utf8_trim_whitespace(filled), rf"^{NUMBER.pattern}$")
            if not len(filled) or not pc.all(numbers).as_py():
                break
        else:
            raise DataError(
                f"{where}: expected texts in column {source!r}, came numbers only. Name another with data.{name}."
            )


def choose_side(split: str) -> str:
    """The side whose rows a split keeps, where domains are told apart."""
    return "target" if split == "test" else "source"


def _drop_invalid(part: Part, data: DataConfig, facts: DataFacts, side: str) -> Part:
    """Refuse, or drop and count, rows without a text or, where it is read, without a label."""
    empty = find_empty_rows(part.table)
    missing = (part.raw.missing if part.raw is not None else np.zeros(len(empty), dtype=bool)) & ~empty
    if part.sides is not None:
        missing &= part.sides == side
    invalid = empty | missing
    if not invalid.any():
        return part
    if data.invalid == "error":
        problems = []
        placeholder = part.raw.placeholder if part.raw is not None else ""
        none = f"none ({placeholder})" if placeholder else "none"
        for mask, expected, came in (
            (empty, "a text", describe_empty(part.table, np.flatnonzero(empty))),
            (missing, "a label", none),
        ):
            rows = np.flatnonzero(mask)
            if len(rows):
                shown = name_rows(part.where, rows.tolist(), most=SHOWN_ROWS).removeprefix("rows ").removeprefix("row ")
                plural = "s" if len(rows) > 1 else ""
                problems.append(f"expected {expected}, came {came} in {len(rows)} row{plural} ({shown})")
        raise DataError(f"{part.where}: {'; '.join(problems)}. Fill or remove them, or say data.invalid=drop.")
    for reason, mask in (("empty_text", empty), ("missing_label", missing)):
        if mask.any():
            facts.dropped[reason] = facts.dropped.get(reason, 0) + int(mask.sum())
    if invalid.all():
        raise DataError(f"{part.where}: expected rows with a text and a label, came none. Correct the columns.")
    return part.take(np.flatnonzero(~invalid))


def _note_part(split: str, part: Part, data: DataConfig, facts: DataFacts) -> None:
    """Mention texts of unusual length, ids that repeat, and rows that have none of many labels."""
    num_long, longest = find_long_texts(part.table)
    if num_long:
        facts.warnings.append(
            f"{split}: {num_long} text{'s' if num_long > 1 else ''} of more than a million bytes (the longest has "
            f"{longest:,}); {READINGS[data.long_text]}."
        )
    if data.id is not None:
        repeated = part.table.num_rows - pc.count_distinct(part.table["id"]).as_py()
        if repeated:
            facts.warnings.append(f"{split}: {repeated} ids in {data.id!r} repeat an earlier one.")
    if part.raw is not None and pa.types.is_list(part.raw.values.type):
        bare = pc.sum(pc.equal(pc.list_value_length(part.raw.values), 0)).as_py() or 0
        if bare:
            facts.notes.append(f"{split}: {bare} rows have none of the labels.")
