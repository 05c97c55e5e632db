"""From texts to rows of token ids: tokenize, cut to what the encoder reads, put the special tokens in place."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nlp_transfer.errors import DataError, EncoderError

__all__ = [
    "LongText",
    "RowMaker",
    "Template",
    "compare_lengths",
    "read_template",
    "split_budget",
    "spread_windows",
    "tokenize_texts",
]

LongText = Literal["truncate", "head_tail", "windows"]

CLIP_MARGIN = 4096
"""Characters between the last token that is kept and a cut through a text.

Fast tokenizers decide word by word, so a cut changes no token further away than the word it falls into. Where 4,096
characters hold no end of a word, WordPiece sees one unknown token either way, and the pieces of BPE and Unigram depend
on neighbours within a few of their longest pieces. Chosen: far beyond both.
"""

CHARACTERS_PER_TOKEN = 12
"""First guess of how much text the kept tokens need; twice as much is tried where it is too little. Chosen."""

CHARACTERS_PER_CALL = 2_000_000
"""Text that is tokenized at once, about 60 bytes of memory a character; chosen."""


@dataclass(frozen=True)
class Template:
    """Special tokens around the one or two texts of a row, and the type ids of all parts.

    Attributes:
        prefix: Ids before the first text.
        middle: Ids between the texts; empty for single texts.
        suffix: Ids after the last text.
        types: Type ids of prefix, first text, middle, second text and suffix; a text has one for all its tokens.
    """

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    types: tuple[tuple[int, ...], int, tuple[int, ...], int, tuple[int, ...]]

    @property
    def num_special(self) -> int:
        """Count of special tokens in a row."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)

    def wrap(self, first: Sequence[int], second: Sequence[int] = ()) -> list[int]:
        """Put the special tokens around texts."""
        return [*self.prefix, *first, *self.middle, *second, *self.suffix]

    def find_texts(self, offsets: np.ndarray, sizes_W: np.ndarray | None) -> np.ndarray:
        """Find the texts again in rows that stand one behind the other.

        Args:
            offsets: Where each row starts, and where the last one ends, shape (W + 1,).
            sizes_W: Tokens of the first text of each row, for pairs.

        Returns:
            Where each text starts and ends: shape (W, 2), for pairs (W, 4).

        Example:
            >>> template = Template((2,), (3,), (3,), ((0,), 0, (0,), 1, (1,)))
            >>> template.find_texts(np.array([0, 12]), np.array([5])).tolist()
            [[1, 6, 7, 11]]
        """
        start, end = offsets[:-1] + len(self.prefix), offsets[1:] - len(self.suffix)
        inner = [] if sizes_W is None else [start + sizes_W, start + sizes_W + len(self.middle)]
        return np.stack([start, *inner, end], axis=1)

    def wrap_types(self, num_first: int, num_second: int = 0) -> list[int]:
        """Type ids of a row with so many tokens of each text."""
        before, first, between, second, after = self.types
        return [*before, *([first] * num_first), *between, *([second] * num_second), *after]


def read_template(tokenizer: Any, *, is_pair: bool) -> Template:
    """Learn from the tokenizer itself where it puts special tokens.

    Args:
        tokenizer: A `transformers` tokenizer.
        is_pair: Whether rows hold two texts.

    Returns:
        The template.

    Raises:
        EncoderError: The texts cannot be found again in what the tokenizer makes of them.
    """
    probes = ("a", "b") if is_pair else ("a",)
    texts = tokenize_texts(tokenizer, probes)
    encoded = tokenizer(*probes, padding=False, truncation=False, return_token_type_ids=True)
    ids, types = list(encoded["input_ids"]), list(encoded["token_type_ids"])
    spans, start = [], 0
    for text in texts:
        while start <= len(ids) - len(text) and ids[start : start + len(text)] != text:
            start += 1
        if not text or start > len(ids) - len(text):
            raise EncoderError(
                f"encoder: expected a tokenizer that frames texts with special tokens, got {type(tokenizer).__name__}, "
                "which changes them. Choose an encoder of another family."
            )
        spans.append((start, start + len(text)))
        start += len(text)
    (begin, end), (begin_b, end_b) = spans[0], spans[-1]
    return Template(
        prefix=tuple(ids[:begin]),
        middle=tuple(ids[end:begin_b]) if is_pair else (),
        suffix=tuple(ids[end_b:]),
        types=(
            tuple(types[:begin]),
            types[begin],
            tuple(types[end:begin_b]) if is_pair else (),
            types[begin_b],
            tuple(types[end_b:]),
        ),
    )


@contextmanager
def _lift_limits(backend: Any) -> Iterator[None]:
    """Switch off the truncation and padding that a tokenizer file may carry, for as long as needed."""
    truncation, padding = backend.truncation, backend.padding
    backend.no_truncation()
    backend.no_padding()
    try:
        yield
    finally:
        if truncation is not None:
            backend.enable_truncation(**truncation)
        if padding is not None:
            backend.enable_padding(**padding)


def tokenize_texts(
    tokenizer: Any, texts: Sequence[str], *, keep: int | None = None, ends: Literal["head", "tail", "both"] = "head"
) -> list[list[int]]:
    """Tokenize texts without special tokens, very long ones only as far as needed.

    Args:
        tokenizer: A `transformers` tokenizer; only fast ones can stop early.
        texts: What to tokenize.
        keep: Tokens that are needed from the chosen ends of each text; all of them where absent.
        ends: Which ends those are.

    Returns:
        Token ids. A text of more than ``keep`` tokens may come back without what is not needed, but with more than
        ``keep`` tokens all the same.
    """
    if not tokenizer.is_fast:
        encoded = tokenizer(list(texts), add_special_tokens=False, padding=False, truncation=False, verbose=False)
        return [list(ids) for ids in encoded["input_ids"]]
    backend = tokenizer.backend_tokenizer
    size = None if keep is None else _measure_clip(keep)
    is_long = [size is not None and len(text) > size * (2 if ends == "both" else 1) for text in texts]
    found: list[list[int]] = [[]] * len(texts)
    with _lift_limits(backend):
        short = [index for index, long in enumerate(is_long) if not long]
        encodings = _call_in_parts(backend.encode_batch_fast, [texts[index] for index in short])
        for index, encoding in zip(short, encodings, strict=True):
            found[index] = encoding.ids
        for index, long in enumerate(is_long):
            if long and keep is not None:
                sides = ("head", "tail") if ends == "both" else (ends,)
                parts = [_tokenize_end(backend, texts[index], keep, from_tail=side == "tail") for side in sides]
                whole = next((ids for ids, is_whole in parts if is_whole), None)
                found[index] = whole if whole is not None else [token for ids, _ in parts for token in ids]
    return found


def _measure_clip(keep: int) -> int:
    """Characters of a text that are tokenized first where so many tokens are needed."""
    return CLIP_MARGIN + CHARACTERS_PER_TOKEN * keep


def _call_in_parts(encode: Callable[..., Any], texts: Sequence[str]) -> Iterator[Any]:
    """Encode few enough texts at once that the tokenizer's own records stay small."""
    start, num_characters = 0, 0
    for index, text in enumerate(texts):
        if num_characters + len(text) > CHARACTERS_PER_CALL and index > start:
            yield from encode(texts[start:index], add_special_tokens=False)
            start, num_characters = index, 0
        num_characters += len(text)
    yield from encode(texts[start:], add_special_tokens=False)


def compare_lengths(tokenizer: Any, text: str, text_b: str, *, above: int) -> int:
    """Find out which of two texts has more tokens, reading no more of them than it takes.

    Args:
        tokenizer: A fast `transformers` tokenizer.
        text: The first text.
        text_b: The second text.
        above: Tokens that at least one of them is known to have.

    Returns:
        More than 0 where the first has more, less than 0 where the second has, 0 where they have as many.
    """
    while True:
        # Beyond `above`, a count says only that there are more.
        counts = [len(ids) for ids in tokenize_texts(tokenizer, [text, text_b], keep=above)]
        if min(counts) <= above or max(len(text), len(text_b)) <= _measure_clip(above):
            return counts[0] - counts[1]
        above *= 4


def _tokenize_end(backend: Any, text: str, keep: int, *, from_tail: bool) -> tuple[list[int], bool]:
    """Tokenize one end of a long text, until more than ``keep`` tokens are far enough from the cut.

    Returns the ids and whether they are those of the whole text.
    """
    size = _measure_clip(keep)
    while size < len(text):
        clipped = text[-size:] if from_tail else text[:size]
        encoding = backend.encode(clipped, add_special_tokens=False)
        if len(encoding) > keep:
            offsets = encoding.offsets
            if from_tail and offsets[-keep - 1][0] >= CLIP_MARGIN:
                return encoding.ids[-keep - 1 :], False
            if not from_tail and offsets[keep][1] <= size - CLIP_MARGIN:
                return encoding.ids[: keep + 1], False
        size *= 2
    return backend.encode(text, add_special_tokens=False).ids, True


def split_budget(num_first: int, num_second: int, budget: int) -> tuple[int, int]:
    """Share the tokens of a row between two texts, as ``longest_first`` truncation does.

    Args:
        num_first: Tokens of the first text.
        num_second: Tokens of the second text.
        budget: Tokens for both together.

    Returns:
        Tokens to keep of each.

    Example:
        >>> split_budget(3, 50, 10), split_budget(40, 50, 10), split_budget(2, 3, 10)
        ((3, 7), (5, 5), (2, 3))
    """
    if num_first + num_second <= budget:
        return num_first, num_second
    shorter = min(num_first, num_second, budget // 2)
    longer = budget - shorter
    return (longer, shorter) if num_first > num_second else (shorter, longer)


def spread_windows(num_tokens: int, width: int, overlap: float) -> list[int]:
    """Place windows over a long text: as few as possible, evenly, all of full width.

    Args:
        num_tokens: Tokens of the text, more than ``width``.
        width: Tokens of a window.
        overlap: Share of a window that repeats the one before, at least; in [0, 1).

    Returns:
        Where each window starts; the last one ends with the text.

    Example:
        >>> spread_windows(20, 10, 0.25)
        [0, 5, 10]
    """
    step = max(1, width - int(width * overlap))
    num_windows = 1 + max(0, -(-(num_tokens - width) // step))
    return [int(start) for start in np.linspace(0, max(num_tokens - width, 0), num_windows).round()]


class RowMaker:
    """Makes rows of token ids out of texts.

    Args:
        tokenizer: A `transformers` tokenizer.
        is_pair: Whether every example holds two texts.
        max_length: Tokens in a row, special ones included.
        long_text: ``truncate`` keeps one end, on the tokenizer's own side; ``head_tail`` keeps both ends of what is
            cut; ``windows`` reads the longer text in several rows beside the whole other one, of which it keeps as
            much as fills half a row.
        window_overlap: Share of a window that repeats the one before, in [0, 1).
        max_windows: Most windows of one text; no limit where absent.

    Raises:
        DataError: ``max_length`` leaves no room for the texts.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        is_pair: bool,
        max_length: int,
        long_text: LongText,
        window_overlap: float,
        max_windows: int | None = None,
    ) -> None:
        self.tokenizer, self.is_pair, self.max_length = tokenizer, is_pair, max_length
        self.long_text, self.window_overlap, self.max_windows = long_text, window_overlap, max_windows
        self.template = read_template(tokenizer, is_pair=is_pair)
        self.budget = max_length - self.template.num_special
        self.keeps_tail = getattr(tokenizer, "truncation_side", "right") == "left"
        needed = self.template.num_special + 1 + is_pair
        if max_length < needed:
            raise DataError(
                f"data.max_length: expected at least {needed} tokens, of which {self.template.num_special} are special "
                f"ones, got {max_length}. Raise it."
            )

    def make_rows(
        self, texts: Sequence[str], texts_b: Sequence[str] | None = None
    ) -> tuple[list[tuple[list[int], list[int]]], list[int], list[bool]]:
        """Make the rows of some examples.

        Args:
            texts: First or only texts.
            texts_b: Second texts; needed for pairs.

        Returns:
            Ids of both texts of each row, without special tokens; the rows each example has; and whether the encoder
            does not see every token of it.
        """
        firsts = self._tokenize(texts)
        seconds = self._tokenize(texts_b) if texts_b is not None else [[]] * len(firsts)
        rows: list[tuple[list[int], list[int]]] = []
        counts, is_cut = [], []
        for index, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
            if len(first) + len(second) <= self.budget:
                rows.append((first, second))
                counts.append(1)
                is_cut.append(False)
            elif self.long_text == "windows":
                made, cut = self._make_windows(first, second)
                rows += made
                counts.append(len(made))
                is_cut.append(cut)
            else:
                num_first, num_second = self._share_row(first, second, texts[index], texts_b[index] if texts_b else "")
                rows.append((self._cut(first, num_first), self._cut(second, num_second)))
                counts.append(1)
                is_cut.append(True)
        return rows, counts, is_cut

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize as far as the mode needs it."""
        if self.long_text == "windows":
            return tokenize_texts(self.tokenizer, texts)
        ends: Literal["head", "tail", "both"] = "tail" if self.keeps_tail else "head"
        return tokenize_texts(
            self.tokenizer, texts, keep=self.max_length, ends="both" if self.long_text == "head_tail" else ends
        )

    def _share_row(self, first: list[int], second: list[int], text: str, text_b: str) -> tuple[int, int]:
        """Tokens to keep of each text, given what was tokenized of them."""
        num_first, num_second, half = len(first), len(second), self.budget // 2
        is_clipped = self.tokenizer.is_fast and max(len(text), len(text_b)) > _measure_clip(self.max_length)
        if is_clipped and self.budget % 2 and min(num_first, num_second) > half:
            # The longer text gets the spare token, and the count of a clipped one does not tell which that is.
            is_first = compare_lengths(self.tokenizer, text, text_b, above=self.max_length) > 0
            num_first, num_second = half + 1 + is_first, half + 1
        return split_budget(num_first, num_second, self.budget)

    def _cut(self, ids: list[int], num_kept: int) -> list[int]:
        """Keep so many tokens of one text."""
        if len(ids) <= num_kept:
            return ids
        if self.long_text == "head_tail":
            num_tail = num_kept // 2
            return ids[: num_kept - num_tail] + ids[len(ids) - num_tail :]
        return ids[len(ids) - num_kept :] if self.keeps_tail else ids[:num_kept]

    def _make_windows(self, first: list[int], second: list[int]) -> tuple[list[tuple[list[int], list[int]]], bool]:
        """Slide over the longer text; the other one stands in every row."""
        slides_first = len(first) >= len(second)
        longer, other = (first, second) if slides_first else (second, first)
        kept = other[: self.budget // 2]
        width = self.budget - len(kept)
        starts = spread_windows(len(longer), width, self.window_overlap)[: self.max_windows]
        parts = [longer[start : start + width] for start in starts]
        rows = [(part, kept) if slides_first else (kept, part) for part in parts]
        return rows, len(kept) < len(other) or starts[-1] + width < len(longer)
