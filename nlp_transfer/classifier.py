"""A trained classifier, loaded for use."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset

from nlp_transfer.contracts import LabelSpace, Score
from nlp_transfer.data.checks import check_texts
from nlp_transfer.data.columns import prepare_inference_table
from nlp_transfer.data.encode import resolve_max_length
from nlp_transfer.data.labels.contract import map_labels
from nlp_transfer.data.tables import read_table
from nlp_transfer.data.target_scale import TargetScale
from nlp_transfer.data.unseen import FEWEST_ROWS, UnseenTally, describe_unseen
from nlp_transfer.engine.precision import choose_device
from nlp_transfer.engine.predict.texts import Reading, TextScorer
from nlp_transfer.errors import DataError, TransferWarning
from nlp_transfer.evaluation.abstention import check_abstention
from nlp_transfer.evaluation.calibration import read_calibrator
from nlp_transfer.evaluation.predictions import name_predictions, to_probabilities
from nlp_transfer.evaluation.scoring import score_split
from nlp_transfer.evaluation.thresholds import read_thresholds
from nlp_transfer.models.artifacts import read_data_config
from nlp_transfer.publishing.artifact import LoadedArtifact, copy_artifact, load_artifact
from nlp_transfer.recipe.schema import EvaluationConfig, Recipe, TaskConfig

if TYPE_CHECKING:
    from nlp_transfer.models.runtimes import Runtime
    from nlp_transfer.publishing.explain.result import Baseline, Explanation, Method
    from nlp_transfer.publishing.export.command import Exported
    from nlp_transfer.publishing.hub.push import Pushed

__all__ = ["Classifier"]

FALLBACK_LENGTH = 512
"""Maximum tokens for a classifier that another tool saved, unless its tokenizer allows fewer; BERT's limit."""


class Classifier:
    """An artefact loaded for use.

    Args:
        artifact: The loaded model with its label contract.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: Number format of predictions: ``auto``, ``fp32`` or ``bf16``, see `choose_prediction`. All formats
            give the labels of fp32: texts whose label is uncertain in bf16 are predicted again in fp32. Probabilities
            in bf16 differ by about 0.001, so `evaluate` uses bf16 only if asked to, and its figures match the report.

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
        self._data = read_data_config(artifact)
        self._calibrator = read_calibrator(
            artifact.metadata, num_classes=artifact.labels.num_outputs, where=str(artifact.folder)
        )
        self._thresholds = read_thresholds(artifact.metadata, artifact.labels, where=str(artifact.folder))

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
            trust_remote_code: Whether code from the encoder's repository may run.

        Returns:
            A classifier ready to predict.

        Raises:
            ArtifactError: The artefact is missing or damaged.
            EncoderError: The base model of an adapter is missing.
        """
        artifact = load_artifact(path, revision=revision, trust_remote_code=trust_remote_code)
        return cls(artifact, device=device, precision=precision)

    @property
    def labels(self) -> list[str]:
        """Label names in the order of the columns of ``predict_proba``."""
        return list(self.space.names)

    @property
    def artifact(self) -> LoadedArtifact:
        """The loaded artefact and the folder it came from."""
        return self._artifact

    @property
    def scorer(self) -> TextScorer:
        """The scorer that runs the model over texts and gives logits."""
        return self._texts

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

        A `TransferWarning` names texts of which the encoder knows no token; for twenty texts or more it also says
        if too many of their tokens are unknown.

        Args:
            texts: N texts.
            texts_b: The second texts of N pairs, if the classifier reads pairs.
            batch_size: Texts in one forward pass.
            progress: Called with the count of texts done since the last call.

        Returns:
            Float64, shape (N, C), columns as ``labels``; a regression has one column with the predicted numbers.

        Raises:
            DataError: The argument is not a list of texts, a text is empty, or second texts are missing or superfluous.
        """
        columns: dict[str, list[str]] = {"text": check_texts(texts, "texts")}
        if texts_b is not None:
            columns["text_b"] = check_texts(texts_b, "texts_b")
            if len(columns["text_b"]) != len(columns["text"]):
                raise DataError(f"texts_b: expected {len(texts)} texts, one for each of texts, got {len(texts_b)}.")
        if not columns["text"]:
            return np.empty((0, self.space.num_outputs))
        return self._score(Dataset.from_dict(columns), batch_size=batch_size, progress=progress, where="texts")

    def predict(
        self,
        texts: Sequence[str],
        texts_b: Sequence[str] | None = None,
        *,
        batch_size: int = 64,
        abstain_below: float | None = None,
    ) -> list[Any]:
        """Name the label of each text.

        Args:
            texts: N texts.
            texts_b: The second texts of pairs.
            batch_size: Texts in one forward pass.
            abstain_below: Give no label if the likeliest class has a lower probability than this; in [0, 1].

        Returns:
            N label names, None for a text without a label; lists of names for multi_label; floats for regression.
        """
        check_abstention(abstain_below, self.space)
        probabilities = self.predict_proba(texts, texts_b, batch_size=batch_size)
        return name_predictions(probabilities, self.space, self._thresholds, abstain_below=abstain_below)

    def predict_table(
        self,
        table: object,
        *,
        text: str | None = None,
        text_b: str | None = None,
        encoding: str = "utf-8",
        delimiter: str | None = None,
        sheet: str | None = None,
        batch_size: int = 64,
        progress: Callable[[int], None] | None = None,
        where: str | None = None,
        abstain_below: float | None = None,
    ) -> Dataset:
        """Add predictions to a table.

        Args:
            table: A file (csv, tsv, xlsx, jsonl, parquet, arrow, ...), a `datasets.Dataset`, a pandas or polars frame,
                an Arrow table, a dictionary of columns, or a list of dictionaries.
            text: Column of the text; by default the training data's column, else one of the usual names.
            text_b: Column of the second text, likewise.
            encoding: Character encoding of text files.
            delimiter: Separator between the cells of a csv, tsv or txt file; found from its rows by default.
            sheet: Sheet of an Excel workbook; the first by default.
            batch_size: Texts in one forward pass.
            progress: Called with the count of rows done since the last call.
            where: Name of the table in messages.
            abstain_below: Leave ``predicted`` empty if the likeliest class has a lower probability than this; in
                [0, 1].

        Returns:
            The table with ``predicted`` and ``probability_<label>`` added; rows and columns keep their order.

        Raises:
            DataError: The table cannot be read, has no text column, or has a column that would be overwritten.
        """
        check_abstention(abstain_below, self.space)
        rows = read_table(table, encoding=encoding, delimiter=delimiter, sheet=sheet)
        where = where or (str(table) if isinstance(table, str | Path) else "table")
        text, text_b = self._recall_texts(rows, text, text_b)
        added = ["predicted"]
        if self.space.kind != "regression":
            added += [f"probability_{name}" for name in self.labels]
        taken = [name for name in added if name in rows.column_names]
        if taken:
            raise DataError(f"{where}: already has a column {taken[0]!r}, which would be overwritten. Rename it first.")
        ready = prepare_inference_table(rows, text=text, text_b=text_b, is_pair=self._reads_pairs(text_b), where=where)
        probabilities = self._score(ready, batch_size=batch_size, progress=progress, where=where)
        named = name_predictions(probabilities, self.space, self._thresholds, abstain_below=abstain_below)
        rows = rows.add_column("predicted", named)
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
        delimiter: str | None = None,
        sheet: str | None = None,
        batch_size: int = 64,
        progress: Callable[[int], None] | None = None,
        where: str | None = None,
    ) -> dict[str, Score]:
        """Score the classifier on a labelled table whose labels must fit the label contract.

        Args:
            table: As for `predict_table`.
            text: Column of the text; by default the training data's column, else one of the usual names.
            text_b: Column of the second text, likewise.
            label: Column of the label, or several 0/1 columns, likewise.
            label_separator: Separator between several labels in one text cell; the training data's by default.
            metrics: Report keys; by default those of the kind of task.
            encoding: Character encoding of text files.
            delimiter: Separator between the cells of a csv, tsv or txt file; found from its rows by default.
            sheet: Sheet of an Excel workbook; the first by default.
            batch_size: Texts in one forward pass.
            progress: Called with the count of rows done since the last call.
            where: Name of the table in messages.

        Returns:
            Metric to score with its interval and n.

        Raises:
            LabelError: The table has a label that the classifier does not know, or maps labels in another way.
            DataError: The table cannot be used.
        """
        rows = read_table(table, encoding=encoding, delimiter=delimiter, sheet=sheet)
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
        probabilities = self._score(ready, batch_size=batch_size, progress=progress, where=where, is_exact=True)
        wanted = metrics or Recipe(task=TaskConfig(kind=self.space.kind)).evaluation.metrics or []
        settings = EvaluationConfig()
        return score_split(
            truth,
            probabilities,
            self.space,
            wanted,
            resamples=settings.resamples,
            confidence=settings.confidence,
            thresholds=self._thresholds,
        )

    def explain(
        self,
        text: str,
        text_b: str | None = None,
        *,
        label: str | None = None,
        method: "Method" = "integrated_gradients",
        baseline: "Baseline" = "pad",
        steps: int | None = None,
    ) -> "Explanation":
        """Say which words count for and against a label, by default the predicted one; see `explain_text`."""
        from nlp_transfer.publishing.explain.command import explain_text

        found_1C = self.predict_proba([text], None if text_b is None else [text_b])
        named = name_predictions(found_1C, self.space, self._thresholds)[0]
        return explain_text(
            self._texts,
            text,
            text_b,
            found_1C[0],
            named,
            label=label,
            method=method,
            baseline=baseline,
            steps=steps,
            unit=TargetScale.read(self._artifact.metadata).deviation,
        )

    def save_pretrained(self, folder: str | Path) -> Path:
        """Copy the artefact to another folder; a copy that fails leaves nothing behind.

        Args:
            folder: A folder that does not exist yet or is empty.

        Returns:
            The folder.

        Raises:
            OutputError: The folder is not empty.
            StorageError: The disk is full or failing.
        """
        return copy_artifact(self._artifact.folder, Path(folder))

    def push_to_hub(
        self, repo_id: str, *, private: bool = False, merged: bool = False, revision: str | None = None
    ) -> "Pushed":
        """Push the artefact to the Hub as one commit; see `publishing.hub.push_artifact`.

        Args:
            repo_id: OWNER/NAME; created if it does not exist.
            private: Whether a newly created repository is visible to its owner alone.
            merged: Merge an adapter into its encoder and push the plain model.
            revision: Branch to push to; created if it does not exist.
        """
        from nlp_transfer.publishing.hub.push import push_artifact

        return push_artifact(self._artifact.folder, repo_id, private=private, merged=merged, revision=revision)

    def export(
        self,
        to: "Runtime",
        output_dir: str | Path | None = None,
        *,
        int8: bool = False,
        tolerance: float | None = None,
        data: object = None,
    ) -> "Exported":
        """Write this classifier's artefact for onnxruntime or OpenVINO; see `export_artifact`."""
        from nlp_transfer.publishing.export.command import export_artifact

        return export_artifact(
            self._artifact.folder, to=to, output_dir=output_dir, int8=int8, tolerance=tolerance, data=data
        )

    def _recall_texts(self, rows: Dataset, text: str | None, text_b: str | None) -> tuple[str | None, str | None]:
        """The columns of the texts: as named, else those of the training data if the table has them."""
        if text is not None or text_b is not None:
            return text, text_b
        named = (self._data.text, self._data.text_b if self._reads_pairs(self._data.text_b) else None)
        return named if {name for name in named if name} <= set(rows.column_names) else (None, None)

    def _recall_label(self, rows: Dataset) -> list[str] | None:
        """The columns of the label in the training data, where the table has them."""
        columns = [self._data.label] if isinstance(self._data.label, str) else self._data.label
        return columns if columns and set(columns) <= set(rows.column_names) else None

    def _reads_pairs(self, text_b: str | None) -> bool:
        """Whether the classifier reads two texts per example."""
        return text_b is not None if self._is_pair is None else self._is_pair

    def _score(
        self,
        table: Dataset,
        *,
        batch_size: int,
        progress: Callable[[int], None] | None,
        where: str,
        is_exact: bool = False,
    ) -> np.ndarray:
        """Give the probabilities of a table of texts; warn once about tokens that the encoder does not know."""
        is_pair = "text_b" in table.column_names
        if self._is_pair is not None and is_pair != self._is_pair:
            reads, got = ("pairs", "single texts") if self._is_pair else ("single texts", "pairs")
            raise DataError(f"texts_b: this classifier reads {reads}, got {got}.")
        # Predictions do not need the table's further columns, such as a label.
        texts = table.select_columns(["text", "text_b"] if is_pair else ["text"])
        most: int = EvaluationConfig.model_fields["max_tokens"].default
        tally = UnseenTally(self._texts.tokenizer)
        logits = self._texts.score(
            texts, batch_size=batch_size, max_tokens=most, progress=progress, is_exact=is_exact, notice=tally.add
        )
        found = tally.find()
        # In a few short texts a single emoji makes the share of unknown tokens large.
        if found.unseen or found.texts >= FEWEST_ROWS:
            way = "train with it as encoder.name"
            for message in describe_unseen(found, self._texts.tokenizer, where=where, way=way):
                warnings.warn(message, TransferWarning, stacklevel=3)
        probabilities = to_probabilities(logits, self.space)
        return probabilities if self._calibrator is None else self._calibrator.apply(probabilities)
