"""A masked-language model that classifies by the word it would put into a gap."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import RecipeError
from nlp_transfer.models.custom import CustomClassifier
from nlp_transfer.models.rows import find_ends, splice_tokens

__all__ = ["ClozeClassifier", "insert_tokens", "read_pattern"]

GAP, TEXT = "{mask}", "{text}"


def insert_tokens(
    inputs: Mapping[str, Tensor], front: Sequence[int], back: Sequence[int]
) -> tuple[dict[str, Tensor], Tensor]:
    """Put tokens after the first token and before the last token of every row, whatever its length.

    Args:
        inputs: ``input_ids``, ``attention_mask`` and maybe ``token_type_ids``, each of shape (B, L).
        front: F token ids for behind the first token.
        back: K token ids for before the last token.

    Returns:
        The inputs, each of shape (B, L + F + K), and where the first token of ``back`` stands, int64, shape (B,).

    Example:
        >>> rows = {"input_ids": torch.tensor([[1, 7, 2, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 0]])}
        >>> longer, place = insert_tokens(rows, [8], [9])
        >>> longer["input_ids"].tolist(), place.tolist()
        ([[1, 8, 7, 9, 2, 0]], [3])
    """
    first_B, last_B = find_ends(inputs["attention_mask"])
    # The back goes in first: the front would move its place.
    longer = splice_tokens(splice_tokens(inputs, last_B, back), first_B + 1, front)
    return longer, last_B + len(front)


def read_pattern(
    pattern: str, words: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[int], list[int]]:
    """Turn a pattern and the words that may fill its gap into token ids.

    Args:
        pattern: Holds ``{text}`` once and ``{mask}`` once, the gap behind the text.
        words: One a label, each a single token.
        tokenizer: That of the encoder.

    Returns:
        Tokens before the text, tokens behind it (the gap among them), and the token of each word.

    Raises:
        RecipeError: The pattern lacks a part, or a word is no single token.
    """
    if pattern.count(TEXT) != 1 or pattern.count(GAP) != 1 or pattern.index(GAP) < pattern.index(TEXT):
        raise RecipeError([f"strategy.pattern: expected {TEXT} once and {GAP} once behind it, got {pattern!r}."])
    if tokenizer.mask_token is None:
        raise RecipeError(["strategy.method: cloze needs a tokenizer with a mask token; this encoder's has none."])
    before, _, after = pattern.partition(TEXT)
    front = tokenizer(before.rstrip(), add_special_tokens=False)["input_ids"] if before.strip() else []
    back = tokenizer(after.replace(GAP, tokenizer.mask_token), add_special_tokens=False)["input_ids"]
    if back.count(tokenizer.mask_token_id) != 1:
        raise RecipeError([f"strategy.pattern: the gap of {pattern!r} is not one token of this encoder. Put spaces."])
    tokens = []
    for word in words:
        found = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        # Some tokenizers put a token for the space in front.
        known = [token for token in found if tokenizer.convert_ids_to_tokens(token).strip("▁Ġ ")]
        if len(known) != 1 or known[0] == tokenizer.unk_token_id:
            raise RecipeError(
                [
                    f"strategy.verbalizers: expected one word that this encoder knows as one token for each label, got "
                    f"{word!r}. Name another: strategy.verbalizers={{LABEL: WORD}}."
                ]
            )
        tokens.append(known[0])
    return front, back, tokens


class ClozeClassifier(CustomClassifier):
    """Scores each label by how well its word fills the gap.

    Args:
        encoder: With its masked-language head.
        labels: The label contract.
        front: Tokens before the text.
        back: Tokens behind it.
        gap: Where in ``back`` the gap is.
        words: The token of each label's word.
    """

    kind: ClassVar[str] = "cloze"
    auto: ClassVar[Any] = AutoModelForMaskedLM

    def __init__(
        self,
        encoder: PreTrainedModel,
        labels: LabelSpace,
        *,
        front: list[int],
        back: list[int],
        gap: int,
        words: list[int],
    ) -> None:
        super().__init__(encoder, labels, {"front": front, "back": back, "gap": gap, "words": words})
        self.front, self.back, self.gap, self.words = front, back, gap, words
        self._place_B: Tensor | None = None
        inner = getattr(encoder, encoder.base_model_prefix)
        inner.register_forward_hook(self._keep_gap)

    def _keep_gap(self, _: Any, __: Any, output: Any) -> Any:
        """Hand the head the state of the gap alone: it need not score every word at every token."""
        if self._place_B is not None:
            hidden_BLD = output[0]
            rows = torch.arange(hidden_BLD.shape[0], device=hidden_BLD.device)
            output["last_hidden_state"] = hidden_BLD[rows, self._place_B][:, None]
        return output

    def compute(self, inputs: dict[str, Tensor]) -> Tensor:
        """Give the logits of the labels' words in the gap."""
        longer, back_B = insert_tokens(inputs, self.front, self.back)
        self._place_B = back_B + self.gap
        try:
            logits_B1V: Tensor = self.encoder(**longer).logits
        finally:
            self._place_B = None
        return logits_B1V[:, 0, self.words].float()
