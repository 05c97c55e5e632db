"""Masks of masked-language modeling: which words are hidden, and what stands in their place."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

__all__ = ["Masker", "draw_uniform", "find_word_starts", "make_masker"]

HIDDEN, REPLACED = 0.8, 0.1
"""Shares of the chosen tokens that become the mask token and a random token; the rest stays (Devlin et al. 2019)."""

CONTINUED = ("##",)
"""What WordPiece writes in front of a token that continues a word."""

SPACES = ("Ġ", "▁")
"""What byte-level BPE and SentencePiece write in front of a token that starts a word."""

MOST_WINDOWS = 4096
"""More than any text has windows: numbers of examples times this, plus that of the window, name a row."""

# The constants of SplitMix64 (Steele et al. 2014), as signed numbers, which torch has.
STEP, FIRST, SECOND = (
    int(np.uint64(each).astype(np.int64)) for each in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def draw_uniform(*keys: Tensor | int) -> Tensor:
    """Draw numbers that depend on their keys alone, whatever else is drawn and in whatever order.

    Args:
        keys: Int64 tensors that broadcast to one shape, and whole numbers; at least one is a tensor.

    Returns:
        Float64 in [0, 1), in the shape of the keys.

    Source:
        Steele et al. 2014, "Fast splittable pseudorandom number generators" (SplitMix64), once for each key.

    Example:
        >>> first = draw_uniform(0, torch.arange(4))
        >>> bool((draw_uniform(0, torch.tensor([2])) == first[2]).all()), bool(((first >= 0) & (first < 1)).all())
        (True, True)
    """
    state: Tensor | int = 0
    for key in keys:
        state = torch.as_tensor(state) ^ torch.as_tensor(key, dtype=torch.int64)
        state = _mix(state + STEP)
    assert isinstance(state, Tensor)
    return _shift(state, 11).to(torch.float64) * 2.0**-53


def _mix(state: Tensor) -> Tensor:
    """The finalizer of SplitMix64; overflow wraps around."""
    state = (state ^ _shift(state, 30)) * FIRST
    state = (state ^ _shift(state, 27)) * SECOND
    return state ^ _shift(state, 31)


def _shift(state: Tensor, bits: int) -> Tensor:
    """Shift right without the sign."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def find_word_starts(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Tell for each token of a vocabulary whether it starts a word.

    WordPiece marks what continues a word; byte-level BPE and SentencePiece mark the space in front of a word. Of the
    latter, a token without letters and digits, such as a comma, is a word of its own.

    Args:
        tokenizer: Any fast tokenizer.

    Returns:
        Bool, shape (V,), V being the largest id plus one.

    Example:
        >>> from transformers import BertTokenizer
        >>> vocab = {piece: place for place, piece in enumerate(["[PAD]", "[UNK]", "play", "##ing"])}
        >>> find_word_starts(BertTokenizer(vocab=vocab))[:4].tolist()
        [True, True, True, False]
    """
    vocabulary = tokenizer.get_vocab()
    starts = np.ones(max(vocabulary.values()) + 1, dtype=bool)
    marks_spaces = any(piece.startswith(SPACES) for piece in vocabulary)
    for piece, number in vocabulary.items():
        is_inside = marks_spaces and not piece.startswith(SPACES) and any(letter.isalnum() for letter in piece)
        if is_inside or piece.startswith(CONTINUED):
            starts[number] = False
    return starts


@dataclass(frozen=True)
class Masker:
    """Chooses the tokens that a model is asked for, a function of seed, step and row alone.

    Attributes:
        share: Of the words that are chosen, in (0, 1).
        seed: Of the run.
        mask_token: Id of the mask token.
        starts: Whether a token starts a word, bool, shape (V,).
        special: Whether a token is never chosen, bool, shape (V,).
        ordinary: Ids that a random token is drawn from, int64, shape (U,).
    """

    share: float
    seed: int
    mask_token: int
    starts: Tensor
    special: Tensor
    ordinary: Tensor

    def to(self, device: torch.device) -> "Masker":
        """The same with its tensors on a device."""
        placed = (each.to(device) for each in (self.starts, self.special, self.ordinary))
        return Masker(self.share, self.seed, self.mask_token, *placed)

    def choose(self, input_ids: Tensor, attention_mask: Tensor, rows: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Hide words.

        Args:
            input_ids: Int64, shape (R, L), padded on either side.
            attention_mask: 1 where a token is, shape (R, L).
            rows: Numbers that name the rows, int64, shape (R,).
            step: The update; the same row gets other masks at another.

        Returns:
            What the model reads, int64, shape (R, L); and which tokens it is asked for, bool, shape (R, L).
        """
        is_open_RL = attention_mask.bool() & ~self.special[input_ids]
        # A word is counted from the first token of its row, so that padding does not matter; behind a special token
        # each word is a new one.
        is_start_RL = is_open_RL & self.starts[input_ids]
        is_start_RL |= is_open_RL & ~torch.nn.functional.pad(is_open_RL, (1, 0))[:, :-1]
        words_RL = is_start_RL.cumsum(dim=1)
        keys = (self.seed, step, rows[:, None])
        chosen_RL = is_open_RL & (draw_uniform(*keys, 0, words_RL) < self.share)
        tokens_RL = attention_mask.long().cumsum(dim=1)
        what_RL = draw_uniform(*keys, 1, tokens_RL)
        places_RL = (draw_uniform(*keys, 2, tokens_RL) * len(self.ordinary)).long()
        masked_RL = torch.where(chosen_RL & (what_RL < HIDDEN), self.mask_token, input_ids)
        is_random_RL = chosen_RL & (what_RL >= HIDDEN) & (what_RL < HIDDEN + REPLACED)
        return torch.where(is_random_RL, self.ordinary[places_RL], masked_RL), chosen_RL


def make_masker(tokenizer: PreTrainedTokenizerBase, *, share: float, seed: int, whole_words: bool = True) -> Masker:
    """Make what chooses masks.

    Args:
        tokenizer: Fast, with a mask token.
        share: Of the words that are chosen.
        seed: Of the run.
        whole_words: Whether all tokens of a word are chosen together; else each token by itself.

    Source:
        Devlin et al. 2019, section 3.1, https://arxiv.org/abs/1810.04805; whole words as in its later release.
        Departure: each word is chosen independently, so that a row's share of masked words varies around ``share``.
    """
    assert tokenizer.mask_token_id is not None
    starts = torch.from_numpy(find_word_starts(tokenizer))
    special = torch.zeros(len(starts), dtype=torch.bool)
    special[[each for each in tokenizer.all_special_ids if each < len(starts)]] = True
    ordinary = torch.tensor(sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)))
    starts = starts if whole_words else torch.ones_like(starts)
    return Masker(share, seed, int(tokenizer.mask_token_id), starts, special, ordinary)
