"""Compare an exported classifier with the PyTorch classifier that was exported."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn

from nlp_transfer.contracts import LabelSpace, Prepared
from nlp_transfer.data.columns import prepare_inference_table
from nlp_transfer.data.encode import encode_table, read_padding, resolve_max_length
from nlp_transfer.engine.predict.forward import Feeder, Microbatch, compute_logits
from nlp_transfer.errors import ShapeError
from nlp_transfer.evaluation.predictions import predict_labels, to_probabilities
from nlp_transfer.models.artifacts import LoadedArtifact

__all__ = ["Check", "compare_logits", "compute_batches", "make_batches", "read_batches"]

FALLBACK_LENGTH = 512
"""Maximum tokens for a classifier that another tool saved; the same as in `Classifier`."""

LENGTHS = (1, 2, 3, 6, 11, 23, 47)
"""Words of the made-up texts; one further text has the maximum length; chosen."""

MADE_UP = ([4, 0, 6], [0], [2], [5, 1, 3, 6, 0, 4], [7, 1])
"""Indices of the made-up texts in each batch: ragged, alone, and with the longest text. The exporters trace the first
batch, so it has more than one row and more than one token, and the two numbers differ."""

ROWS, ROWS_A_BATCH = 512, 16
"""Most rows of a table that are checked, and rows per batch, unsorted and so with padding; chosen."""


@dataclass(frozen=True)
class Check:
    """Comparison of two classifiers on the same texts.

    Attributes:
        num_texts: Number of compared texts.
        num_batches: Number of batches.
        largest_difference: Largest absolute difference of two logits; infinite if a logit is not finite.
        deviation: Standard deviation of the PyTorch logits, as a scale for the difference.
        agreement: Share of texts with the same label from both; 1 for a regression, which has no labels.
    """

    num_texts: int
    num_batches: int
    largest_difference: float
    deviation: float
    agreement: float


def make_batches(artifact: LoadedArtifact) -> list[Microbatch]:
    """Make batches of several widths from tokens drawn from the vocabulary with a fixed seed.

    Args:
        artifact: Gives tokenizer, maximum length and whether the input is a pair of texts.

    Returns:
        Batches on the CPU.
    """
    tokenizer: Any = artifact.tokenizer
    generator = np.random.default_rng(0)
    special = set(tokenizer.all_special_ids)
    usable = np.array([token for token in range(len(tokenizer)) if token not in special])
    longest = _read_length(artifact)

    def draw(num_words: int) -> str:
        """Draw a text of about this many tokens."""
        text: str = tokenizer.decode(generator.choice(usable, num_words), clean_up_tokenization_spaces=False)
        return text if text.strip() else "a"

    columns = {"text": [draw(count) for count in (*LENGTHS, longest)]}
    if _reads_pairs(artifact):
        columns["text_b"] = [draw(count) for count in reversed((*LENGTHS, longest))]
    feeder = _open(artifact, Dataset.from_dict(columns))
    return [feeder.feed(np.array(group)) for group in MADE_UP]


def read_batches(
    artifact: LoadedArtifact, table: Dataset, *, text: str | None, text_b: str | None, most: int = ROWS
) -> list[Microbatch]:
    """Make batches of the rows of a table.

    Args:
        artifact: Gives tokenizer, maximum length and whether the input is a pair of texts.
        table: A table from `read_table`.
        text: Column of the text; found by the usual names where absent.
        text_b: Column of the second text.
        most: Most rows that are used, evenly spaced.

    Returns:
        Batches on the CPU, in the order of the rows.

    Raises:
        DataError: The table lacks the texts that the classifier reads.
    """
    is_pair = _reads_pairs(artifact) or text_b is not None
    ready = prepare_inference_table(table, text=text, text_b=text_b, is_pair=is_pair, where="data")
    ready = ready.select(np.unique(np.linspace(0, len(ready) - 1, min(most, len(ready))).round().astype(np.int64)))
    feeder = _open(artifact, ready.select_columns(["text", "text_b"] if is_pair else ["text"]))
    return [
        feeder.feed(np.arange(start, min(start + ROWS_A_BATCH, len(ready))))
        for start in range(0, len(ready), ROWS_A_BATCH)
    ]


def compute_batches(model: nn.Module, batches: Sequence[Microbatch]) -> list[np.ndarray]:
    """Run a classifier over batches.

    Args:
        model: In eval mode, on the CPU.
        batches: From `make_batches` or `read_batches`.

    Returns:
        Logits, float32, shape (B, C) each.
    """
    with torch.inference_mode():
        return [compute_logits(model, batch).numpy() for batch in batches]


def compare_logits(expected: Sequence[np.ndarray], found: Sequence[np.ndarray], space: LabelSpace) -> Check:
    """Compare the logits of two classifiers.

    Args:
        expected: Logits of the PyTorch classifier by batch, float, shape (B, C) each.
        found: Logits of the exported classifier, in the same shapes.
        space: The label contract.

    Returns:
        The comparison.

    Raises:
        ShapeError: There is nothing to compare, or the shapes differ.

    Example:
        >>> space = LabelSpace("classification", ("no", "yes"))
        >>> one, other = np.array([[0.0, 2.0], [1.0, 0.0]]), np.array([[0.0, 2.5], [0.0, 0.5]])
        >>> check = compare_logits([one], [other], space)
        >>> check.num_texts, check.largest_difference, check.agreement
        (2, 1.0, 0.5)
    """
    shapes, others = [each.shape for each in expected], [each.shape for each in found]
    if not shapes or shapes != others:
        raise ShapeError(f"export: expected logits of the shapes {shapes}, came {others}. Please report this.")
    one, other = np.concatenate(expected).astype(np.float64), np.concatenate(found).astype(np.float64)
    is_finite = bool(np.isfinite(one).all() and np.isfinite(other).all())
    agreement = 1.0
    if space.kind != "regression" and is_finite:
        first, second = (predict_labels(to_probabilities(each, space), space) for each in (one, other))
        agreement = float((first == second).reshape(len(one), -1).all(axis=1).mean())
    return Check(
        num_texts=len(one),
        num_batches=len(shapes),
        largest_difference=float(np.abs(one - other).max()) if is_finite else float("inf"),
        deviation=float(one.std()),
        agreement=agreement if is_finite else 0.0,
    )


def _read_length(artifact: LoadedArtifact) -> int:
    """Read the maximum number of tokens in a row."""
    wanted = int(artifact.metadata.get("reading", {}).get("max_length", FALLBACK_LENGTH))
    config: Any = artifact.model.config
    return resolve_max_length(artifact.tokenizer, config, wanted)


def _reads_pairs(artifact: LoadedArtifact) -> bool:
    """Whether an example is a pair of texts."""
    return bool(artifact.metadata.get("reading", {}).get("is_pair"))


def _open(artifact: LoadedArtifact, table: Dataset) -> Feeder:
    """Tokenize texts as the classifier does."""
    reading = artifact.metadata.get("reading", {})
    encoded = encode_table(
        table,
        artifact.tokenizer,
        is_pair="text_b" in table.column_names,
        max_length=_read_length(artifact),
        long_text=reading.get("long_text", "truncate"),
        window_overlap=float(reading.get("window_overlap", 0.25)),
        max_windows=reading.get("max_windows"),
        in_memory=True,
    )
    pad, side = read_padding(artifact.tokenizer)
    return Feeder(Prepared({"input": encoded}, artifact.labels, pad, side), "input", torch.device("cpu"))
