"""Which word of a text each token of a row came from."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nlp_transfer.data.tokens import LongText, RowMaker
from nlp_transfer.errors import EncoderError

__all__ = ["NO_WORD", "Word", "WordRows", "place_words"]

NO_WORD = -1
"""In place of a word's number: special tokens, and tokens that stand for no characters."""

# "don't" is three pieces to some tokenizers and one or two to others; to a reader it is one word.
CONTRACTION = re.compile("[^\\W\\d_]+(?:['\u2019][^\\W\\d_]+)+")

# Thai, Lao, kana and Han are written without spaces: some tokenizers take a whole sentence of them for one word.
SPACELESS = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


@dataclass(frozen=True)
class Word:
    """A word of a text.

    Attributes:
        part: Which of the texts it stands in.
        start: Its first character.
        end: The character behind its last.
    """

    part: Literal["text", "text_b"]
    start: int
    end: int


@dataclass(frozen=True)
class WordRows:
    """The rows of one example, token by token.

    Attributes:
        words: All words, those of the first text before those of the second.
        ids: Token ids, int64, shape (R, L): one row, or several windows.
        owners: Number of each token's word, or ``NO_WORD``, int64, shape (R, L).
    """

    words: tuple[Word, ...]
    ids: np.ndarray
    owners: np.ndarray

    @property
    def is_read(self) -> np.ndarray:
        """Whether the encoder reads at least one token of each word, bool, shape (W,)."""
        read: np.ndarray = np.isin(np.arange(len(self.words)), self.owners)
        return read


class _PlaceMaker(RowMaker):
    """Makes the same rows of places in a text's tokens, so that each token can be followed to where it came from."""

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Number the tokens of each text."""
        return [list(range(len(_tokenize(self.tokenizer, text)["input_ids"]))) for text in texts]


def place_words(
    tokenizer: Any,
    text: str,
    text_b: str | None = None,
    *,
    max_length: int,
    long_text: LongText = "truncate",
    window_overlap: float = 0.25,
    max_windows: int | None = None,
) -> WordRows:
    """Make the rows of one example as the encoder reads them, and say which word each token belongs to.

    Words are the tokenizer's own, with two changes: contractions stay whole, and where a script has no spaces between
    words every token stands for itself.

    Args:
        tokenizer: A fast `transformers` tokenizer.
        text: The first or only text.
        text_b: The second text of a pair.
        max_length: As for `RowMaker`, with the other settings.
        long_text: What happens to a text that does not fit.
        window_overlap: Least share of a window that repeats the one before.
        max_windows: Most windows of one text; no limit where absent.

    Returns:
        Rows with the owner of every token.

    Raises:
        EncoderError: The tokenizer does not say where its tokens come from.
        DataError: ``max_length`` leaves no room for the texts.
    """
    if not tokenizer.is_fast:
        raise EncoderError(
            f"encoder: expected a fast tokenizer, which knows where its tokens come from, got "
            f"{type(tokenizer).__name__}. Save the encoder with its tokenizer.json."
        )
    maker = _PlaceMaker(
        tokenizer,
        is_pair=text_b is not None,
        max_length=max_length,
        long_text=long_text,
        window_overlap=window_overlap,
        max_windows=max_windows,
    )
    words: list[Word] = []
    sides = [_read_words(tokenizer, text, "text", words)]
    sides.append(([], []) if text_b is None else _read_words(tokenizer, text_b, "text_b", words))
    (ids_a, owners_a), (ids_b, owners_b) = sides
    rows, _, _ = maker.make_rows([text], None if text_b is None else [text_b])
    template = maker.template
    ids = [template.wrap([ids_a[at] for at in first], [ids_b[at] for at in second]) for first, second in rows]
    before, between, after = ([NO_WORD] * len(part) for part in (template.prefix, template.middle, template.suffix))
    owners = [
        [*before, *(owners_a[at] for at in first), *between, *(owners_b[at] for at in second), *after]
        for first, second in rows
    ]
    return WordRows(tuple(words), np.asarray(ids, dtype=np.int64), np.asarray(owners, dtype=np.int64))


def _tokenize(tokenizer: Any, text: str) -> Any:
    """All tokens of a text, without special ones, and the characters that each stands for."""
    return tokenizer(
        text, add_special_tokens=False, padding=False, truncation=False, return_offsets_mapping=True, verbose=False
    )


def _read_words(
    tokenizer: Any, text: str, part: Literal["text", "text_b"], words: list[Word]
) -> tuple[list[int], list[int]]:
    """The ids of a text's tokens and the number of each one's word; the words are added to the list."""
    encoded = _tokenize(tokenizer, text)
    whole = {at: match.span() for match in CONTRACTION.finditer(text) for at in range(*match.span())}
    owners: list[int] = []
    blank: list[int] = []
    numbers = encoded.word_ids(0)
    last_key: object = None
    for place, (number, (start, end)) in enumerate(zip(numbers, encoded["offset_mapping"], strict=True)):
        shown = text[start:end]
        begin, stop = start + len(shown) - len(shown.lstrip()), end - len(shown) + len(shown.rstrip())
        if begin >= stop or number is None:
            owners.append(NO_WORD)
            blank.append(place)
            continue
        key: object = (begin, stop) if SPACELESS.search(shown) else whole.get(begin, number)
        if key == last_key:
            words[-1] = Word(part, words[-1].start, max(words[-1].end, stop))
        else:
            words.append(Word(part, begin, stop))
        owners.append(len(words) - 1)
        last_key = key
    # A mark for a space that is a token of its own goes with the word that it stands in.
    for place in reversed(blank):
        for beside in (place + 1, place - 1):
            if 0 <= beside < len(numbers) and numbers[beside] == numbers[place] is not None:
                owners[place] = owners[beside] if owners[place] == NO_WORD else owners[place]
    return list(encoded["input_ids"]), owners
