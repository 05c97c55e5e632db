"""Labels of one domain, texts of another: which rows are whose, and texts that have no labels."""

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
from nlp_transfer.data.parts import Part, choose_side
from nlp_transfer.data.sample import draw_splits
from nlp_transfer.data.sources import Source, open_split
from nlp_transfer.data.spelling import spell_column
from nlp_transfer.data.tables import get_arrow_table
from nlp_transfer.errors import DataError
from nlp_transfer.recipe.schema import DataConfig

__all__ = ["prepare_texts", "read_sides", "read_unlabelled", "separate_domains"]


def read_sides(opened: Source, data: DataConfig) -> dict[str, np.ndarray]:
    """Read on which side each row stands.

    Args:
        opened: The tables of the source.
        data: Names the column, the source domains and the target.

    Returns:
        Split name to ``source``, ``target`` or an empty text, for other domains, shape (N,). Empty without
        ``data.domain``.

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
    source, target = data.source_domains, data.target_domains
    for key, named in (("source", source), ("target", target)):
        if unknown := [name for name in named if name not in known]:
            raise DataError(
                f"data.{key}: expected values of the column {data.domain!r}, came {list_names(unknown)}. It holds: "
                f"{list_names(known)}."
            )
    sides = dict.fromkeys(source or known, "source") | dict.fromkeys(target, "target")
    return {split: np.array([sides.get(name, "") for name in names], dtype=object) for split, names in found.items()}


def separate_domains(parts: dict[str, Part], data: DataConfig, facts: DataFacts) -> Part | None:
    """Leave source rows in train and validation and target rows in test; give the target's rows of train.

    Where the source has no test split, one is drawn from the target's rows, without a look at their labels.

    Args:
        parts: By split, with the sides of their rows; changed in place.
        data: Names the domains.
        facts: Gets what was done.

    Returns:
        The texts without labels: theirs are dropped here. None without ``data.domain``.

    Raises:
        DataError: A side has no rows.
    """
    if data.domain is None:
        return None
    num_rows = sum(part.table.num_rows for part in parts.values())
    texts = _take_side(parts["train"], "target")
    for split, part in list(parts.items()):
        side = choose_side(split)
        parts[split] = _take_side(part, side)
        if not parts[split].table.num_rows:
            raise DataError(f"{part.where}: expected rows of data.{side} in {split}, came none. Name other domains.")
    if "test" not in parts:
        if not texts.table.num_rows:
            raise DataError(f"{texts.where}: expected rows of data.target, came none. Name another domain.")
        strata = np.zeros(texts.table.num_rows, dtype=np.int64)
        shares = {"test": data.test_share}
        drawn, _ = draw_splits(hash_texts(texts.table)[1], strata, shares, seed=data.seed, where=texts.where)
        parts["test"], texts = texts.take(drawn["test"]), texts.take(drawn["train"])
        facts.drawn.append("test")
        facts.notes.append(
            f"The source has no test split: {len(drawn['test'])} rows were drawn from those of the target (seed "
            f"{data.seed})."
        )
    others = list_names(data.source_domains) if data.source is not None else "the other domains"
    facts.notes.append(
        f"data.domain: test holds the rows of {list_names(data.target_domains)}, train and validation those of "
        f"{others}; {texts.table.num_rows:,} rows of train are texts without labels now."
    )
    left = num_rows - sum(part.table.num_rows for part in (*parts.values(), texts))
    if left:
        facts.dropped["other_domain"] = left
    return replace(texts, raw=None)


def _take_side(part: Part, side: str) -> Part:
    """The rows of a split that stand on one side."""
    return part.take(np.flatnonzero(part.sides == side))


def prepare_texts(table: Dataset, data: DataConfig, *, is_pair: bool, where: str) -> Dataset:
    """Bring texts without labels into the form that the encoding stage reads.

    Args:
        table: As `read_table` gives it.
        data: Names the columns of the labelled rows, which are used where the table has them too.
        is_pair: Whether every example holds two texts.
        where: The table, for messages.

    Returns:
        What `prepare_inference_table` gives.

    Raises:
        DataError: A column is missing or of the wrong type, or a text is empty.
    """
    has_columns = {column for column in (data.text, data.text_b) if column} <= set(table.column_names)
    text, text_b = (data.text, data.text_b) if has_columns else (None, None)
    return prepare_inference_table(table, text=text, text_b=text_b, is_pair=is_pair, where=where)


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
        if data.invalid == "drop":
            table = _drop_empty(table, data.text, facts)
        found = prepare_texts(table, data, is_pair=is_pair, where=where)
        # Labels that happen to be there are nobody's business.
        return found.select_columns([name for name in ("id", "text", "text_b") if name in found.column_names])
    except DataError as error:
        raise DataError(f"data.unlabelled: {error}") from error


def _drop_empty(table: Dataset, text: str | None, facts: DataFacts) -> Dataset:
    """Leave out rows without a text, and count them."""
    usual = next((each for each in table.column_names if each.casefold() == "text"), None)
    name = text if text in table.column_names else usual
    if name is None:
        return table
    empty = find_empty_rows(get_arrow_table(table.select_columns([name])).rename_columns(["text"]))
    if empty.any():
        facts.dropped["empty_unlabelled"] = int(empty.sum())
        table = table.select(np.flatnonzero(~empty))
    return table
