"""Which labels of a table to look at again: features of an encoder, held-out estimates, a list to review."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from nlp_transfer.contracts import Splits, Track, track_nothing
from nlp_transfer.data.delimited import offer_delimiter
from nlp_transfer.data.exchange import FORMULA, check_output, write_table
from nlp_transfer.data.findings import Findings
from nlp_transfer.data.labels.values import read_labels
from nlp_transfer.data.load import load_splits
from nlp_transfer.engine.predict.vectors import extract_vectors
from nlp_transfer.errors import DataError
from nlp_transfer.evaluation.confident_learning import Ranking, estimate_held_out, rank_suspects
from nlp_transfer.evidence.embedding import open_encoder
from nlp_transfer.models.vector_classifier import find_layers
from nlp_transfer.recipe.formats import split_table_name
from nlp_transfer.recipe.schema import DataConfig, EncoderConfig, TaskConfig

__all__ = ["Suspects", "embed_splits", "find_suspects", "neutralize_cell"]

LAYERS = [-1]
"""Layer of the encoder that gives a row's vector."""


@dataclass(frozen=True)
class Suspects:
    """Rows to review, the most suspect first.

    Attributes:
        rows: One dictionary a row: ``split``, ``id`` (row number from 0 where the data has no ids), ``text``,
            ``text_b`` (pairs), ``label`` as given, ``suggested``, ``score`` (label quality in [0, 1], lower is more
            suspect), ``probability_given`` and ``probability_suggested`` (held-out estimates), ``flagged`` (whether
            confident learning counts the label among the wrong ones).
        num_rows: How many rows were looked at.
        num_flagged: How many of those confident learning counts as wrong.
        agreement: Share of the rows whose label the others find again, in [0, 1]; where it is low, classes are hard to
            tell apart, and far more rows are flagged than are wrong.
        precision: Share of the rows listed whose label differs from the trusted column; None without one.
        noise: Share of all rows whose label differs from it; None without one.
        notes: What was decided and left out while the data was read, and what may want a change, one sentence each.
    """

    rows: list[dict[str, Any]]
    num_rows: int
    num_flagged: int
    agreement: float
    precision: float | None = None
    noise: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def flagged_share(self) -> float:
        """An estimate of the share of wrong labels, in [0, 1]."""
        return self.num_flagged / self.num_rows

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON holds it."""
        return {
            "num_rows": self.num_rows,
            "num_flagged": self.num_flagged,
            "flagged_share": self.flagged_share,
            "agreement": self.agreement,
            "precision": self.precision,
            "noise": self.noise,
            "rows": self.rows,
        }

    def save(self, out: str | Path, *, overwrite: bool = False) -> Path:
        """Write the list for review.

        In csv and tsv, cells that a spreadsheet would run as a formula get an apostrophe in front.

        Args:
            out: A csv, tsv, jsonl or parquet file.
            overwrite: Whether a file of that name may be replaced.

        Returns:
            The file.

        Raises:
            OutputError: The file is there already, or its ending is unknown.
            StorageError: The disk is full or failing.
        """
        import sys

        place = Path(out)
        check_output(place, "", overwrite=overwrite)
        is_delimited = split_table_name(place).kind == "delimited"
        shown = [{k: neutralize_cell(v) if is_delimited else v for k, v in row.items()} for row in self.rows]
        columns = {name: [row[name] for row in shown] for name in shown[0]}
        write_table(Dataset.from_dict(columns), place, sys.stdout)
        return place


def neutralize_cell(value: Any) -> Any:
    """Keep a spreadsheet from running a text as a formula.

    Args:
        value: Any cell.

    Returns:
        A text that starts like a formula with an apostrophe before it; anything else as it is.

    Example:
        >>> neutralize_cell("=1+1"), neutralize_cell("1+1"), neutralize_cell(-1)
        ("'=1+1", '1+1', -1)
    """
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def find_suspects(
    data: DataConfig | str | Path,
    *,
    encoder: str = EncoderConfig().name,
    top: float = 0.05,
    truth: str | None = None,
    kind: str = "classification",
    seed: int = 0,
    source: object | None = None,
    device: str = "auto",
    track: Track = track_nothing,
) -> Suspects:
    """List the rows whose labels look wrong, for a person to review.

    The encoder runs once and is not trained; a logistic regression and the nearest neighbors then say of each row
    what the other rows make of it. Nothing is changed in the data.

    Args:
        data: What to read, or its path; every labelled split is looked at.
        encoder: Alias, folder or Hub id.
        top: Share of the rows that is listed, in (0, 1].
        truth: A column of labels that are trusted; the list is scored against it and does not see it.
        kind: ``classification`` or ``ordinal``.
        seed: Of the folds.
        source: Tables in memory in place of ``data.path``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        track: Shows how far it is.

    Returns:
        The list, with estimates of how many labels are wrong.

    Raises:
        DataError: The data cannot be used, or rows do not have one class each.
        EncoderError: The encoder cannot be loaded.
        MissingExtraError: cleanlab is not installed.
    """
    if not 0 < top <= 1:
        raise DataError(f"top: expected a share of the rows in (0, 1], got {top:g}. The usual is 0.05.")
    if kind not in ("classification", "ordinal"):
        raise DataError(
            f"suspects: expected rows of one class each, came task.kind={kind}. Review one label at a time."
        )
    config = data if isinstance(data, DataConfig) else DataConfig(path=str(data))
    findings = Findings()
    task = TaskConfig(kind=kind)  # type: ignore[arg-type]
    splits = load_splits(config, task, seed=seed, source=source, findings=findings)
    labelled = [name for name in splits.tables if splits.is_labelled(name)]
    vectors_ND = embed_splits(splits, labelled, config, encoder=encoder, device=device, track=track)
    labels_N = np.concatenate([np.asarray(splits.tables[name].with_format("numpy")["label"][:]) for name in labelled])
    with track("comparing labels", 2) as advance:
        found_NC = estimate_held_out(vectors_ND, labels_N, splits.labels.num_outputs, seed=seed, progress=advance)
    ranking = rank_suspects(labels_N, found_NC)
    listed = ranking.rows[: max(1, math.ceil(top * len(labels_N)))]
    precision = noise = None
    if truth is not None:
        wrong = _compare(splits, labelled, labels_N, truth)
        known = ~np.isnan(wrong)
        noise = float(wrong[known].mean())
        seen = wrong[listed]
        precision = float(np.nanmean(seen)) if not np.isnan(seen).all() else None
    rows = _list_rows(splits, labelled, labels_N, found_NC, ranking, listed)
    agreement = float((found_NC.argmax(axis=1) == labels_N).mean())
    notes = (*findings.list_notes(), *splits.facts.warnings)
    return Suspects(rows, len(labels_N), int(ranking.flagged.sum()), agreement, precision, noise, notes)


def embed_splits(
    splits: Splits,
    names: Sequence[str],
    data: DataConfig,
    *,
    encoder: str,
    device: str = "auto",
    track: Track = track_nothing,
) -> np.ndarray:
    """Give one vector a row, from the cache where they were made before.

    Args:
        splits: Loaded tables.
        names: The splits that are read, in this order.
        data: How texts are read.
        encoder: Alias, folder or Hub id; it is not trained.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        track: Shows how far it is.

    Returns:
        Float32, shape (N, D): the mean over the tokens of the last layer.

    Raises:
        EncoderError: The encoder cannot be loaded.
        StorageError: The cache cannot be written.
    """
    bare, prepared, _ = open_encoder(EncoderConfig(name=encoder), splits, data, names, device=device)
    layers = find_layers(bare, LAYERS)
    parts = [extract_vectors(bare, prepared, split, layers=layers, track=track) for split in names]
    return np.concatenate(parts)


def _compare(splits: Splits, labelled: Sequence[str], labels_N: np.ndarray, truth: str) -> np.ndarray:
    """1 where the given label differs from the trusted one, 0 where not, NaN where there is none, shape (N,)."""
    columns: list[Any] = []
    for split in labelled:
        table = splits.tables[split]
        # A column that would take the label's own name is kept under another.
        name = f"source_{truth}" if f"source_{truth}" in table.column_names else truth
        if name not in table.column_names:
            raise DataError(
                f"truth: expected a column {truth!r} in {split}, came: {', '.join(table.column_names)}. Name one."
                f"{offer_delimiter(splits.facts.source)}"
            )
        known = splits.labels.names
        raw = read_labels(table, [name], "classification", separator=",", where=split, names=known)
        columns += raw.values.to_pylist()
    names = [splits.labels.names[label] for label in labels_N]
    pairs = zip(names, columns, strict=True)
    wrong = np.array([math.nan if other is None else float(other != name) for name, other in pairs])
    if not set(columns) & set(splits.labels.names):
        raise DataError(f"truth: {truth!r} has none of the labels {', '.join(splits.labels.names[:5])}. Name another.")
    return wrong


def _list_rows(
    splits: Splits,
    labelled: Sequence[str],
    labels_N: np.ndarray,
    found_NC: np.ndarray,
    ranking: Ranking,
    listed: np.ndarray,
) -> list[dict[str, Any]]:
    """The rows listed, as a person reads them."""
    names, texts = splits.labels.names, ["text", "text_b"] if splits.is_pair else ["text"]
    sizes = [splits.tables[name].num_rows for name in labelled]
    starts = np.cumsum([0, *sizes])
    rows = []
    for number in listed.tolist():
        part = int(np.searchsorted(starts, number, side="right")) - 1
        split = labelled[part]
        row = splits.tables[split][number - int(starts[part])]
        given, suggested = int(labels_N[number]), int(ranking.suggested[number])
        rows.append(
            {
                # A drawn split is not in the source, where the row stands in train.
                "split": "train" if split in splits.facts.drawn else split,
                "id": row["id"],
                **{name: row[name] for name in texts},
                "label": names[given],
                "suggested": names[suggested],
                "score": round(float(ranking.scores[number]), 6),
                "probability_given": round(float(found_NC[number, given]), 6),
                "probability_suggested": round(float(found_NC[number, suggested]), 6),
                "flagged": bool(ranking.flagged[number]),
            }
        )
    return rows
