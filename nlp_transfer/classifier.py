"""A trained classifier, loaded for use."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset

from nlp_transfer.contracts import LabelSpace, Score
from nlp_transfer.data.columns import prepare_inference_table
from nlp_transfer.data.encode import resolve_max_length
from nlp_transfer.data.labels import map_labels
from nlp_transfer.data.tables import read_table
from nlp_transfer.engine.precision import choose_device
from nlp_transfer.engine.texts import Reading, TextScorer
from nlp_transfer.errors import ArtifactError, DataError, OutputError, StorageError
from nlp_transfer.evaluation.predictions import predict_labels, to_probabilities
from nlp_transfer.evaluation.scoring import score_split
from nlp_transfer.publishing.artifact import LoadedArtifact, load_artifact
from nlp_transfer.recipe.schema import DataConfig, EvaluationConfig, Recipe, TaskConfig

if TYPE_CHECKING:
    from nlp_transfer.models.runtimes import Runtime
    from nlp_transfer.publishing.export import Exported

__all__ = ["Classifier"]

FALLBACK_LENGTH = 512
"""Tokens read by a classifier that another tool saved, where its tokenizer allows; BERT's limit."""

DATA_KEYS = ("text", "text_b", "label", "label_separator")
"""What is recalled of the training data's place."""


class Classifier:
    """An artefact loaded for use.

    Args:
        artifact: The loaded model with its label contract.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: Number format of predictions: ``auto``, ``fp32`` or ``bf16``, see `choose_prediction`. Labels are
            those of fp32 either way: what bf16 leaves in doubt goes through fp32. Probabilities in bf16 differ by
            about a thousandth, so `evaluate` takes bf16 only where it is asked for, and its figures are a report's.

    Example:
        >>> Classifier.from_pretrained("no/such/folder")
        Traceback (most recent call last):
        nlp_transfer.errors.ArtifactError: no/such/folder: no such folder. Name the model/ folder of a run, ...
    """

    def __init__(self, artifact: LoadedArtifact, *, device: str = "auto", precision: str = "auto") -> None:
        self._artifact = artifact
        self._device = torch.device(choose_device(device))
        self._model = artifact.model.to(self._device)
        reading: dict[str, Any] = artifact.metadata.get("reading", {})
        wanted = int(reading.get("max_length", FALLBACK_LENGTH))
        self._texts = TextScorer(
            self._model,
            artifact.tokenizer,
            artifact.labels,
            Reading(
                max_length=resolve_max_length(artifact.tokenizer, artifact.model.config, wanted),
                long_text=reading.get("long_text", "truncate"),
                window_overlap=float(reading.get("window_overlap", 0.25)),
                max_windows=reading.get("max_windows"),
            ),
            self._device,
            precision=precision,
        )
        self._is_pair: bool | None = reading.get("is_pair")
        self._data = _read_data(artifact)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        revision: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        trust_remote_code: bool = False,
    ) -> "Classifier":
        """Load a classifier.

        Args:
            path: The ``model/`` folder of a run, the run's folder, or a Hub id.
            revision: Branch, tag or commit of a Hub id.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
            precision: ``auto``, ``fp32`` or ``bf16``.
            trust_remote_code: Whether code that the encoder's repository brings may run.

        Returns:
            A classifier ready to predict.

        Raises:
            ArtifactError: Missing or damaged.
            EncoderError: An adapter's base is missing.
        """
        artifact = load_artifact(path, revision=revision, trust_remote_code=trust_remote_code)
        return cls(artifact, device=device, precision=precision)

    @property
    def labels(self) -> list[str]:
        """Label names in the order of the columns of ``predict_proba``."""
        return list(self.space.names)

    @property
    def space(self) -> LabelSpace:
        """The label contract."""
        return self._artifact.labels

    def __repr__(self) -> str:
        shown = ", ".join(self.labels[:5]) + (", ..." if len(self.labels) > 5 else "")
        return f"Classifier({str(self._artifact.folder)!r}, {self.space.kind}: {shown})"

    def predict_proba(
        self,
        texts: Sequence[str],
        texts_b: Sequence[str] | None = None,
        *,
        batch_size: int = 64,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Give the probability of every label.

        Args:
            texts: N texts.
            texts_b: The second texts of N pairs, where the classifier reads pairs.
            batch_size: Texts in one forward pass.
            progress: Called with the count of texts done since the last call.

        Returns:
            Float64, shape (N, C), columns as ``labels``; a regression's one column holds its numbers.

        Raises:
            DataError: No list of texts, an empty text, or a second text missing or superfluous.
        """
        columns: dict[str, list[str]] = {"text": _check_texts(texts, "texts")}
        if texts_b is not None:
            columns["text_b"] = _check_texts(texts_b, "texts_b")
            if len(columns["text_b"]) != len(columns["text"]):
                raise DataError(f"texts_b: expected {len(texts)} texts, one for each of texts, got {len(texts_b)}.")
        if not columns["text"]:
            return np.empty((0, self.space.num_outputs))
        return self._score(Dataset.from_dict(columns), batch_size=batch_size, progress=progress)

    def predict(self, texts: Sequence[str], texts_b: Sequence[str] | None = None, *, batch_size: int = 64) -> list[Any]:
        """Name the label of each text.

        Args:
            texts: N texts.
            texts_b: The second texts of pairs.
            batch_size: Texts in one forward pass.

        Returns:
            N label names; lists of names for multi_label; floats for regression.
        """
        probabilities = self.predict_proba(texts, texts_b, batch_size=batch_size)
        return self._name(probabilities) if len(probabilities) else []

    def predict_table(
        self,
        table: object,
        *,
        text: str | None = None,
        text_b: str | None = None,
        encoding: str = "utf-8",
        batch_size: int = 64,
        progress: Callable[[int], None] | None = None,
        where: str | None = None,
    ) -> Dataset:
        """Add predictions to a table.

        Args:
            table: A file (csv, tsv, jsonl, parquet, arrow), a `datasets.Dataset` or a pandas frame.
            text: Column of the text; that of the training data, else found by the usual names, where absent.
            text_b: Column of the second text, likewise.
            encoding: Character encoding of text files.
            batch_size: Texts in one forward pass.
            progress: Called with the count of rows done since the last call.
            where: How messages name the table.

        Returns:
            The table with ``predicted`` and ``probability_<label>`` added; rows and columns keep their order.

        Raises:
            DataError: The table cannot be read, has no text column, or has a column that would be overwritten.
        """
        rows = read_table(table, encoding=encoding)
        where = where or (str(table) if isinstance(table, str | Path) else "table")
        text, text_b = self._recall_texts(rows, text, text_b)
        added = ["predicted"]
        if self.space.kind != "regression":
            added += [f"probability_{name}" for name in self.labels]
        taken = [name for name in added if name in rows.column_names]
        if taken:
            raise DataError(f"{where}: already has a column {taken[0]!r}, which would be overwritten. Rename it first.")
        ready = prepare_inference_table(rows, text=text, text_b=text_b, is_pair=self._reads_pairs(text_b), where=where)
        probabilities = self._score(ready, batch_size=batch_size, progress=progress)
        rows = rows.add_column("predicted", self._name(probabilities))
        for column, name in enumerate(added[1:]):
            rows = rows.add_column(name, probabilities[:, column])
        return rows

    def evaluate(
        self,
        table: object,
        *,
        text: str | None = None,
        text_b: str | None = None,
        label: str | Sequence[str] | None = None,
        label_separator: str | None = None,
        metrics: Sequence[str] | None = None,
        encoding: str = "utf-8",
        batch_size: int = 64,
        progress: Callable[[int], None] | None = None,
        where: str | None = None,
    ) -> dict[str, Score]:
        """Score the classifier on a labelled table whose labels must fit the label contract.

        Args:
            table: A file, a `datasets.Dataset` or a pandas frame.
            text: Column of the text; that of the training data, else found by the usual names, where absent.
            text_b: Column of the second text, likewise.
            label: Column of the label, or several 0/1 columns, likewise.
            label_separator: What stands between labels in one text cell; as in the training data where absent.
            metrics: Report keys; by kind of task where absent.
            encoding: Character encoding of text files.
            batch_size: Texts in one forward pass.
            progress: Called with the count of rows done since the last call.
            where: How messages name the table.

        Returns:
            Metric to score with its interval and n.

        Raises:
            LabelError: The table has a label that the classifier does not know, or another mapping.
            DataError: The table cannot be used.
        """
        rows = read_table(table, encoding=encoding)
        where = where or (str(table) if isinstance(table, str | Path) else "table")
        text, text_b = self._recall_texts(rows, text, text_b)
        ready = prepare_inference_table(rows, text=text, text_b=text_b, is_pair=self._reads_pairs(text_b), where=where)
        columns = self._recall_label(rows) if label is None else [label] if isinstance(label, str) else list(label)
        for name in columns or ():
            if name in (text, text_b):
                raise DataError(f"data.label: expected another column than the text, came {name!r}. Name another.")
        is_single = columns is not None and len(columns) == 1 and self.space.kind != "multi_label"
        mapped = map_labels(
            rows,
            self.space,
            label=columns[0] if columns is not None and is_single else columns,
            label_separator=label_separator or self._data.label_separator,
            where=where,
        )
        truth = mapped.with_format("numpy")["label"][:]
        probabilities = self._score(ready, batch_size=batch_size, progress=progress, is_exact=True)
        wanted = metrics or Recipe(task=TaskConfig(kind=self.space.kind)).evaluation.metrics or []
        settings = EvaluationConfig()
        return score_split(
            truth,
            probabilities,
            self.space,
            wanted,
            resamples=settings.resamples,
            confidence=settings.confidence,
        )

    def save_pretrained(self, folder: str | Path) -> Path:
        """Copy the artefact to another folder, whole or not at all.

        Args:
            folder: Must not exist, or be empty.

        Returns:
            The folder.

        Raises:
            OutputError: Something lies there already.
            StorageError: The disk is full or failing.
        """
        target = Path(folder)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise OutputError(f"{target}: holds something already. Name a new folder; nothing there was touched.")
        # A folder that is there may be a mount or the current one: it is filled, not replaced.
        is_there = target.exists()
        stage = target / ".writing" if is_there else target.with_name(f".{target.name}.writing")
        try:
            shutil.rmtree(stage, ignore_errors=True)
            shutil.copytree(self._artifact.folder, stage)
            if is_there:
                for path in stage.iterdir():
                    path.rename(target / path.name)
                stage.rmdir()
            else:
                stage.rename(target)
        except OSError as error:
            shutil.rmtree(stage, ignore_errors=True)
            # What copytree raises holds (from, to, why) of every file.
            reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error
            raise StorageError(f"{target}: could not be written: {reason}. Free space and try again.") from error
        return target

    def export(
        self,
        to: "Runtime",
        out: str | Path | None = None,
        *,
        int8: bool = False,
        tolerance: float | None = None,
        data: object = None,
    ) -> "Exported":
        """Write this classifier's artefact for onnxruntime or OpenVINO; see `export_artifact`."""
        from nlp_transfer.publishing.export import export_artifact

        return export_artifact(self._artifact.folder, to=to, out=out, int8=int8, tolerance=tolerance, data=data)

    def _recall_texts(self, rows: Dataset, text: str | None, text_b: str | None) -> tuple[str | None, str | None]:
        """The columns of the texts: as named, else as in the training data where the table has them."""
        if text is not None or text_b is not None:
            return text, text_b
        named = (self._data.text, self._data.text_b if self._reads_pairs(self._data.text_b) else None)
        return named if {name for name in named if name} <= set(rows.column_names) else (None, None)

    def _recall_label(self, rows: Dataset) -> list[str] | None:
        """The columns of the label in the training data, where the table has them."""
        named = self._data.label
        columns = [named] if isinstance(named, str) else named
        return columns if columns and set(columns) <= set(rows.column_names) else None

    def _reads_pairs(self, text_b: str | None) -> bool:
        """Whether two texts an example are read."""
        return text_b is not None if self._is_pair is None else self._is_pair

    def _name(self, probabilities: np.ndarray) -> list[Any]:
        """Turn probabilities into label names, lists of names, or numbers."""
        found = predict_labels(probabilities, self.space)
        if self.space.kind == "regression":
            return [float(value) for value in found]
        if self.space.kind == "multi_label":
            return [[name for name, is_on in zip(self.labels, row, strict=True) if is_on] for row in found]
        return [self.labels[index] for index in found]

    def _score(
        self,
        table: Dataset,
        *,
        batch_size: int,
        progress: Callable[[int], None] | None,
        is_exact: bool = False,
    ) -> np.ndarray:
        """Give the probabilities of a table of texts."""
        is_pair = "text_b" in table.column_names
        if self._is_pair is not None and is_pair != self._is_pair:
            reads, got = ("pairs", "single texts") if self._is_pair else ("single texts", "pairs")
            raise DataError(f"texts_b: this classifier reads {reads}, got {got}.")
        # A label column of its own is no matter of the prediction.
        texts = table.select_columns(["text", "text_b"] if is_pair else ["text"])
        most: int = EvaluationConfig.model_fields["max_tokens"].default
        logits = self._texts.score(texts, batch_size=batch_size, max_tokens=most, progress=progress, is_exact=is_exact)
        return to_probabilities(logits, self.space)


def _read_data(artifact: LoadedArtifact) -> DataConfig:
    """Where texts and labels stood in the training data, as far as the artefact tells."""
    try:
        data = (artifact.metadata.get("recipe") or {}).get("data") or {}
        return DataConfig.model_validate({key: data[key] for key in DATA_KEYS if key in data})
    except (ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(
            f"{artifact.folder}: expected the recipe to say where texts and labels stood, came another record "
            f"({reason}). Copy the artefact again, or train it again."
        ) from error


def _check_texts(texts: Sequence[str], name: str) -> list[str]:
    """Refuse what is not a list of texts with something in each."""
    if isinstance(texts, str):
        raise DataError(f"{name}: expected a list of texts, got one text. Write [text].")
    checked = list(texts)
    for row, text in enumerate(checked):
        if not isinstance(text, str):
            raise DataError(f"{name}: item {row}: expected a text, got {type(text).__name__}.")
        if not text.strip():
            raise DataError(f"{name}: item {row} is empty. Leave it out.")
    return checked
