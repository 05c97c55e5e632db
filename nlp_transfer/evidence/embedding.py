"""What an encoder says of the rows before it is trained: vectors of every layer, and the answers of its old head."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from nlp_transfer.contracts import Prepared, Splits, Track, track_nothing
from nlp_transfer.data.encode import encode_splits, resolve_max_length
from nlp_transfer.engine.precision import choose_device, choose_precision
from nlp_transfer.engine.predict.texts import Reading, TextScorer
from nlp_transfer.engine.predict.vectors import extract_vectors
from nlp_transfer.errors import ArtifactError, DataError, RecipeError
from nlp_transfer.models.artifacts import load_artifact
from nlp_transfer.models.encoder import check_vocabulary, load_encoder, load_tokenizer, read_config
from nlp_transfer.models.resolve import EncoderSource, resolve_encoder
from nlp_transfer.models.vector_classifier import drop_pooler
from nlp_transfer.recipe.schema import DataConfig, EncoderConfig, Recipe

__all__ = [
    "EmbeddedRows",
    "choose_rows",
    "embed_rows",
    "find_posteriors",
    "is_trained_on",
    "narrow_splits",
    "open_encoder",
]

SPLIT = "train"


@dataclass(frozen=True)
class EmbeddedRows:
    """An encoder's vectors of the rows that are looked at.

    Attributes:
        vectors: Float32, shape (layers + 1, N, D), mean-pooled over tokens; the embeddings come first.
        source: Where the encoder came from.
        parameters: Count of the encoder's weights, pooler and head left out.
    """

    vectors: NDArray[np.float32]
    source: EncoderSource
    parameters: int

    @property
    def num_layers(self) -> int:
        """Count of the encoder's layers, embeddings left out."""
        return len(self.vectors) - 1

    def combine(self, layers: str | int) -> dict[int | str, NDArray[np.float64]]:
        """Make the features that estimators read.

        Args:
            layers: As `read_layers_option` gives it.

        Returns:
            Name of the features to float64, shape (N, D): one entry, or one a layer for ``all``.

        Raises:
            RecipeError: The encoder has no such layer.
        """
        total = self.num_layers
        if layers == "mean":
            # The embeddings are no layer: they know words, but not what stands beside them.
            return {"mean": self.vectors[1:].mean(axis=0, dtype=np.float64)}
        if layers == "all":
            return {layer: self.vectors[layer].astype(np.float64) for layer in range(1, total + 1)}
        place = total if layers == "last" else int(layers)
        place = place if place >= 0 else total + 1 + place
        if not 0 <= place <= total:
            raise RecipeError(
                f"layers: {self.source.name} has {total} layers, got {layers}. Name one from {-total - 1} to {total}."
            )
        return {place: self.vectors[place].astype(np.float64)}


def choose_rows(labels_N: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """Draw rows with equal shares of every class, and of each class at least two where it has them.

    Args:
        labels_N: Class ids, shape (N,).
        limit: How many rows; all where there are fewer. Many classes may take some more, for their two rows each.
        seed: Of the draw.

    Returns:
        Row numbers, ascending, int64.

    Example:
        >>> labels = np.array([0] * 90 + [1] * 10)
        >>> np.bincount(labels[choose_rows(labels, 20, seed=0)]).tolist()
        [18, 2]
    """
    if limit >= len(labels_N):
        return np.arange(len(labels_N))
    order = np.random.default_rng(seed).permutation(len(labels_N))
    counts_C = np.bincount(labels_N)
    quotas_C = counts_C * (limit / len(labels_N))
    wanted_C = np.floor(quotas_C).astype(np.int64)
    # Largest remainders fill up what rounding down left; of equal ones, the first classes.
    remainders = np.argsort(-(quotas_C - wanted_C), kind="stable")
    wanted_C[remainders[: limit - int(wanted_C.sum())]] += 1
    wanted_C = np.maximum(wanted_C, np.minimum(counts_C, 2))
    grouped = order[np.argsort(labels_N[order], kind="stable")]
    places_N = np.arange(len(grouped)) - np.repeat(np.cumsum(counts_C) - counts_C, counts_C)
    return np.sort(grouped[places_N < np.repeat(wanted_C, counts_C)])


def narrow_splits(splits: Splits, limit: int, seed: int) -> Splits:
    """Keep what is looked at: some rows of train, and nothing else.

    Args:
        splits: Loaded tables.
        limit: How many rows.
        seed: Of the draw.

    Returns:
        Splits with a train table only.

    Raises:
        DataError: The task is not one class of several, or two classes are not left.
    """
    if not splits.labels.is_categorical:
        raise DataError(
            f"task.kind: expected a task with one class a row to rank encoders on, got {splits.labels.kind}. "
            "Compare runs instead."
        )
    labels_N = np.asarray(splits.tables[SPLIT]["label"], dtype=np.int64)
    rows = choose_rows(labels_N, limit, seed)
    if len(np.unique(labels_N[rows])) < 2:
        raise DataError(f"train: expected two classes or more among {len(rows)} rows, got one. Add rows of another.")
    return Splits({SPLIT: splits.tables[SPLIT].select(rows)}, splits.labels, splits.facts)


def embed_rows(
    config: EncoderConfig, rows: Splits, recipe: Recipe, *, pooling: str = "mean", track: Track = track_nothing
) -> EmbeddedRows:
    """Run an encoder once over the rows, and keep the vectors of all of its layers.

    An artefact loses its head here, as at the start of any training. Where training would compute in bf16, so does
    this, from 256 rows on. Of a thousand rows and more, vectors are kept on the disk, where other commands find them
    too.

    Args:
        config: Which encoder.
        rows: From `narrow_splits`.
        recipe: How texts are read, and on which device.
        pooling: How tokens become one vector: ``first``, ``mean`` or ``max``.
        track: Shows how far it is.

    Returns:
        The vectors.

    Raises:
        EncoderError: The encoder cannot be loaded.
    """
    training = recipe.training
    encoder, prepared, source = open_encoder(
        config, rows, recipe.data, [SPLIT], device=training.device, seed=training.seed
    )
    total = int(encoder.config.num_hidden_layers)
    side_by_side_NX = extract_vectors(
        encoder,
        prepared,
        SPLIT,
        layers=list(range(total + 1)),
        combine="concat",
        pooling=pooling,
        half=choose_precision(training.precision, encoder.device.type).format == "bf16",
        track=track,
    )
    vectors_KND = side_by_side_NX.reshape(len(side_by_side_NX), total + 1, -1).transpose(1, 0, 2)
    return EmbeddedRows(vectors_KND, source, sum(weight.numel() for weight in encoder.parameters()))


def open_encoder(
    config: EncoderConfig, splits: Splits, data: DataConfig, names: Sequence[str], *, device: str, seed: int = 0
) -> tuple[PreTrainedModel, Prepared, EncoderSource]:
    """Load an encoder without its head, and tokenize what it is to read.

    Args:
        config: Which encoder.
        splits: Loaded tables.
        data: How texts are read.
        names: The splits that are read.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: Of what is drawn: the encoder, where it starts from random weights.

    Returns:
        The encoder on its device, without head and pooler; the tokens; and where the encoder came from.

    Raises:
        EncoderError: The encoder cannot be loaded.
    """
    loaded = load_encoder(config, splits.labels, seed=seed)
    tokenizer = load_tokenizer(loaded.source, trust_remote_code=config.trust_remote_code)
    check_vocabulary(tokenizer, loaded.model.config, where=f"encoder.name: {loaded.source.name}")
    length = resolve_max_length(tokenizer, loaded.model.config, data.max_length)
    reading = data.model_copy(update={"max_length": length})
    prepared = encode_splits(splits, tokenizer, reading, splits_to_encode=names)
    encoder: PreTrainedModel = drop_pooler(getattr(loaded.model, loaded.model.base_model_prefix))
    return encoder.to(torch.device(choose_device(device))), prepared, loaded.source


def is_trained_on(source: EncoderSource, data: str) -> bool:
    """Tell whether an encoder is an earlier run on the very data that it is looked at with.

    Args:
        source: The encoder.
        data: As a recipe names it.

    Returns:
        Whether the recipe of its run names the same; other names of the same rows are not seen through, nor is an
        artefact without its run.
    """
    # The artefact itself keeps no paths of the machine it was made on.
    place = Path(source.location).parent / "report.json"
    try:
        there = json.loads(place.read_text(encoding="utf-8"))["recipe"]["data"]["path"]
        return bool(there == data or Path(there).resolve() == Path(data).resolve())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def find_posteriors(config: EncoderConfig, rows: Splits, recipe: Recipe) -> tuple[NDArray[np.float64] | None, str]:
    """Ask an encoder's old head for the probabilities of the classes it was fine-tuned for.

    Args:
        config: Which encoder.
        rows: From `narrow_splits`.
        recipe: How texts are read, and on which device.

    Returns:
        Float64, shape (N, Z), or None; and why it is None.
    """
    source = resolve_encoder(config)
    if source.kind in ("folder", "hub"):
        settings = read_config(source, trust_remote_code=config.trust_remote_code)
        names: Any = getattr(settings, "architectures", None) or []
        if not any(str(name).endswith("ForSequenceClassification") for name in names):
            return None, "not a fine-tuned classifier: it has no head"
    try:
        artifact = load_artifact(source.location, revision=source.revision, trust_remote_code=config.trust_remote_code)
    except ArtifactError as error:
        return None, f"its head cannot be used: {error}"
    if not artifact.labels.is_categorical or artifact.labels.num_outputs < 2:
        return None, f"its head gives no classes, but {artifact.labels.kind}"
    device = torch.device(choose_device(recipe.training.device))
    reading = Reading(
        max_length=resolve_max_length(artifact.tokenizer, artifact.model.config, recipe.data.max_length),
        long_text=recipe.data.long_text,
        window_overlap=recipe.data.window_overlap,
        max_windows=recipe.data.max_windows,
    )
    model = artifact.model.to(device)
    scorer = TextScorer(model, artifact.tokenizer, artifact.labels, reading, device, precision="fp32")
    columns = ["text", "text_b"] if rows.is_pair else ["text"]
    logits_NZ = scorer.score(
        rows.tables[SPLIT].select_columns(columns), batch_size=64, max_tokens=recipe.training.max_tokens, is_exact=True
    )
    posteriors_NZ = torch.from_numpy(logits_NZ).double().softmax(dim=1).numpy()
    return posteriors_NZ, ""
