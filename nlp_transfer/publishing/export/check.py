"""Hold an exported classifier against the torch one that it came from."""

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
"""Tokens read by a classifier that another tool saved; as `Classifier` has it."""

LENGTHS = (1, 2, 3, 6, 11, 23, 47)
"""Words of the made-up texts, beside one that fills a row; chosen."""

MADE_UP = ([4, 0, 6], [0], [2], [5, 1, 3, 6, 0, 4], [7, 1])
"""Which of them meet in a batch: ragged, alone, with one that fills a row. The first batch is also the example that the
exporters trace, so it has neither one row nor one token, nor as many of one as of the other."""

ROWS, ROWS_A_BATCH = 512, 16
"""Most rows of a table that are looked at, and how many at once, unsorted and so with padding; chosen."""


@dataclass(frozen=True)
class Check:
    """How two classifiers answered the same texts.

    Attributes:
        num_texts: Texts that were compared.
        num_batches: Batches that they came in.
        largest_difference: Largest absolute difference of two logits; infinite where one is no number.
        deviation: Standard deviation of the torch logits, to judge that difference by.
        agreement: Share of texts that get the same label; 1 for a regression, which has none.
    """

    num_texts: int
    num_batches: int
    largest_difference: float
    deviation: float
    agreement: float


def make_batches(artifact: LoadedArtifact) -> list[Microbatch]:
    """Make batches of several widths out of tokens drawn from the vocabulary, always the same.

    Args:
        artifact: Tells tokenizer, length and whether it reads pairs.

    Returns:
        Batches on the CPU.
    """
    tokenizer: Any = artifact.tokenizer
    generator = np.random.default_rng(0)
    special = set(tokenizer.all_special_ids)
    usable = np.array([token for token in range(len(tokenizer)) if token not in special])
    longest = _read_length(artifact)

    def draw(num_words: int) -> str:
        """A text of about so many tokens."""
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
        artifact: Tells tokenizer, length and whether it reads pairs.
        table: As `read_table` gives it.
        text: Column of the text; found by the usual names where absent.
        text_b: Column of the second text.
        most: Rows that are looked at, evenly spaced.

    Returns:
        Batches on the CPU, of rows as they follow each other.

    Raises:
        DataError: It has no texts such as the classifier reads.
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
        model: In evaluation mode, on the CPU.
        batches: From `make_batches` or `read_batches`.

    Returns:
        Logits, float32, shape (B, C) each.
    """
    with torch.inference_mode():
        return [compute_logits(model, batch).numpy() for batch in batches]


def compare_logits(expected: Sequence[np.ndarray], found: Sequence[np.ndarray], space: LabelSpace) -> Check:
    """Compare the answers of two classifiers.

    Args:
        expected: Logits by batch, float, shape (B, C) each.
        found: Those of the other one.
        space: The label contract.

    Returns:
        What there is to say about them.

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
    """Tokens in a row."""
    wanted = int(artifact.metadata.get("reading", {}).get("max_length", FALLBACK_LENGTH))
    config: Any = artifact.model.config
    return resolve_max_length(artifact.tokenizer, config, wanted)


def _reads_pairs(artifact: LoadedArtifact) -> bool:
    """Whether two texts an example are read."""
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
