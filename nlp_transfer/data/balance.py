"""Added training rows, so that a label does not follow from who a text is about: swapped terms, repeats."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from nlp_transfer.contracts import DataFacts, LabelSpace
from nlp_transfer.data.checks import hash_texts
from nlp_transfer.data.parts import Part
from nlp_transfer.data.spelling import spell_values
from nlp_transfer.data.terms import TermList, read_terms
from nlp_transfer.errors import DataError
from nlp_transfer.recipe.schema import BY_TERMS, DataConfig

__all__ = ["add_rows", "mix_sets", "plan_repeats", "split_groups"]

MOST_REPEATS = 10
"""Times that one row is repeated at most: one text learned by heart stands for nobody. Chosen."""

NO_TERMS = "{key}: no row of train has a term of the shipped list, so that nothing was added."

SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
"""Up to a full stop or a line's end: cuts at abbreviations too, which leaves a shorter piece of the same label."""

FORMS = (("male", "christian", "black", "american", "gay", "deaf", "young"), ("christians", "americans", "gays"))
"""Of each set of adjectives, and of names of groups, one term: any of such a set fits before, or as, the same noun."""

SEPARATORS = (";", "|")
"""What stands between several groups of one cell; the first that occurs in the column counts."""


def add_rows(parts: Mapping[str, Part], data: DataConfig, space: LabelSpace, facts: DataFacts) -> Part:
    """Give train the rows that ``data.augment`` and ``data.balance`` ask for; no row is taken away.

    Args:
        parts: All splits, labels encoded, keys of the texts in place.
        data: What is asked for; drawn with ``data.seed``.
        space: The label contract.
        facts: Gets a note of what was added.

    Returns:
        Train with its own rows first.

    Raises:
        DataError: The column of groups is not there, or no row of train has a group in it.
    """
    train = parts["train"]
    if data.augment != "none":
        train = _add_swapped(train, _collect_keys(parts), data, space, facts)
    if data.balance is not None:
        train = _add_repeats(train, data, space, facts)
    return train


def _collect_keys(parts: Mapping[str, Part]) -> np.ndarray:
    """Keys of the texts of validation and test."""
    held_out = [part.keys[1] for split, part in parts.items() if split != "train"]
    return np.concatenate(held_out) if held_out else np.zeros(0, dtype=np.uint64)


def _add_swapped(train: Part, held_out: np.ndarray, data: DataConfig, space: LabelSpace, facts: DataFacts) -> Part:
    """Train with copies of its rows that name other people; copies that stand in validation or test stay out."""
    assert train.labels is not None
    cut = _find_label(data.swap_sentences, space, train.where)
    terms, random = read_terms(), np.random.default_rng(data.seed)
    sets = mix_sets(terms) if data.augment == "identity_mix" else terms.sets
    names = [name for name in ("text", "text_b") if name in train.table.column_names]
    texts = [train.table[name].to_pylist() for name in names]
    rows: list[int] = []
    copies: list[list[str]] = [[] for _ in names]
    for row, whole in enumerate(zip(*texts, strict=True)):
        for those in [whole, *(_list_sentences(whole, terms) if train.labels[row] == cut else ())]:
            found = list(dict.fromkeys(term for text in those for term in terms.find(text)))
            for others in _draw_swaps(found, sets, data.swap_copies, random):
                rows.append(row)
                for column, text in zip(copies, those, strict=True):
                    column.append(terms.replace(text, others))
    if not rows:
        facts.warnings.append(NO_TERMS.format(key="data.augment"))
        return train
    added = train.take(np.array(rows))
    table = added.table
    for name, column in zip(names, copies, strict=True):
        position = table.column_names.index(name)
        table = table.set_column(position, name, pa.array(column, table.schema.field(name).type))
    added = replace(added, table=table, keys=hash_texts(table))
    kept = np.flatnonzero(~np.isin(added.keys[1], held_out))
    facts.notes.append(
        f"data.augment: train got {len(kept):,} copies of {len(set(rows)):,} rows, with identity terms replaced by "
        f"others{' of their kind' if sets is terms.sets else ''}."
    )
    return _join(train, added.take(kept))


def _find_label(name: str | None, space: LabelSpace, where: str) -> int | None:
    """The number of the label whose texts may be cut."""
    if name is None:
        return None
    if name not in space.names:
        raise DataError(
            f"{where}: data.swap_sentences: expected one of the labels {', '.join(space.names)}, got {name!r}. "
            "Correct it."
        )
    return space.names.index(name)


def _list_sentences(texts: Sequence[str], terms: TermList) -> list[tuple[str, ...]]:
    """Sentences that name people, of a text that has more than one; none of pairs, whose label is of both texts."""
    if len(texts) > 1:
        return []
    sentences = [sentence.strip() for sentence in SENTENCE.findall(texts[0])]
    return [
        (sentence,) for sentence in dict.fromkeys(sentences) if sentence != texts[0].strip() and terms.find(sentence)
    ]


def mix_sets(terms: TermList) -> dict[str, tuple[str, ...]]:
    """Join the sets of a list whose terms can stand for each other whatever they tell of a person.

    Args:
        terms: The shipped list, or one with some of its terms.

    Returns:
        Term to all terms that fit in its place, itself included.

    Example:
        >>> mixed = mix_sets(read_terms())
        >>> "muslim" in mixed["gay"], "muslims" in mixed["gay"], mixed["woman"]
        (True, False, ('man', 'woman'))
    """
    mixed = dict(terms.sets)
    for form in FORMS:
        joined = tuple(term for name in form for term in terms.sets.get(name, ()))
        mixed |= dict.fromkeys(joined, joined)
    return mixed


def _draw_swaps(
    found: Sequence[str], sets: Mapping[str, Sequence[str]], copies: int, random: Any
) -> Iterator[dict[str, str]]:
    """Draw what replaces each term, at most ``copies`` times, no two alike."""
    seen: set[tuple[str, ...]] = set()
    choices = [[other for other in sets[term] if other != term] for term in found]
    for _ in range(copies if found else 0):
        drawn = tuple(each[int(random.integers(len(each)))] for each in choices)
        if drawn not in seen:
            seen.add(drawn)
            yield dict(zip(found, drawn, strict=True))


def _add_repeats(train: Part, data: DataConfig, space: LabelSpace, facts: DataFacts) -> Part:
    """Train with rows repeated until the label says nothing about the group."""
    assert train.labels is not None
    if data.balance == BY_TERMS:
        terms = read_terms()
        columns = [train.table[name].to_pylist() for name in ("text", "text_b") if name in train.table.column_names]
        groups = [sorted({term for text in texts for term in terms.find(text)}) for texts in zip(*columns, strict=True)]
    elif data.balance in train.table.column_names:
        groups = split_groups(train.table[data.balance].to_pylist())
    else:
        raise DataError(
            f"{train.where}: data.balance: expected {BY_TERMS} or a column besides texts and label, got "
            f"{data.balance!r}. Columns: {', '.join(train.table.column_names)}."
        )
    if not any(groups) and data.balance == BY_TERMS:
        facts.warnings.append(NO_TERMS.format(key="data.balance"))
        return train
    if not any(groups):
        raise DataError(f"{train.where}: data.balance: expected rows with a group, found none. Remove the key.")
    rows, short = plan_repeats(groups, train.labels, space.num_outputs, seed=data.seed)
    note = f"data.balance: {len(rows):,} rows of train are repeats, so that labels do not follow from {data.balance}."
    if short:
        shown = ", ".join(short[:5]) + (", ..." if len(short) > 5 else "")
        note += f" {len(short)} groups stay uneven, as they have too few rows of a label: {shown}."
    facts.notes.append(note)
    return _join(train, train.take(rows)) if len(rows) else train


def split_groups(values: Sequence[Any]) -> list[list[str]]:
    """Read a column of groups.

    Args:
        values: One a row: a name, several in a list or with ``;`` or ``|`` between them, or nothing.

    Returns:
        The groups of every row, each once; none where the cell is empty.

    Example:
        >>> split_groups(["old; blind", None, " ", ["young"], 3])
        [['old', 'blind'], [], [], ['young'], ['3']]
    """
    texts = [value for value in values if isinstance(value, str)]
    separator = next((mark for mark in SEPARATORS if any(mark in text for text in texts)), None)
    is_single = separator is None and not any(isinstance(value, list | tuple) for value in values)
    found = []
    read: Sequence[Any] = spell_values(values) if is_single else values
    for value in read:
        if isinstance(value, str):
            members = value.split(separator) if separator else [value]
        else:
            members = list(value) if isinstance(value, list | tuple) else [value]
        named = (str(member).strip() for member in members if member is not None and member == member)
        found.append(list(dict.fromkeys(name for name in named if name)))
    return found


def plan_repeats(
    groups: Sequence[Sequence[str]], labels: np.ndarray, num_classes: int, *, seed: int
) -> tuple[np.ndarray, list[str]]:
    """Choose which rows are repeated so that every group has the classes in the shares that all rows have them.

    Args:
        groups: The groups of each of N rows; a row may have none, or several.
        labels: Class ids, int64, shape (N,).
        num_classes: C.
        seed: Of the order in which rows are repeated.

    Returns:
        Row numbers, a row as often as it is repeated; and the groups that stay uneven, for want of rows.

    Source:
        Kamiran and Calders 2012, section 4.3 (sampling), https://doi.org/10.1007/s10115-011-0463-8. Departures: only
        repeats, so that nothing is lost; rows with several groups count in each, the largest group first; a row is
        repeated 10 times at most.

    Example:
        >>> rows, short = plan_repeats([["a"]] * 4 + [[]] * 4, np.array([1, 1, 1, 0, 0, 0, 0, 1]), 2, seed=0)
        >>> rows.tolist(), short
        ([3, 3], [])
    """
    random = np.random.default_rng(seed)
    shares = np.bincount(labels, minlength=num_classes) / len(labels)
    members: dict[str, list[int]] = {}
    for row, names in enumerate(groups):
        for name in names:
            members.setdefault(name, []).append(row)
    times = np.zeros(len(labels), dtype=np.int64)
    short = []
    for name in sorted(members, key=lambda each: (-len(members[each]), each)):
        rows = np.array(members[name])
        counts = np.bincount(labels[rows], weights=1.0 + times[rows], minlength=num_classes)
        whole = (counts[shares > 0] / shares[shares > 0]).max()
        is_even = True
        for label in np.flatnonzero(shares > 0):
            missing = round(whole * shares[label] - counts[label])
            fitting = random.permutation(rows[labels[rows] == label])
            while missing > 0:
                open_rows = fitting[times[fitting] < MOST_REPEATS]
                if not len(open_rows):
                    is_even = False
                    break
                # Those repeated least go first.
                chosen = open_rows[np.argsort(times[open_rows], kind="stable")][:missing]
                times[chosen] += 1
                missing -= len(chosen)
        if not is_even:
            short.append(name)
    return np.repeat(np.arange(len(labels)), times), short


def _join(first: Part, second: Part) -> Part:
    """Two parts of one split, one behind the other."""
    assert first.labels is not None
    assert second.labels is not None
    keys = tuple(np.concatenate(pair) for pair in zip(first.keys, second.keys, strict=True))
    table = pa.concat_tables([first.table, second.table])
    return replace(first, table=table, labels=np.concatenate([first.labels, second.labels]), keys=keys)  # type: ignore[arg-type]
