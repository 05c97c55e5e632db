"""Labels of one domain, texts of another: which rows are whose, and texts that have no labels."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from nlp_transfer.contracts import DataFacts
from nlp_transfer.data.checks import hash_texts
from nlp_transfer.data.columns import find_empty_rows, prepare_inference_table
from nlp_transfer.data.delimited import offer_delimiter
from nlp_transfer.data.findings import Findings
from nlp_transfer.data.labels.contract import list_names
from nlp_transfer.data.parts import Part
from nlp_transfer.data.sample import draw_splits
from nlp_transfer.data.sources import Source, open_split
from nlp_transfer.data.spelling import spell_column
from nlp_transfer.data.tables import get_arrow_table
from nlp_transfer.errors import DataError
from nlp_transfer.recipe.schema import DataConfig

__all__ = ["list_domains", "read_domains", "read_unlabelled", "separate_domains"]


def list_domains(named: Sequence[str] | str | None) -> list[str]:
    """Write ``data.source`` or ``data.target`` as a list, whether one is named or several."""
    return [named] if isinstance(named, str) else list(named or [])


def read_domains(opened: Source, data: DataConfig) -> dict[str, np.ndarray]:
    """Read which domain each row belongs to.

    Args:
        opened: The tables of the source.
        data: Names the column, the source domains and the target.

    Returns:
        Split name to names of domains, object, shape (N,); the other domains than those of source and target have an
        empty name. Empty without ``data.domain``.

    Raises:
        DataError: There is no such column, or no row of a domain that is named.
    """
    if data.domain is None:
        return {}
    found: dict[str, np.ndarray] = {}
    for split, table in opened.tables.items():
        where = opened.where[split]
        if data.domain not in table.column_names:
            raise DataError(
                f"{where}: expected the column of domains {data.domain!r}, came the columns: "
                f"{', '.join(table.column_names)}. Name it with data.domain.{offer_delimiter(where)}"
            )
        column = get_arrow_table(table.select_columns([data.domain]))[data.domain]
        spelled = pa.chunked_array([spell_column(chunk) for chunk in column.chunks], type=pa.string())
        found[split] = np.asarray(pc.fill_null(spelled, "").to_pylist(), dtype=object)
    known = list(dict.fromkeys(name for names in found.values() for name in names.tolist() if name))
    for key, named in (("source", list_domains(data.source)), ("target", list_domains(data.target))):
        if unknown := [name for name in named if name not in known]:
            raise DataError(
                f"data.{key}: expected values of the column {data.domain!r}, came {list_names(unknown)}. It holds: "
                f"{list_names(known)}."
            )
    if data.source is not None:
        kept = {*list_domains(data.source), *list_domains(data.target)}
        found = {split: np.where(np.isin(names, list(kept)), names, "") for split, names in found.items()}
    return found


def separate_domains(parts: dict[str, Part], data: DataConfig, facts: DataFacts) -> Part | None:
    """Leave source rows in train and validation and target rows in test; give the target's rows of train.

    Where the source has no test split, one is drawn from the target's rows, without a look at their labels.

    Args:
        parts: By split, with the domains of their rows; changed in place.
        data: Names the target.
        facts: Gets what was done.

    Returns:
        The texts without labels: theirs are dropped here. None without ``data.domain``.

    Raises:
        DataError: A side has no rows.
    """
    if data.domain is None:
        return None
    target = list_domains(data.target)
    domains = {split: part.domains for split, part in parts.items() if part.domains is not None}
    is_target = {split: np.isin(names, target) for split, names in domains.items()}
    is_source = {split: (names != "") & ~is_target[split] for split, names in domains.items()}
    rows = {split: int(part.table.num_rows) for split, part in parts.items()}
    texts = parts["train"].take(np.flatnonzero(is_target["train"]))
    for split, part in list(parts.items()):
        kept = np.flatnonzero(is_target[split] if split == "test" else is_source[split])
        if not len(kept):
            side = "target" if split == "test" else "source"
            raise DataError(f"{part.where}: expected rows of data.{side} in {split}, came none. Name other domains.")
        parts[split] = part.take(kept)
    if "test" not in parts:
        if not texts.table.num_rows:
            raise DataError(f"{texts.where}: expected rows of data.target, came none. Name another domain.")
        strata = np.zeros(texts.table.num_rows, dtype=np.int64)
        drawn, _ = draw_splits(
            hash_texts(texts.table)[1], strata, {"test": data.test_share}, seed=data.seed, where=texts.where
        )
        parts["test"], texts = texts.take(drawn["test"]), texts.take(drawn["train"])
        facts.drawn.append("test")
        facts.notes.append(
            f"The source has no test split: {len(drawn['test'])} rows were drawn from those of the target (seed "
            f"{data.seed})."
        )
    named = list_names(target)
    others = list_names(list_domains(data.source)) if data.source is not None else "the other domains"
    facts.notes.append(
        f"data.domain: test holds the rows of {named}, train and validation those of {others}; "
        f"{texts.table.num_rows:,} rows of train are texts without labels now."
    )
    left = sum(rows.values()) - sum(part.table.num_rows for part in parts.values()) - texts.table.num_rows
    if left:
        facts.dropped["other_domain"] = left
    return replace(texts, raw=None)


def read_unlabelled(data: DataConfig, *, is_pair: bool, facts: DataFacts) -> Dataset | None:
    """Read the texts that ``data.unlabelled`` names.

    Args:
        data: Names them, their column and their encoding.
        is_pair: Whether every example holds two texts.
        facts: Gets what was left out.

    Returns:
        Columns ``id``, ``text`` and, of pairs, ``text_b``; None where none are named.

    Raises:
        DataError: They cannot be read, or one is empty.
    """
    if data.unlabelled is None:
        return None
    named = data.model_copy(update={"path": data.unlabelled, "name": None, "revision": None, "splits": None})
    try:
        opened = open_split(named, "train")
        table, where, findings = opened.tables["train"], opened.where["train"], Findings()
        findings.take(opened.findings)
        findings.add_to(facts)
        has_columns = {column for column in (data.text, data.text_b) if column} <= set(table.column_names)
        text, text_b = (data.text, data.text_b) if has_columns else (None, None)
        if data.invalid == "drop":
            table = _drop_empty(table, text, facts)
        found = prepare_inference_table(table, text=text, text_b=text_b, is_pair=is_pair, where=where)
        # Labels that happen to be there are nobody's business.
        return found.select_columns([name for name in ("id", "text", "text_b") if name in found.column_names])
    except DataError as error:
        raise DataError(f"data.unlabelled: {error}") from error


def _drop_empty(table: Dataset, text: str | None, facts: DataFacts) -> Dataset:
    """Leave out rows without a text, and count them."""
    name = text or next((each for each in table.column_names if each.casefold() == "text"), None)
    if name is None:
        return table
    empty = find_empty_rows(get_arrow_table(table.select_columns([name])).rename_columns(["text"]))
    if empty.any():
        facts.dropped["empty_unlabelled"] = int(empty.sum())
        table = table.select(np.flatnonzero(~empty))
    return table
