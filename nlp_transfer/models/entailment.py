"""A classifier that asks, label by label, whether a text entails a hypothesis about it."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import RecipeError
from nlp_transfer.models.custom import CustomClassifier
from nlp_transfer.models.rows import find_ends, splice_tokens

__all__ = ["EntailmentClassifier", "find_entailment"]

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


class EntailmentClassifier(CustomClassifier):
    """Reads each text together with a hypothesis for each label.

    Rows come as single texts, as every other classifier takes them; what a tokenizer puts behind the first text of a
    pair is added here. One label is one pass, so that rows stay sorted by length.

    Args:
        encoder: A classifier of natural language inference.
        labels: The label contract.
        hypotheses: For each label the ids that follow a single text's row in the row of a pair.
        types: Their type ids.
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
        positive: int,
        negative: int,
        temperature: float = 1.0,
    ) -> None:
        rows: dict[str, Any] = {"hypotheses": hypotheses, "types": types}
        outputs = {"positive": positive, "negative": negative}
        super().__init__(encoder, labels, {**rows, **outputs, "temperature": temperature})
        self.hypotheses, self.types = hypotheses, types
        self.positive, self.negative = positive, negative
        self.is_exclusive = labels.is_categorical

    def compute(self, inputs: dict[str, Tensor]) -> Tensor:
        """Give a column a label: the logit of entailment; less the one against it where several labels may hold.

        Softmax over labels is meant for the first, a sigmoid a label for the second, as in transformers' own
        zero-shot pipeline.
        """
        _, last_B = find_ends(inputs["attention_mask"])
        columns = []
        for tokens, types in zip(self.hypotheses, self.types, strict=True):
            rows = splice_tokens(inputs, last_B + 1, tokens, types)
            logits_BH = self.encoder(**rows).logits.float()
            column_B = logits_BH[:, self.positive]
            columns.append(column_B if self.is_exclusive else column_B - logits_BH[:, self.negative])
        return torch.stack(columns, dim=1)
