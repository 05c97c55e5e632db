"""One vector a text from a frozen encoder, run once and kept on disk."""

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from nlp_transfer.contracts import Encoded, Prepared, Track, track_nothing
from nlp_transfer.data.fingerprints import hash_rows
from nlp_transfer.engine.predict.forward import iterate_rows
from nlp_transfer.engine.predict.hidden_states import FrozenReader, find_reader
from nlp_transfer.files import explain_writing
from nlp_transfer.models.vector_classifier import pool_tokens, read_layers

__all__ = ["extract_vectors", "hash_weights"]

CACHE_FORMAT = 1
"""Raise it whenever the same encoder and rows would give other vectors."""

FEWEST_KEPT = 1000
"""Examples above which vectors are kept on disk: naming the entry for fewer takes as long as the encoder; chosen."""


def extract_vectors(
    encoder: PreTrainedModel,
    prepared: Prepared,
    split: str,
    *,
    layers: list[int],
    combine: str = "mean",
    pooling: str = "mean",
    normalize: bool = False,
    half: bool = False,
    track: Track = track_nothing,
) -> np.ndarray:
    """Give the vectors of a split, from the cache where they were made before.

    What is kept is a vector a layer, so that other combinations of layers, other strategies and other commands use it
    again. The cache lies beside that of `datasets` (``HF_DATASETS_CACHE``) and is found by what the weights and the
    tokens are, not by names.

    Args:
        encoder: Without its head, on its device; it is run in evaluation mode.
        prepared: Tokenized splits.
        split: Which one.
        layers: Positions among the hidden states, 0 for the embeddings.
        combine: Several layers are averaged (``mean``) or stand side by side (``concat``).
        pooling: ``first`` token, ``mean`` or ``max`` over the tokens.
        normalize: Whether vectors get length 1.
        half: Whether the encoder may run in bf16: a vector then differs by about a 200th of its length.
        track: Shows how far it is.

    Returns:
        Float32, shape (N, D); the vectors of a long text's windows are averaged.

    Raises:
        StorageError: The cache cannot be written.
    """
    encoded = prepared.splits[split]
    reader = find_reader(encoder, prepared, split, layers) if half else None
    places = _name_entries(encoder, prepared, split, layers, pooling, is_half=reader is not None)
    found = [_read_entry(place, encoded.num_examples) for place in places]
    if wanted := [layer for layer, values in zip(layers, found, strict=True) if values is None]:
        if reader is None:
            summed = _run_encoder(encoder, prepared, split, wanted, pooling, track)
        else:
            summed = _read_packed(reader.narrow(wanted), prepared, split, wanted, pooling, track)
        made = dict(zip(wanted, summed, strict=True))
        for number, (layer, place) in enumerate(zip(layers, places, strict=True)):
            if found[number] is None:
                found[number] = made[layer]
                _write_entry(place, made[layer])
    kept = [values for values in found if values is not None]
    vectors_ND = np.concatenate(kept, axis=1) if combine == "concat" else np.mean(kept, axis=0, dtype=np.float32)
    if normalize:
        vectors_ND = vectors_ND / np.maximum(np.linalg.norm(vectors_ND, axis=1, keepdims=True), 1e-12)
    return np.ascontiguousarray(vectors_ND, dtype=np.float32)


def _run_encoder(
    encoder: PreTrainedModel, prepared: Prepared, split: str, layers: list[int], pooling: Any, track: Track
) -> list[np.ndarray]:
    """One array (N, D) a layer."""
    encoded, device = prepared.splits[split], next(encoder.parameters()).device
    sums = [np.zeros((encoded.num_examples, encoder.config.hidden_size), np.float32) for _ in layers]
    was_training = encoder.training
    encoder.eval()
    with torch.inference_mode(), track(f"vectors of {split}", len(encoded.lengths)) as advance:
        for rows, inputs in iterate_rows(prepared, split, device):
            found = read_layers(encoder, inputs, layers=layers, pooling=pooling)
            for total, vectors_RD in zip(sums, found, strict=True):
                np.add.at(total, encoded.examples[rows], vectors_RD.float().cpu().numpy())
            advance(len(rows))
    encoder.train(was_training)
    return _average_rows(sums, encoded)


def _read_packed(
    reader: FrozenReader, prepared: Prepared, split: str, layers: list[int], pooling: Any, track: Track
) -> list[np.ndarray]:
    """One array (N, D) a layer, of rows without padding."""
    encoded = prepared.splits[split]
    sums: list[np.ndarray] = []
    with track(f"vectors of {split}", len(encoded.lengths)) as advance:
        for states in reader.read(prepared, split):
            if not sums:
                sums = [np.zeros((encoded.num_examples, states.layers[each].shape[1]), np.float32) for each in layers]
            for total, layer in zip(sums, layers, strict=True):
                for rows, own_RLD in states.find_runs(layer):
                    vectors_RD = pool_tokens(own_RLD, torch.ones(own_RLD.shape[:2]), pooling)
                    np.add.at(total, encoded.examples[rows], vectors_RD.numpy())
            advance(len(states.rows))
    return _average_rows(sums, encoded)


def _average_rows(sums: list[np.ndarray], encoded: Encoded) -> list[np.ndarray]:
    """Divide by the rows of each example."""
    counts = np.bincount(encoded.examples, minlength=encoded.num_examples).astype(np.float32)
    return [total / counts[:, None] for total in sums]


def _name_entries(
    encoder: PreTrainedModel, prepared: Prepared, split: str, layers: list[int], pooling: str, *, is_half: bool
) -> list[Path | None]:
    """Where each layer's vectors are kept; None where they are too few."""
    encoded = prepared.splits[split]
    if encoded.num_examples < FEWEST_KEPT:
        return [None] * len(layers)
    settings = {
        "format": CACHE_FORMAT,
        "weights": hash_weights(encoder),
        "rows": hash_rows(encoded),
        "pad": dict(prepared.pad),
        "side": prepared.padding_side,
        "pooling": pooling,
        **({"precision": "bf16"} if is_half else {}),
    }
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "nlp_transfer" / "vectors"
    entries: list[Path | None] = []
    for layer in layers:
        key = hashlib.sha256(json.dumps({**settings, "layer": layer}, sort_keys=True).encode()).hexdigest()
        entries.append(folder / f"{key}.npy")
    return entries


def hash_weights(model: nn.Module) -> str:
    """Hash what a model computes with: its class, its config and every weight.

    Args:
        model: Has a ``config``; where it lies on the disk and the names of its labels do not count.

    Returns:
        A sha256 in hexadecimal.
    """
    digest = hashlib.sha256(type(model).__name__.encode())
    config: Any = model.config
    skipped = ("_name_or_path", "id2label", "label2id", "problem_type", "architectures", "transformers_version")
    settings: Mapping[str, Any] = {k: v for k, v in config.to_dict().items() if k not in skipped}
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(memoryview(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()


def _read_entry(place: Path | None, num_rows: int) -> np.ndarray | None:
    """Read kept vectors; None where there are none that hold."""
    if place is None or not place.is_file():
        return None
    try:
        values: np.ndarray = np.load(place, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    is_whole = values.ndim == 2 and len(values) == num_rows and values.dtype == np.float32
    return values if is_whole else None


def _write_entry(place: Path | None, values: np.ndarray) -> None:
    """Keep vectors, whole or not at all."""
    if place is None:
        return
    aside = place.with_name(f".{uuid.uuid4().hex}.writing")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            np.save(file, values, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(place)
    except OSError as error:
        raise explain_writing(
            place.parent,
            error,
            what="vectors could not be kept",
            way_out="Free space, or set HF_DATASETS_CACHE elsewhere.",
            elsewhere="set HF_DATASETS_CACHE to another folder",
        ) from error
    finally:
        # Its name is its own: nobody would write over what a signal left of it.
        aside.unlink(missing_ok=True)
