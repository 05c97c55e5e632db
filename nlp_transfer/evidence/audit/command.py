"""Whether a classifier treats groups alike: rates of each group, gaps between them, and what one word changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from nlp_transfer.classifier import Classifier
from nlp_transfer.contracts import LabelSpace, Track, track_nothing
from nlp_transfer.data.balance import split_groups
from nlp_transfer.data.columns import find_label_columns, prepare_inference_table
from nlp_transfer.data.delimited import offer_delimiter
from nlp_transfer.data.exchange import read_split
from nlp_transfer.data.findings import Findings
from nlp_transfer.data.labels.contract import map_labels
from nlp_transfer.data.labels.values import read_labels
from nlp_transfer.data.tables import read_table
from nlp_transfer.data.terms import TermList, read_terms
from nlp_transfer.errors import DataError
from nlp_transfer.evaluation.fairness import Decisions, find_worst_groups, measure_gaps, score_groups
from nlp_transfer.evaluation.predictions import predict_labels
from nlp_transfer.evaluation.swaps import Swap, draw_swaps, measure_swaps
from nlp_transfer.evaluation.thresholds import read_thresholds
from nlp_transfer.evidence.audit.result import Audit, claim_audit
from nlp_transfer.recipe.schema import EvaluationConfig

__all__ = ["audit", "find_positive"]

FORMAT = 1
"""Of ``audit.json``."""

MIN_GROUP, MAX_SWAPS = 20, 2000
"""Rows over which a rate must be to be compared; swaps that are scored at most. Chosen."""

NEGATIONS = ("non", "not", "no", "un")


@dataclass(frozen=True)
class _Table:
    """Rows as the audit reads them: texts, and the number of the label of each."""

    name: str
    texts: list[list[str]]
    labels: np.ndarray
    columns: Dataset
    notes: tuple[str, ...]


def audit(
    classifier: Classifier | str | Path,
    data: object,
    *,
    group: str | None = None,
    text: str | None = None,
    text_b: str | None = None,
    label: str | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    sheet: str | None = None,
    positive: str | None = None,
    threshold: float | None = None,
    rename: Mapping[str, str] | None = None,
    split: str = "test",
    terms: str | Path | None = None,
    min_group: int = MIN_GROUP,
    max_swaps: int = MAX_SWAPS,
    seed: int = 0,
    batch_size: int = 64,
    output_dir: str | Path | None = None,
    track: Track = track_nothing,
) -> Audit:
    """Audit a classifier on labelled rows that tell of people.

    Args:
        classifier: A loaded classifier, or the ``model/`` folder of a run, the run's folder, or a Hub id.
        data: A file, a folder of splits, a bundled name or a Hub id; or a table in memory, as `read_table` takes.
        group: Column of the groups, several in a cell with ``;`` or ``|`` between; the identity terms of the texts
            where absent.
        text: Column of the text; that of the training data, else found by the usual names, where absent.
        text_b: Column of the second text of a pair, likewise.
        label: Column of the label, likewise.
        encoding: Character encoding of csv, tsv, txt and jsonl files.
        delimiter: What stands between cells of csv, tsv and txt files; told from their rows where absent.
        sheet: Sheet of an Excel workbook; the first where absent.
        positive: The label whose rates are compared; of two classes the second, or the one that is not a negation.
        threshold: Probability of the positive label from which it is said; as the classifier decides where absent.
        rename: Labels of the data to the classifier's, where they go by other names.
        split: Which split of a folder or Hub id.
        terms: A YAML file of terms in place of the shipped list, KIND: [[TERM, TERM, ...], ...].
        min_group: Rows over which a group's rate must be to be compared with others.
        max_swaps: Most swapped texts that are scored; 0 for no swaps.
        seed: Of the sample of swaps, and of the resamples.
        batch_size: Texts in one forward pass.
        output_dir: Where ``audit.json`` and ``report.html`` go; nothing is kept where absent.
        track: Shows how far it is.

    Returns:
        The audit; shows itself in a terminal and in a notebook.

    Raises:
        DataError: The table cannot be used, has no such column, or fewer than two groups.
        LabelError: A label is not one of the classifier's.
        MissingExtraError: fairlearn is not installed.
        OutputError: The output folder is somebody else's.
    """
    _check_settings(min_group, max_swaps, threshold)
    words = read_terms(None if terms is None else Path(terms))
    loaded = classifier if isinstance(classifier, Classifier) else Classifier.from_pretrained(classifier)
    column = find_positive(loaded.space, positive)
    reading: dict[str, Any] = {"encoding": encoding, "delimiter": delimiter, "sheet": sheet}
    table = _read(loaded, data, split, text=text, text_b=text_b, label=label, rename=rename or {}, reading=reading)
    folder = None if output_dir is None else claim_audit(Path(output_dir), table.name)
    named = [list(dict.fromkeys(t for each in row for t in words.find(each))) for row in zip(*table.texts, strict=True)]
    # What cannot be grouped is told before the model runs.
    members, ungrouped = _gather(table, named, group)
    settings: dict[str, Any] = {"min_group": min_group, "max_swaps": max_swaps, "seed": seed, **_read_evaluation()}
    judge = _Judge(loaded, column, batch_size, threshold)
    with track("scoring", len(table.labels)) as advance:
        scores, found = judge.score(table.texts, advance)
    decisions = _decide(loaded.space, column, table.labels, scores, found)
    record: dict[str, Any] = {
        "format": FORMAT,
        "artifact": _name_artifact(loaded.artifact.folder),
        "data": {
            "source": table.name,
            "rows": len(table.labels),
            "ungrouped": ungrouped,
            "group": group,
            "notes": list(table.notes),
        },
        "positive": loaded.labels[column],
        "threshold": threshold,
        "labels": loaded.labels,
        "settings": settings,
        **_compare(members, decisions, settings),
        "swaps": _swap(judge, table, named, words, (scores[:, column], found), settings, track),
    }
    done = Audit(record, folder)
    if folder is not None:
        done.save(folder)
    return done


def _name_artifact(place: Path) -> str:
    """The name of a run's folder, or of the artefact's own."""
    return place.parent.name if place.name == "model" else place.name


def _compare(members: Mapping[str, np.ndarray], decisions: Decisions, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Rates of all rows and of groups, the most false positives first; the worst groups; the gaps."""
    sure = {key: settings[key] for key in ("min_group", "confidence")}
    overall, groups = score_groups(members, decisions, confidence=settings["confidence"])
    order = sorted(members, key=lambda name: (-(groups[name]["false_positive_rate"]["value"] or 0.0), name))
    return {
        "overall": overall,
        "groups": [{"name": name, "n": len(members[name]), **groups[name]} for name in order],
        "worst": find_worst_groups(members, decisions, **sure),
        "gaps": measure_gaps(members, decisions, **sure, resamples=settings["resamples"], seed=settings["seed"]),
    }


def find_positive(space: LabelSpace, wanted: str | None) -> int:
    """Find the label whose rates are compared.

    Args:
        space: The label contract.
        wanted: Its name; None where it is to be told from two.

    Returns:
        Its column: of two classes the second, but for one that negates the first.

    Raises:
        DataError: There is no such label, none is named of several, or the task has no labels.

    Example:
        >>> find_positive(LabelSpace("classification", ("nontoxic", "toxic")), None)
        1
        >>> find_positive(LabelSpace("classification", ("hateful", "non-hateful")), None)
        0
    """
    if space.kind == "regression":
        raise DataError("audit: expected a classifier with labels, this one is of task.kind=regression.")
    shown = ", ".join(space.names[:10]) + (", ..." if len(space.names) > 10 else "")
    if wanted is not None:
        if wanted not in space.names:
            raise DataError(f"--positive: expected one of the labels {shown}, got {wanted!r}. Name one of them.")
        return space.names.index(wanted)
    if len(space.names) != 2 or space.kind != "classification":
        raise DataError(f"--positive: expected the label whose rates are compared, of {shown}. Name one.")
    first, second = (name.casefold() for name in space.names)
    is_negated = any(second.startswith(mark) and second[len(mark) :].strip(" -_") == first for mark in NEGATIONS)
    return 0 if is_negated else 1


def _check_settings(min_group: int, max_swaps: int, threshold: float | None) -> None:
    """Refuse numbers that nothing can be done with."""
    if min_group < 1 or max_swaps < 0:
        raise DataError(f"audit: expected min_group from 1 and max_swaps from 0, got {min_group} and {max_swaps}.")
    if threshold is not None and not 0 < threshold < 1:
        raise DataError(f"--threshold: expected a probability between 0 and 1, got {threshold}.")


def _read_evaluation() -> dict[str, Any]:
    """Resamples and coverage, as everywhere else."""
    usual = EvaluationConfig()
    return {"resamples": usual.resamples, "confidence": usual.confidence}


def _read(
    classifier: Classifier,
    data: object,
    split: str,
    *,
    text: str | None,
    text_b: str | None,
    label: str | None,
    rename: Mapping[str, str],
    reading: Mapping[str, Any],
) -> _Table:
    """Read texts and labels as the classifier knows them."""
    findings = Findings()
    if isinstance(data, str | Path):
        rows, where = read_split(str(data), split, **reading, findings=findings)
    else:
        rows, where = read_table(data, findings=findings), f"in-memory {type(data).__name__}"
    metadata = classifier.artifact.metadata
    is_pair, trained = bool(metadata.get("reading", {}).get("is_pair")), metadata.get("recipe", {}).get("data", {})
    if text is None and text_b is None:
        named = (trained.get("text"), trained.get("text_b") if is_pair else None)
        if {name for name in named if name} <= set(rows.column_names):
            text, text_b = named
    ready = prepare_inference_table(rows, text=text, text_b=text_b, is_pair=is_pair, where=where)
    if label is None and isinstance(trained.get("label"), str) and trained["label"] in rows.column_names:
        label = trained["label"]
    kind = classifier.space.kind
    columns = find_label_columns(rows, label=label, kind=kind, texts=(text or "text", text_b), where=where)
    if rename and len(columns) == 1:
        rows = _rename(rows, columns[0], rename, where)
    mapped = map_labels(rows, classifier.space, label=columns[0] if len(columns) == 1 else None, where=where)
    texts = [list(ready[name][:]) for name in ("text", "text_b") if name in ready.column_names]
    notes = (*findings.list_notes(), *findings.warnings)
    return _Table(where, texts, np.asarray(mapped.with_format("numpy")["label"][:]), rows, notes)


def _rename(rows: Dataset, column: str, rename: Mapping[str, str], where: str) -> Dataset:
    """The table with labels by the classifier's names."""
    values = read_labels(
        rows, [column], "classification", separator=",", where=where, names=list(rename)
    ).values.to_pylist()
    if absent := sorted(set(rename) - set(values)):
        there = sorted({value for value in values if value is not None})[:10]
        raise DataError(f"--rename: expected labels of {where}, {column} ({', '.join(there)}), got {absent[0]!r}.")
    named = pa.array([rename.get(value, value) if value is not None else None for value in values], pa.string())
    position = rows.column_names.index(column)
    table = rows.with_format("arrow")[:]
    return Dataset(table.set_column(position, column, named).replace_schema_metadata(None))


def _gather(table: _Table, named: Sequence[Sequence[str]], group: str | None) -> tuple[dict[str, np.ndarray], int]:
    """The rows of every group, and how many rows are of none."""
    if group is not None and group not in table.columns.column_names:
        have = ", ".join(table.columns.column_names)
        raise DataError(
            f"--group: expected a column of {table.name}, got {group!r}. Columns: {have}.{offer_delimiter(table.name)}"
        )
    found = split_groups(table.columns[group][:]) if group is not None else named
    members: dict[str, list[int]] = {}
    for row, names in enumerate(found):
        for name in names:
            members.setdefault(name, []).append(row)
    if len(members) < 2:
        what = f"groups in column {group!r}" if group is not None else "identity terms in the texts"
        came = f"one, {next(iter(members))!r}" if members else "none"
        raise DataError(f"{table.name}: expected two or more {what}, got {came}. Name another column with --group.")
    if len(members) > max(100, len(table.labels) // 2):
        raise DataError(
            f"--group: expected a column that groups rows, got {group!r} with {len(members)} values in "
            f"{len(table.labels)} rows. Name another."
        )
    return {name: np.array(rows) for name, rows in sorted(members.items())}, sum(not names for names in found)


class _Judge:
    """What a classifier makes of texts: the probability of every label, and the labels."""

    def __init__(self, classifier: Classifier, column: int, batch_size: int, threshold: float | None) -> None:
        self.classifier, self.column, self.batch_size, self.threshold = classifier, column, batch_size, threshold
        artifact = classifier.artifact
        self.thresholds = read_thresholds(artifact.metadata, classifier.space, where=str(artifact.folder))

    def score(self, texts: Sequence[Sequence[str]], progress: Any) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (N, C), and labels as ``predict_labels`` gives them, or by the threshold."""
        scores = self.classifier.predict_proba(*texts, batch_size=self.batch_size, progress=progress)
        found = predict_labels(scores, self.classifier.space, self.thresholds)
        if self.threshold is None:
            return scores, found
        is_said = scores[:, self.column] >= self.threshold
        if found.ndim > 1:
            found[:, self.column] = is_said
            return scores, found
        others = scores.copy()
        others[:, self.column] = -np.inf
        return scores, np.where(is_said, self.column, others.argmax(axis=1))


def _decide(space: LabelSpace, column: int, labels: np.ndarray, scores: np.ndarray, found: np.ndarray) -> Decisions:
    """What is true of the positive label and what was decided."""
    if space.kind == "multi_label":
        truth, decided = labels[:, column] > 0, found[:, column] > 0
        return Decisions(truth, decided, truth == decided, scores[:, column])
    return Decisions(labels == column, found == column, labels == found, scores[:, column])


def _swap(
    judge: _Judge,
    table: _Table,
    named: Sequence[Sequence[str]],
    words: TermList,
    original: tuple[np.ndarray, np.ndarray],
    settings: Mapping[str, Any],
    track: Track,
) -> dict[str, Any] | None:
    """Score texts with other terms in them; None where there is nothing to swap."""
    swaps, possible = draw_swaps(named, words.sets, most=settings["max_swaps"], seed=settings["seed"])
    if not swaps:
        return None

    def put(swap: Swap, text: str) -> str:
        return words.replace(text, {swap.term: swap.other})

    texts = [[put(swap, column[swap.row]) for swap in swaps] for column in table.texts]
    with track("swapping terms", len(swaps)) as advance:
        scores, found = judge.score(texts, advance)
    rows = np.array([swap.row for swap in swaps])
    before, labels = original
    flipped = found != labels[rows]
    if flipped.ndim > 1:
        flipped = flipped[:, judge.column]
    measured = measure_swaps(
        swaps,
        before[rows],
        scores[:, judge.column],
        flipped,
        kinds=words.kinds,
        resamples=settings["resamples"],
        confidence=settings["confidence"],
        seed=settings["seed"],
    )
    return {"scored": len(swaps), "possible": possible, "texts": len(set(rows.tolist())), **measured}
