"""How far a table lies from what an encoder knows: its words, its masked tokens, its cloud of vectors."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from nlp_transfer.data.checks import list_words

__all__ = [
    "Fragmentation",
    "measure_fragmentation",
    "score_masked_tokens",
]

MANY_PIECES = 4
"""Pieces from which a word counts as broken up; chosen."""

MASKED_SHARE = 0.15
"""Of the tokens of each text, as BERT was pretrained (Devlin et al. 2019, section 3.1)."""

MASKED_BATCH = 16
"""Texts in one pass of the masked-language model; chosen."""


@dataclass(frozen=True)
class Fragmentation:
    """How a tokenizer breaks the words of some texts.

    Attributes:
        words: Words looked at, repeats counted.
        tokens_per_word: Mean count of tokens of a word; 1 where the vocabulary holds every word.
        broken_share: Share of the words that become four pieces or more.
    """

    words: int
    tokens_per_word: float
    broken_share: float


def measure_fragmentation(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Fragmentation:
    """Count the pieces into which a tokenizer breaks words.

    A vocabulary that was made for other texts breaks their words into many pieces, of which the encoder learned little.
    Words alone do not tell what is unknown, as emoji are none: see `data.unseen`.
    Every word is looked up behind a space, as it stands inside a text.

    Args:
        texts: Any texts.
        tokenizer: That of the encoder.

    Returns:
        Means over the words, repeats counted; all 0 where there are no words.

    Example:
        >>> from transformers import BertTokenizer
        >>> pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "b", "##a", "##d", "##l", "##y"]
        >>> tokenizer = BertTokenizer(vocab={piece: place for place, piece in enumerate(pieces)})
        >>> measure_fragmentation(["Good good badly zz"], tokenizer)
        Fragmentation(words=4, tokens_per_word=2.0, broken_share=0.25)
    """
    counts = Counter(word for text in texts for word in list_words(text))
    if not counts:
        return Fragmentation(0, 0.0, 0.0)
    words = list(counts)
    rows = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
    num_tokens = num_broken = 0
    for word, row in zip(words, rows, strict=True):
        # Some tokenizers put a token for the space in front.
        pieces = [token for token in row if tokenizer.convert_ids_to_tokens(token).strip("▁Ġ ")]
        num_tokens += counts[word] * len(pieces)
        num_broken += counts[word] * (len(pieces) >= MANY_PIECES)
    total = sum(counts.values())
    return Fragmentation(total, num_tokens / total, num_broken / total)


def score_masked_tokens(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_length: int, seed: int
) -> float:
    """Ask a masked-language model for tokens that were covered, 15 % of each text and at least one.

    Args:
        model: Has a masked-language head; on the CPU or another device.
        tokenizer: Its tokenizer.
        texts: Any texts.
        max_length: Tokens in a row, special ones included.
        seed: Chooses the tokens.

    Returns:
        Mean negative log-likelihood of a covered token, in nats; nan where no text has a token to cover.

    Source:
        The objective of Devlin et al. 2019, https://arxiv.org/abs/1810.04805; as a measure of distance Gururangan et
        al. 2020, https://arxiv.org/abs/2004.10964, table 2. All chosen tokens are covered at once, in one pass, where a
        pseudo-log-likelihood takes a pass for each token.
    """
    generator = np.random.default_rng(seed)
    device = next(model.parameters()).device
    total, count = 0.0, 0
    for start in range(0, len(texts), MASKED_BATCH):
        inputs = tokenizer(
            list(texts[start : start + MASKED_BATCH]),
            truncation=True,
            max_length=max_length,
            padding=True,
            return_tensors="pt",
            return_special_tokens_mask=True,
        )
        open_BL = ~inputs.pop("special_tokens_mask").bool().numpy()
        covered_BL = np.zeros_like(open_BL)
        for row, places in enumerate(np.flatnonzero(line) for line in open_BL):
            wanted = max(1, round(MASKED_SHARE * len(places)))
            covered_BL[row, generator.permutation(places)[:wanted]] = True
        chosen_BL = torch.from_numpy(covered_BL)
        if not chosen_BL.any():
            continue
        truth_M = inputs["input_ids"][chosen_BL]
        inputs["input_ids"] = inputs["input_ids"].masked_fill(chosen_BL, int(tokenizer.mask_token_id))
        with torch.inference_mode():
            logits_BLV: Any = model(**{name: value.to(device) for name, value in inputs.items()}).logits
        losses_M = nn.functional.cross_entropy(logits_BLV.cpu()[chosen_BL].float(), truth_M, reduction="none")
        total, count = total + float(losses_M.sum()), count + len(losses_M)
    return total / count if count else float("nan")
