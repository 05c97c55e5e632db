"""A classifier that gives an earlier classifier's answers under other names."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.models.custom import CustomClassifier

__all__ = ["ReuseClassifier"]


class ReuseClassifier(CustomClassifier):
    """Keeps the head of a classifier and adds up the outputs that mean the same label.

    Args:
        encoder: A classifier with its head.
        labels: The label contract.
        groups: For each label the outputs of the head that belong to it; the others are left out.
        is_exclusive: Whether exactly one of the head's own labels holds.
        temperature: Divides the logits.
    """

    kind: ClassVar[str] = "reuse"
    auto: ClassVar[Any] = AutoModelForSequenceClassification

    def __init__(
        self,
        encoder: PreTrainedModel,
        labels: LabelSpace,
        *,
        groups: list[list[int]],
        is_exclusive: bool,
        temperature: float = 1.0,
    ) -> None:
        settings = {"groups": groups, "is_exclusive": is_exclusive, "temperature": temperature}
        super().__init__(encoder, labels, settings)
        self.saves_encoder = True
        self.groups, self.is_exclusive = groups, is_exclusive
        self.is_categorical = labels.is_categorical

    def compute(self, inputs: dict[str, Tensor]) -> Tensor:
        """Give the logits of groups of the head's outputs.

        Of exclusive outputs the probabilities are added: one label of ours against the others of ours, or, where
        several of ours may hold, against all that is left of theirs. Of outputs that hold or do not hold on their own
        the surest one speaks for its group.
        """
        logits_BH: Tensor = self.encoder(**inputs).logits.float()
        if not self.is_exclusive:
            return torch.stack([logits_BH[:, group].amax(dim=1) for group in self.groups], dim=1)
        sums_BC = torch.stack([logits_BH[:, group].logsumexp(dim=1) for group in self.groups], dim=1)
        if self.is_categorical:
            return sums_BC
        rest = [[number for number in range(logits_BH.shape[1]) if number not in group] for group in self.groups]
        return sums_BC - torch.stack([logits_BH[:, left].logsumexp(dim=1) for left in rest], dim=1)
