"""From a table of texts to logits, in memory that does not grow with the table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn

from nlp_transfer.contracts import Encoded, LabelSpace, Prepared
from nlp_transfer.data.encode import encode_table, read_padding
from nlp_transfer.data.tokens import LongText
from nlp_transfer.engine.precision import choose_prediction
from nlp_transfer.engine.predict.forward import Feeder
from nlp_transfer.engine.predict.half import HalfScorer
from nlp_transfer.engine.predict.logits import predict_logits

__all__ = ["Reading", "TextScorer"]

EXAMPLES_PER_CHUNK = 8_192
"""Examples that are tokenized, sorted by length and scored together: of a table of any size, no more tokens than theirs
are in memory. Chosen: the passes over more of them would be hardly fuller."""


@dataclass(frozen=True)
class Reading:
    """How a classifier reads texts.

    Attributes:
        max_length: Tokens in a row, special ones included.
        long_text: What happens to texts that do not fit.
        window_overlap: Least share of a window that repeats the one before.
        max_windows: Most windows of one text; no limit where absent.
    """

    max_length: int
    long_text: LongText
    window_overlap: float
    max_windows: int | None


class TextScorer:
    """Runs a model over texts.

    Args:
        model: In evaluation mode, on the device; its weights do not change any more.
        tokenizer: Its tokenizer.
        space: Its label contract.
        reading: How it reads texts.
        device: Where it is.
        precision: ``auto``, ``fp32`` or ``bf16``, see `choose_prediction`.

    Raises:
        RecipeError: There is no such precision on that device.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        space: LabelSpace,
        reading: Reading,
        device: torch.device,
        *,
        precision: str,
    ) -> None:
        self.model, self.tokenizer, self.space, self.reading = model, tokenizer, space, reading
        self.device, self._precision = device, precision
        self._half = HalfScorer(model, space)
        if precision != "auto":
            choose_prediction(precision, device.type)

    def score(
        self,
        texts: Dataset,
        *,
        batch_size: int,
        max_tokens: int,
        progress: Callable[[int], None] | None = None,
        is_exact: bool = False,
        notice: Callable[[Dataset, Encoded], None] | None = None,
    ) -> np.ndarray:
        """Score every text of a table, chunk by chunk.

        Args:
            texts: Column ``text`` and, for pairs, ``text_b``; at least one row.
            batch_size: Texts in one forward pass.
            max_tokens: Most tokens in one forward pass.
            progress: Called with the count of texts done since the last call.
            is_exact: Whether ``auto`` means fp32, because figures come of the logits, not only labels.
            notice: Called with each chunk of the texts and its tokens.

        Returns:
            Logits, float32, shape (N, C).
        """
        parts = []
        for start in range(0, len(texts), EXAMPLES_PER_CHUNK):
            chunk = texts.select(range(start, min(start + EXAMPLES_PER_CHUNK, len(texts))))
            feeder = self._open(chunk, notice)
            wanted = "fp32" if is_exact and self._precision == "auto" else self._precision
            if self._half.suits(feeder) and choose_prediction(wanted, self.device.type).format == "bf16":
                scored = self._half.predict(feeder, batch_size=batch_size, max_tokens=max_tokens, progress=progress)
            else:
                scored = predict_logits(
                    self.model, feeder, batch_size=batch_size, max_tokens=max_tokens, progress=progress
                )
            parts.append(scored)
        return np.concatenate(parts)

    def encode(self, texts: Dataset) -> Prepared:
        """Tokenize some texts, in memory: they are read once.

        Args:
            texts: Column ``text`` and, for pairs, ``text_b``; at least one row.

        Returns:
            One split, ``input``.
        """
        encoded = encode_table(
            texts,
            self.tokenizer,
            is_pair="text_b" in texts.column_names,
            max_length=self.reading.max_length,
            long_text=self.reading.long_text,
            window_overlap=self.reading.window_overlap,
            max_windows=self.reading.max_windows,
            in_memory=True,
        )
        pad, side = read_padding(self.tokenizer)
        return Prepared({"input": encoded}, self.space, pad, side)

    def _open(self, texts: Dataset, notice: Callable[[Dataset, Encoded], None] | None = None) -> Feeder:
        """Tokenize some texts and make them ready to be run."""
        prepared = self.encode(texts)
        if notice is not None:
            notice(texts, prepared.splits["input"])
        return Feeder(prepared, "input", self.device, pad_to_multiple_of=8 if self.device.type == "cuda" else None)
