"""A classifier that asks, label by label, whether a text entails a hypothesis about it."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import RecipeError
from nlp_transfer.models.own import OwnClassifier

__all__ = ["EntailmentClassifier", "append_tokens", "find_entailment"]

ENTAILMENT = frozenset({"entailment", "entails", "entailed", "entail"})
CONTRADICTION = frozenset({"contradiction", "contradicts", "contradicted", "contradict", "contradictory"})
NO_ENTAILMENT = frozenset({"not entailment", "non entailment", "no entailment", "not entailed"})
"""Names that heads for natural language inference go by, in lower case."""


def find_entailment(names: Sequence[str]) -> tuple[int, int]:
    """Find the outputs of a head for natural language inference by their names.

    Args:
        names: The head's labels, one an output.

    Returns:
        Number of the output for entailment, and of the one against it: contradiction, or the other of two.

    Raises:
        RecipeError: The head is another.

    Example:
        >>> find_entailment(["CONTRADICTION", "neutral", "Entailment"])
        (2, 0)
        >>> find_entailment(["entailment", "not_entailment"])
        (0, 1)
    """
    plain = [" ".join(name.casefold().replace("_", " ").replace("-", " ").split()) for name in names]
    positive = [number for number, name in enumerate(plain) if name in ENTAILMENT]
    against = [number for number, name in enumerate(plain) if name in CONTRADICTION]
    against = against or [number for number, name in enumerate(plain) if name in NO_ENTAILMENT]
    if len(positive) == 1 and len(plain) == 2:
        return positive[0], 1 - positive[0]
    if len(positive) == 1 and len(against) == 1:
        return positive[0], against[0]
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    raise RecipeError(
        "strategy.method: entailment needs an encoder.name whose head tells entailment from contradiction, came one of "
        f"the labels {shown}. Name a classifier of natural language inference, such as the run of nli/full."
    )


def append_tokens(
    input_ids: Tensor,
    attention_mask: Tensor,
    token_type_ids: Tensor | None,
    *,
    tokens: Sequence[int],
    types: Sequence[int],
    pad: int,
    pad_type: int = 0,
) -> dict[str, Tensor]:
    """Put the same tokens behind the end of every row, wherever its padding is.

    Args:
        input_ids: Rows, int64, shape (B, L).
        attention_mask: 1 for tokens and 0 for padding, shape (B, L).
        token_type_ids: Shape (B, L), or None where the encoder reads none.
        tokens: K ids.
        types: Their type ids.
        pad: Id that pads.
        pad_type: Type id that pads.

    Returns:
        The same inputs, each of shape (B, L + K).

    Example:
        >>> rows, mask = torch.tensor([[5, 6, 7], [5, 7, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
        >>> append_tokens(rows, mask, None, tokens=[8, 7], types=[1, 1], pad=0)["input_ids"].tolist()
        [[5, 6, 7, 8, 7], [5, 7, 8, 7, 0]]
    """
    num_rows, width, num_added = len(input_ids), input_ids.shape[1], len(tokens)
    steps_L = torch.arange(1, width + 1, device=input_ids.device)
    ends_B = (attention_mask * steps_L).amax(dim=1)
    places_BK = ends_B[:, None] + torch.arange(num_added, device=input_ids.device)

    def extend(rows_BL: Tensor, values: Sequence[int], fill: int) -> Tensor:
        """Widen rows and write the same values behind the end of each."""
        added_BK = torch.tensor(values, dtype=rows_BL.dtype, device=rows_BL.device).expand(num_rows, num_added)
        return functional.pad(rows_BL, (0, num_added), value=fill).scatter(1, places_BK, added_BK)

    inputs = {
        "input_ids": extend(input_ids, tokens, pad),
        "attention_mask": extend(attention_mask, [1] * num_added, 0),
    }
    if token_type_ids is not None:
        inputs["token_type_ids"] = extend(token_type_ids, types, pad_type)
    return inputs


class EntailmentClassifier(OwnClassifier):
    """Reads each text together with a hypothesis for each label.

    Rows come as single texts, as every other classifier takes them; what a tokenizer puts behind the first text of a
    pair is added here. One label is one pass, so that rows stay sorted by length.

    Args:
        encoder: A classifier of natural language inference.
        labels: The label contract.
        hypotheses: For each label the ids that follow a single text's row in the row of a pair.
        types: Their type ids.
        pad: Id that pads.
        pad_type: Type id that pads.
        positive: The head's output for entailment.
        negative: The head's output against it.
        temperature: Divides the logits.
    """

    kind: ClassVar[str] = "entailment"
    auto: ClassVar[Any] = AutoModelForSequenceClassification

    def __init__(
        self,
        encoder: PreTrainedModel,
        labels: LabelSpace,
        *,
        hypotheses: list[list[int]],
        types: list[list[int]],
        pad: int,
        pad_type: int,
        positive: int,
        negative: int,
        temperature: float = 1.0,
    ) -> None:
        rows: dict[str, Any] = {"hypotheses": hypotheses, "types": types, "pad": pad, "pad_type": pad_type}
        outputs = {"positive": positive, "negative": negative}
        super().__init__(encoder, labels, {**rows, **outputs, "temperature": temperature})
        self.hypotheses, self.types, self.pad, self.pad_type = hypotheses, types, pad, pad_type
        self.positive, self.negative = positive, negative
        self.is_exclusive = labels.is_categorical

    def compute(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Give a column a label: the logit of entailment; less the one against it where several labels may hold.

        Softmax over labels is meant for the first, a sigmoid a label for the second, as in transformers' own
        zero-shot pipeline.
        """
        columns = []
        for tokens, types in zip(self.hypotheses, self.types, strict=True):
            rows = append_tokens(
                input_ids,
                attention_mask,
                token_type_ids,
                tokens=tokens,
                types=types,
                pad=self.pad,
                pad_type=self.pad_type,
            )
            logits_BH = self.encoder(**rows).logits.float()
            column_B = logits_BH[:, self.positive]
            columns.append(column_B if self.is_exclusive else column_B - logits_BH[:, self.negative])
        return torch.stack(columns, dim=1)
