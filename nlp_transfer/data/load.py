"""From a source to `Splits`: read, find columns, clean, map labels, draw, check, count."""

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from datasets import Dataset, Features, List, Value

from nlp_transfer.contracts import SPLITS, DataFacts, LabelSpace, Splits
from nlp_transfer.data.balance import add_rows
from nlp_transfer.data.checks import count_conflicts, count_leaks, hash_texts
from nlp_transfer.data.domains import read_sides, read_unlabelled, separate_domains
from nlp_transfer.data.findings import Findings
from nlp_transfer.data.labels.contract import (
    build_label_space,
    check_declared,
    check_order,
    encode_labels,
    list_names,
    make_label_array,
)
from nlp_transfer.data.parts import Part, build_parts, find_columns
from nlp_transfer.data.sample import draw_splits, select_limit, select_shots
from nlp_transfer.data.sources import open_source
from nlp_transfer.data.tables import store_table
from nlp_transfer.data.target_scale import MOST_COARSE, TargetScale
from nlp_transfer.errors import DataError, LabelError
from nlp_transfer.figures import format_number
from nlp_transfer.recipe.schema import DataConfig, TaskConfig

__all__ = ["load_splits"]

SHOWN_RARE = 5
"""Classes of one text that a warning names; chosen."""

MOST_DISTANT = 1000.0
"""Distance of a target from the median, in spreads of the middle half, from which it is named; chosen."""


def load_splits(
    data: DataConfig, task: TaskConfig, *, seed: int, source: object | None = None, findings: Findings | None = None
) -> Splits:
    """Load a labelled source as train, validation and test.

    Rows stay in their order. Missing splits are drawn from train. Whatever is decided, dropped or found is counted
    in the facts; a table that cannot be used is refused.

    Args:
        data: What to read.
        task: What the labels are.
        seed: ``training.seed``; chooses the rows of ``data.shots`` and nothing else.
        source: What is in memory, instead of ``data.path``: a table in any form that `read_table` takes, such as a
            pandas or polars frame or a dictionary of columns, or a mapping of those by split name.
        findings: Gets what was decided and left out while the tables were read, which the facts say too.

    Returns:
        Three tables, the label contract, and the facts. Test has no ``label`` column where it has no labels.

    Raises:
        DataError: The source or a table in it cannot be used as it stands.
        LabelError: The labels of the splits do not go together.
        StorageError: The machine cannot read or write.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"text": [f"text {n}" for n in range(20)], "label": ["bad", "good"] * 10})
        >>> splits = load_splits(DataConfig(), TaskConfig(), seed=0, source=frame)
        >>> splits.labels.names, splits.facts.rows
        (('bad', 'good'), {'train': 14, 'validation': 2, 'test': 4})
    """
    opened = open_source(data, source)
    facts = DataFacts(source=opened.name)
    opened.findings.add_to(facts)
    if findings is not None:
        findings.take(opened.findings)
    texts, columns = find_columns(opened, data, task, facts)
    sides = read_sides(opened, data)
    parts = build_parts(opened, data, task, texts, columns, facts, sides)
    target = separate_domains(parts, data, facts)
    space = _encode_parts(parts, task, columns, facts)
    for part in parts.values():
        part.keys = hash_texts(part.table)
    _draw_missing(parts, data, space, facts)
    if data.leaks == "drop":
        _drop_leaks(parts, facts)
    _narrow_train(parts, data, space, seed, facts)
    parts["train"] = add_rows(parts, data, space, facts)
    if data.permute_labels:
        parts["train"] = _permute_labels(parts["train"], data.seed, facts)
    # Counted in what is handed on: nothing between train and the others after a drop.
    facts.leaked = _count_leaks(parts)
    _warn_leaks(facts)
    if space.kind == "regression":
        _describe_targets(parts["train"], space, facts)
    _count_rows(parts, space, facts)
    tables = {split: _finish(parts[split]) for split in SPLITS}
    further = read_unlabelled(data, is_pair=texts[1] is not None, facts=facts) if target is None else _finish(target)
    return Splits(tables, space, facts, further)


def _encode_parts(parts: dict[str, Part], task: TaskConfig, columns: Sequence[str], facts: DataFacts) -> LabelSpace:
    """Make the label contract from train and turn all labels into ids."""
    train = parts["train"].raw
    assert train is not None
    space = build_label_space(train, task.kind, names=task.labels, column=columns[0])
    for split, part in parts.items():
        if part.raw is None:
            continue
        if split != "train" and train.declared is not None and part.raw.declared is not None:
            check_declared(part.raw.declared, replace(space, names=train.declared), where=part.where)
        check_order(part.raw, space)
        part.labels = encode_labels(part.raw, space)
        part.raw = None
    for split, part in parts.items():
        if split != "train" and part.labels is not None and space.kind != "regression":
            _refuse_unseen(parts["train"], part, split, space)
    if space.kind == "regression":
        if len(np.unique(np.asarray(parts["train"].labels))) < 2:
            facts.warnings.append(f"train: all targets in {columns[0]!r} are equal; there is nothing to learn.")
    else:
        absent = [name for name, count in _count_labels(parts["train"].labels, space).items() if not count]
        if absent:
            facts.warnings.append(f"train: no rows of the label{'s' if len(absent) > 1 else ''} {list_names(absent)}.")
    _warn_alike(space, facts)
    return space


def _describe_targets(train: Part, space: LabelSpace, facts: DataFacts) -> None:
    """Say in which unit targets are trained, and warn where float32 cannot hold what they differ by."""
    assert train.labels is not None
    scale, largest = TargetScale.measure(train.labels), float(np.abs(train.labels).max())
    is_constant = float(np.ptp(train.labels)) == 0
    name, mean, deviation = list_names(space.names), format_number(scale.mean), format_number(scale.deviation)
    facts.notes.append(
        f"The target {name} is trained, and losses are shown, in standard deviations ({deviation}) from the mean of "
        f"train ({mean}); scores and predictions are in its own unit."
    )
    _warn_outlier(train, name, facts)
    if scale.measure_coarseness(largest) > MOST_COARSE and not is_constant:
        gap = format_number(float(np.spacing(np.float32(largest))))
        facts.warnings.append(
            f"train: the targets in {name} lie around {mean} and differ by {deviation} only; a model gives numbers in "
            f"float32, of which two neighbors lie {gap} apart there. Subtract a constant from the column, such as "
            f"{scale.mean:.6g}, and add it to what is predicted."
        )


def _warn_outlier(train: Part, name: str, facts: DataFacts) -> None:
    """Name a target that lies beyond all others: it decides mean and deviation, and with them what is learned."""
    assert train.labels is not None
    low, median, high = np.percentile(train.labels, [25, 50, 75])
    distances = np.abs(train.labels - median) / (high - low) if high > low else np.zeros(len(train.labels))
    row = int(distances.argmax())
    if distances[row] > MOST_DISTANT:
        facts.warnings.append(
            f"train, id {train.table['id'][row].as_py()}: the target {format_number(float(train.labels[row]))} in "
            f"{name} lies {format_number(float(distances[row]))} times as far from the median as the middle half of "
            "the targets spreads, and decides their mean and deviation alone. Correct it, or leave the row out."
        )


def _refuse_unseen(train: Part, part: Part, split: str, space: LabelSpace) -> None:
    """Refuse a declared label that occurs in another split, but not in train."""
    seen, counts = _count_labels(train.labels, space), _count_labels(part.labels, space)
    for name, count in counts.items():
        if count and not seen[name]:
            raise LabelError(
                f'{part.where}: expected only labels that train has, came "{name}" in {count} rows of {split}. '
                "Add train rows of that label, or remove these."
            )


def _warn_alike(space: LabelSpace, facts: DataFacts) -> None:
    """Mention labels that differ in case, spaces or Unicode form only: mostly one label written twice."""
    groups: dict[str, list[str]] = {}
    for name in space.names:
        groups.setdefault(" ".join(unicodedata.normalize("NFKC", name).casefold().split()), []).append(name)
    for names in groups.values():
        if len(names) > 1:
            # One letter may be written as one character or as two, which look alike.
            is_form = len({" ".join(name.casefold().split()) for name in names}) == len(names)
            how = "Unicode form" if is_form else "case or spaces"
            facts.warnings.append(f"The labels {list_names(names)} differ in {how} only.")


def _count_labels(labels: np.ndarray | None, space: LabelSpace) -> dict[str, int]:
    """Examples of every label; empty for a regression."""
    if labels is None or space.kind == "regression":
        return {}
    counts = labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=space.num_outputs)
    return {name: int(count) for name, count in zip(space.names, counts, strict=True)}


def _draw_missing(parts: dict[str, Part], data: DataConfig, space: LabelSpace, facts: DataFacts) -> None:
    """Draw the splits that the source does not have."""
    shares = {"test": data.test_share, "validation": data.validation_share}
    shares = {split: share for split, share in shares.items() if split not in parts}
    train = parts["train"]
    assert train.labels is not None
    if not shares:
        if space.is_categorical:
            counts = np.bincount(train.labels, minlength=space.num_outputs)
            _warn_rare(train, np.flatnonzero(counts == 1).tolist(), space, facts, is_numbered=data.id is None)
        return
    strata = train.labels if space.is_categorical else np.zeros(len(train.labels), dtype=np.int64)
    drawn, bare = draw_splits(train.keys[1], strata, shares, seed=data.seed, where=train.where)
    for split, rows in drawn.items():
        parts[split] = train.take(rows)
    facts.drawn = [split for split in SPLITS if split in shares]
    for split in facts.drawn:
        how = "stratified, " if space.is_categorical else ""
        facts.notes.append(
            f"The source has no {split} split: {len(drawn[split])} rows were drawn from train ({how}seed {data.seed})."
        )
    if space.is_categorical:
        _warn_rare(train, bare, space, facts, is_numbered=data.id is None)


def _warn_rare(train: Part, classes: Sequence[int], space: LabelSpace, facts: DataFacts, *, is_numbered: bool) -> None:
    """Name the classes of a single text: a mistyped label, a header among the rows, or too few rows."""
    assert train.labels is not None
    if not classes or len(classes) == len(np.unique(train.labels)):
        return
    shown = []
    for label in classes[:SHOWN_RARE]:
        rows = np.flatnonzero(train.labels == label)
        key = train.table["id"][int(rows[0])].as_py()
        # Numbers of rows begin with 0 in a table, and with 1 in messages.
        place = f"row {int(key) + 1}" if is_numbered else f"id {key}"
        shown.append(f'"{space.names[label]}" ({f"{len(rows)} rows from" if len(rows) > 1 else "1 row:"} {place})')
    more = f" and {len(classes) - len(shown)} more" if len(classes) > len(shown) else ""
    what = f"{len(classes)} classes have one text each" if len(classes) > 1 else "a class has one text only"
    facts.warnings.append(
        f"{train.where}: {what}, which stays in train: {', '.join(shown)}{more}. It can hardly be learned, and no "
        "score shows it. Correct the label, or add rows."
    )


def _count_leaks(parts: dict[str, Part]) -> dict[str, dict[str, int]]:
    """Leaks between all splits."""
    pairs = [("train", "validation"), ("train", "test"), ("validation", "test")]
    return count_leaks({split: part.keys for split, part in parts.items()}, pairs)


def _drop_leaks(parts: dict[str, Part], facts: DataFacts) -> None:
    """Drop the train rows whose text also stands in validation or test."""
    train = parts["train"]
    held_out = np.concatenate([parts["validation"].keys[1], parts["test"].keys[1]])
    kept = np.flatnonzero(~np.isin(train.keys[1], held_out))
    if len(kept) == train.table.num_rows:
        return
    facts.dropped["leaked"] = train.table.num_rows - len(kept)
    if not len(kept):
        raise DataError(f"{train.where}: expected train rows that are not in validation or test, came none. Add rows.")
    parts["train"] = train.take(kept)


def _warn_leaks(facts: DataFacts) -> None:
    """Say in words where splits share texts."""
    for pair, counts in facts.leaked.items():
        first, second = pair.split("/")
        way_out = "data.leaks=drop removes them from train" if first == "train" else f"Remove them from {first}"
        facts.warnings.append(
            f"{counts['exact'] + counts['near']:,} of the rows of {second} are also in {first}: {counts['exact']:,} "
            f"word for word, {counts['near']:,} but for case, punctuation and spacing. {way_out}."
        )


def _narrow_train(parts: dict[str, Part], data: DataConfig, space: LabelSpace, seed: int, facts: DataFacts) -> None:
    """Apply `data.limit`, then `data.shots`."""
    if data.limit is not None:
        num_rows = parts["train"].table.num_rows
        if data.limit > num_rows:
            facts.notes.append(f"data.limit is {data.limit}, but train has {num_rows} rows: all are used.")
        parts["train"] = parts["train"].take(select_limit(num_rows, data.limit))
    if data.shots is not None:
        if not space.is_categorical:
            raise DataError(
                f"data.shots: expected a task with one class a row, came task.kind={space.kind}. Use data.limit."
            )
        labels = parts["train"].labels
        assert labels is not None
        few = [name for name, count in _count_labels(labels, space).items() if 0 < count < data.shots]
        if few:
            facts.warnings.append(f"data.shots: fewer than {data.shots} rows, all used, of {list_names(few)}.")
        parts["train"] = parts["train"].take(select_shots(labels, data.shots, seed))
    if data.limit is not None and space.is_categorical:
        lost = [name for name, count in _count_labels(parts["train"].labels, space).items() if not count]
        if space.num_outputs - len(lost) < 2:
            raise DataError(f"data.limit: expected rows of two classes or more, {data.limit} leaves one. Raise it.")
        if lost:
            facts.warnings.append(f"data.limit={data.limit} leaves no train rows of {list_names(lost)}.")


def _permute_labels(train: Part, seed: int, facts: DataFacts) -> Part:
    """Give every train row the label of another one drawn at random; how often each label occurs stays."""
    assert train.labels is not None
    facts.warnings.append(
        f"data.permute_labels: the labels of train were permuted (seed {seed}), so they say nothing about the texts. "
        "What is trained on them is for trying out guards, and for nothing else."
    )
    order = np.random.default_rng(seed).permutation(len(train.labels))
    return replace(train, labels=train.labels[order])


def _count_rows(parts: dict[str, Part], space: LabelSpace, facts: DataFacts) -> None:
    """Count rows, labels and conflicting duplicates of what is handed on."""
    facts.rows = {split: parts[split].table.num_rows for split in SPLITS}
    for split in SPLITS:
        if parts[split].labels is not None:
            facts.label_counts[split] = _count_labels(parts[split].labels, space)
    train = parts["train"]
    if space.kind != "regression" and train.labels is not None:
        facts.conflicting = count_conflicts(train.keys[0], train.labels)
        if facts.conflicting:
            facts.warnings.append(
                f"train: {facts.conflicting} rows have a text that also occurs with another label. Look at them."
            )


def _finish(part: Part) -> Dataset:
    """The split as the next stage reads it: id, texts, label, then the rest."""
    table, features = part.table, dict(part.features)
    if part.labels is None:
        return store_table(table, Features(features))
    kind = "float64" if part.labels.dtype == np.float64 else "int64"
    position = 3 if "text_b" in features else 2
    table = table.add_column(position, "label", make_label_array(part.labels))
    label = List(Value("float32")) if part.labels.ndim == 2 else Value(kind)
    ordered = list(features.items())
    ordered.insert(position, ("label", label))
    return store_table(table, Features(dict(ordered)))
