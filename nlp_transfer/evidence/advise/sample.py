"""What advice looks at: rows of train that an encoder reads once, and a reference sample beside them."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from nlp_transfer.contracts import Encoded, Prepared, Splits, Track
from nlp_transfer.data.encode import encode_table, read_padding
from nlp_transfer.data.examples import find_example
from nlp_transfer.data.tables import read_table
from nlp_transfer.engine.machine import compare_formats
from nlp_transfer.engine.precision import choose_precision
from nlp_transfer.engine.predict.forward import iterate_rows
from nlp_transfer.engine.predict.vectors import extract_vectors

__all__ = ["REFERENCE", "Sample", "draw_sample", "find_middle", "read_vectors", "time_passes"]

MOST_ROWS = 5_000
"""Rows that probes look at; chosen."""

MOST_WORK = 1.3e12
"""Weights times tokens that the encoder may read for the probes: about half a minute of one core. A bound in work, not
in seconds, so that the same table gives the same advice on every machine. Chosen."""

FEWEST_ROWS = 100
"""Rows that are read however long their texts are: folds need some; chosen."""

FEWEST_A_CLASS = 2
"""Rows of a class that are read where train has them: one to learn from and one to hold out."""

REFERENCE_ROWS, TIMED_ROWS = 200, 64
"""Rows of the reference sample, and of the timed pass; chosen."""

REFERENCE = "reviews"
"""The bundled reviews: plain English, as encoders know it."""


@dataclass(frozen=True)
class Sample:
    """What the encoder reads.

    Attributes:
        splits: All of the data.
        rows: Numbers of the rows of train that are read, in random order, shape (N,); two of every class that has them.
        texts: Their texts, the two of a pair joined.
        labels: Their class ids, int64, shape (N,).
        prepared: Tokens: ``train`` are those rows, ``reference`` the sample beside them, ``timed`` some of the rows.
        lengths: Tokens before anything is cut, of those rows and others that were not read, shape (M,).
        reference: Texts of the reference sample.
    """

    splits: Splits
    rows: np.ndarray
    texts: list[str]
    labels: np.ndarray
    prepared: Prepared
    lengths: np.ndarray
    reference: list[str]


def draw_sample(
    splits: Splits, tokenizer: Any, model: PreTrainedModel, *, max_length: int, seed: int, most_work: float = MOST_WORK
) -> Sample:
    """Take as many rows of train as the encoder may read, and the reference sample.

    Args:
        splits: Loaded tables; validation and test are not looked at.
        tokenizer: That of the encoder.
        model: The encoder, which says how many weights a token goes through.
        max_length: Tokens in a row, special ones included.
        seed: Which rows.
        most_work: Weights times tokens at most, but for the first hundred rows.

    Returns:
        The sample.
    """
    train, is_pair = splits.tables["train"], splits.is_pair
    order = np.random.default_rng(seed).permutation(len(train))
    table = train.select(order[:MOST_ROWS])
    pair = (list(table["text_b"]),) if is_pair else ()
    lengths = np.array([len(row) for row in tokenizer(list(table["text"]), *pair, verbose=False)["input_ids"]])
    embedding = sum(weight.numel() for weight in model.get_input_embeddings().parameters())
    weights = max(1, sum(weight.numel() for weight in model.parameters()) - embedding)
    work_N = np.cumsum(np.minimum(lengths, max_length)) * float(weights)
    kept = min(len(table), max(FEWEST_ROWS, int(np.searchsorted(work_N, most_work, side="right"))))
    rows = _hold_classes(order, kept, train)
    table = train.select(rows)
    reference = _read_reference()

    def encode(some: Dataset, *, pairs: bool) -> Encoded:
        return encode_table(some, tokenizer, is_pair=pairs, max_length=max_length, in_memory=True)

    encoded = {
        "train": encode(table, pairs=is_pair),
        "reference": encode(Dataset.from_dict({"text": reference}), pairs=False),
        "timed": encode(table.select(range(min(TIMED_ROWS, kept))), pairs=is_pair),
    }
    pad, side = read_padding(tokenizer)
    prepared = Prepared(encoded, splits.labels, pad, side)
    labels = np.asarray(table["label"], dtype=np.int64)
    return Sample(splits, rows, _join(table), labels, prepared, lengths, reference)


def _hold_classes(order: np.ndarray, kept: int, train: Dataset) -> np.ndarray:
    """The first rows of an order, where a class that has too few among them takes places of the largest ones."""
    labels = np.asarray(train.select_columns(["label"]).with_format("numpy")["label"][:], dtype=np.int64)[order]
    counts_C = np.bincount(labels[:kept], minlength=int(labels.max()) + 1)
    places = np.arange(kept)
    for rare in np.flatnonzero(counts_C < FEWEST_A_CLASS):
        for spare in kept + np.flatnonzero(labels[kept:] == rare)[: FEWEST_A_CLASS - counts_C[rare]]:
            largest = int(counts_C.argmax())
            if counts_C[largest] <= FEWEST_A_CLASS:
                return order[places]
            places[np.flatnonzero(labels[places] == largest)[-1]] = spare
            counts_C[largest] -= 1
            counts_C[rare] += 1
    return order[places]


def _read_reference() -> list[str]:
    """Some of the bundled reviews, always the same."""
    place = find_example(REFERENCE)
    assert place is not None, "the bundled reviews ship with the package"
    texts: list[str] = list(read_table(str(place / "train.csv"))["text"])
    return [texts[row] for row in np.random.default_rng(0).permutation(len(texts))[:REFERENCE_ROWS]]


def _join(table: Dataset) -> list[str]:
    """The text of every row, the two of a pair joined."""
    texts = list(table["text"])
    if "text_b" not in table.column_names:
        return texts
    return [f"{first} {second}" for first, second in zip(texts, table["text_b"], strict=True)]


def time_passes(model: PreTrainedModel, sample: Sample) -> float:
    """Time a forward pass on rows of the data's own lengths, in the number format that training would choose.

    Args:
        model: The encoder, on its device.
        sample: What it reads.

    Returns:
        Seconds a row, the share of padding taken off, as training has next to none; of three passes the fastest, as a
        busy machine only slows.
    """
    kind = model.device.type
    is_half = choose_precision("auto", kind).format == "bf16"
    # What a processor gains was measured once; a GPU shows it.
    gain = compare_formats() if is_half and kind == "cpu" else 1.0
    batches = [inputs for _, inputs in iterate_rows(sample.prepared, "timed", model.device)]
    seconds = []
    with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=is_half and kind != "cpu"):
        for _ in range(3):
            started = time.perf_counter()
            for inputs in batches:
                model(**inputs).last_hidden_state.sum().item()
            seconds.append(time.perf_counter() - started)
    encoded, padded = sample.prepared.splits["timed"], sum(inputs["input_ids"].numel() for inputs in batches)
    return min(seconds) / gain * (int(encoded.lengths.sum()) / padded) / encoded.num_examples


def find_middle(model: PreTrainedModel) -> int:
    """The middle layer by its number; 0, the embeddings, of an encoder with one layer."""
    return int(model.config.num_hidden_layers) // 2


def read_vectors(model: PreTrainedModel, sample: Sample, track: Track) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run the encoder once over the sample.

    Args:
        model: The encoder.
        sample: What it reads.
        track: Shows how far it is.

    Returns:
        Mean-pooled vectors of length 1, float32: of the last layer, shape (N, D); of the mean of middle and last layer,
        shape (N, D); and of the reference sample's last layer, shape (R, D).
    """
    last = int(model.config.num_hidden_layers)
    layers = [find_middle(model), last]
    both = extract_vectors(model, sample.prepared, "train", layers=layers, combine="concat", track=track)
    middle_ND, last_ND = np.split(both, 2, axis=1)
    cloud_RD = extract_vectors(model, sample.prepared, "reference", layers=[last], normalize=True)
    return _normalize(last_ND), _normalize((middle_ND + last_ND) / 2), cloud_RD


def _normalize(vectors_ND: np.ndarray) -> np.ndarray:
    """Vectors of length 1."""
    scaled: np.ndarray = vectors_ND / np.maximum(np.linalg.norm(vectors_ND, axis=1, keepdims=True), 1e-12)
    return scaled.astype(np.float32)
