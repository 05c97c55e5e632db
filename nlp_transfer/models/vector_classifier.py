"""A classifier on one vector a text: layers and pooling of an encoder, and a head that is fitted apart from it."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, PreTrainedModel

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import RecipeError
from nlp_transfer.models.custom import CustomClassifier
from nlp_transfer.models.heads import POOLERS
from nlp_transfer.models.output_layer import rescale_layer

__all__ = [
    "Neighbors",
    "VectorClassifier",
    "combine_vectors",
    "drop_pooler",
    "find_layers",
    "pool_tokens",
    "read_layers",
]

Pooling = Literal["first", "mean", "max"]

SMOOTHING = 0.1
"""Share of a vote that every class has before neighbors are asked, so that no probability is 0; chosen."""


def drop_pooler(encoder: PreTrainedModel) -> PreTrainedModel:
    """Leave out the pooler, which serves the family's own head only; the encoder is changed in place."""
    for name in POOLERS:
        if getattr(encoder, name, None) is not None:
            setattr(encoder, name, None)
    return encoder


def find_layers(encoder: PreTrainedModel, layers: list[int]) -> list[int]:
    """Turn numbers of layers into positions among the hidden states, 0 for the embeddings.

    Args:
        encoder: The encoder.
        layers: 1 is the first layer; negative numbers count from the last, which is -1.

    Returns:
        Positions, each in [0, number of layers].

    Raises:
        RecipeError: The encoder has fewer layers.
    """
    total = int(encoder.config.num_hidden_layers)
    places = [layer if layer >= 0 else total + 1 + layer for layer in layers]
    if wrong := [layer for layer, place in zip(layers, places, strict=True) if not 0 <= place <= total]:
        raise RecipeError(
            [f"strategy.layers: expected numbers from {-total - 1} to {total}, as the encoder has, got {wrong[0]}."]
        )
    return places


def pool_tokens(hidden_BLD: Tensor, mask_BL: Tensor, pooling: Pooling) -> Tensor:
    """Turn the states of a text's tokens into one vector.

    Args:
        hidden_BLD: Float, shape (B, L, D).
        mask_BL: 1 for tokens and 0 for padding, shape (B, L).
        pooling: ``first`` token, ``mean`` or ``max`` over the tokens.

    Returns:
        Shape (B, D).

    Example:
        >>> hidden = torch.tensor([[[1.0], [3.0], [9.0]]])
        >>> mask = torch.tensor([[1, 1, 0]])
        >>> [pool_tokens(hidden, mask, each).item() for each in ("first", "mean", "max")]
        [1.0, 2.0, 3.0]
    """
    if pooling == "first":
        first_B = mask_BL.argmax(dim=1)
        return hidden_BLD[torch.arange(hidden_BLD.shape[0], device=hidden_BLD.device), first_B]
    mask_BL1 = mask_BL[:, :, None].to(hidden_BLD.dtype)
    if pooling == "mean":
        return (hidden_BLD * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1)
    return hidden_BLD.masked_fill(mask_BL1 == 0, float("-inf")).amax(dim=1)


def read_layers(
    encoder: PreTrainedModel, inputs: Mapping[str, Tensor], *, layers: list[int], pooling: Pooling = "mean"
) -> list[Tensor]:
    """Run an encoder and give one vector a layer for every text.

    Args:
        encoder: Without its head.
        inputs: ``input_ids``, ``attention_mask`` and, where the encoder reads them, ``token_type_ids``: shape (B, L).
        layers: Positions among the hidden states, as ``find_layers`` gives them.
        pooling: How tokens become one vector.

    Returns:
        Float, shape (B, D) each, in the order of ``layers``.
    """
    last = int(encoder.config.num_hidden_layers)
    output = encoder(**inputs, output_hidden_states=layers != [last])
    # The last layer's states are those after a final norm, where an encoder has one.
    states = [output.last_hidden_state if place == last else output.hidden_states[place] for place in layers]
    return [pool_tokens(hidden_BLD, inputs["attention_mask"], pooling) for hidden_BLD in states]


def combine_vectors(
    vectors: list[Tensor], *, combine: Literal["mean", "concat"] = "mean", normalize: bool = False
) -> Tensor:
    """Make one vector a text of those of several layers.

    Args:
        vectors: Float, shape (B, D) each.
        combine: They are averaged, or stand side by side.
        normalize: Whether vectors get length 1.

    Returns:
        Float, shape (B, D), or (B, D * number of layers) side by side.

    Example:
        >>> layers = [torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]])]
        >>> combine_vectors(layers, combine="concat").tolist(), combine_vectors(layers).tolist()
        ([[3.0, 0.0, 0.0, 4.0]], [[1.5, 2.0]])
    """
    joined = torch.cat(vectors, dim=1) if combine == "concat" else torch.stack(vectors).mean(dim=0)
    return functional.normalize(joined, dim=1) if normalize else joined


class Neighbors(nn.Module):
    """Lets the nearest examples vote.

    Args:
        num_rows: N, examples that are kept.
        width: D.
        num_outputs: C.
        k: How many vote.
        kind: The task; a regression averages, a multi-label task votes on each label.
    """

    def __init__(self, num_rows: int, width: int, num_outputs: int, k: int, kind: str) -> None:
        super().__init__()
        self.k, self.kind = min(k, num_rows), kind
        self.register_buffer("rows_ND", torch.zeros(num_rows, width))
        self.register_buffer("votes_NC", torch.zeros(num_rows, num_outputs))

    def forward(self, vectors_BD: Tensor) -> Tensor:
        """Give log-probabilities (B, C); logits for multi-label, figures for regression."""
        rows_ND: Tensor = self.rows_ND  # type: ignore[assignment]
        votes_NC: Tensor = self.votes_NC  # type: ignore[assignment]
        similar_BN = functional.normalize(vectors_BD, dim=1) @ functional.normalize(rows_ND, dim=1).T
        near_BK = similar_BN.topk(self.k, dim=1).indices
        votes_BC = votes_NC[near_BK].mean(dim=1)
        if self.kind == "regression":
            return votes_BC
        if self.kind == "multi_label":
            share_BC = (votes_BC * self.k + SMOOTHING) / (self.k + 2 * SMOOTHING)
            return torch.logit(share_BC)
        num_classes = votes_BC.shape[1]
        return torch.log((votes_BC * self.k + SMOOTHING) / (self.k + SMOOTHING * num_classes))


class VectorClassifier(CustomClassifier):
    """A head on vectors of an encoder.

    Args:
        encoder: Without its pooler.
        labels: The label contract.
        layers: Positions among the hidden states.
        combine: How several layers become one vector.
        pooling: How tokens become one vector.
        normalize: Whether vectors get length 1.
        head: ``{"kind": "linear"}``, ``{"kind": "mlp", "hidden": 100}`` or ``{"kind": "knn", "num_rows": N, "k": 5}``.
        temperature: Divides the logits.
    """

    kind: ClassVar[str] = "vectors"
    auto: ClassVar[Any] = AutoModel

    def __init__(
        self,
        encoder: PreTrainedModel,
        labels: LabelSpace,
        *,
        layers: list[int],
        combine: Literal["mean", "concat"] = "mean",
        pooling: Pooling = "mean",
        normalize: bool = False,
        head: Mapping[str, Any] | None = None,
        temperature: float = 1.0,
    ) -> None:
        head = dict(head or {"kind": "linear"})
        how: dict[str, Any] = {"layers": layers, "combine": combine, "pooling": pooling, "normalize": normalize}
        super().__init__(drop_pooler(encoder), labels, {**how, "head": head, "temperature": temperature})
        self.how = how
        self.width = int(encoder.config.hidden_size) * (len(layers) if combine == "concat" else 1)
        self.labels = labels
        self.gives_vectors = False
        self.head: nn.Module = self._build_head(head)

    def _build_head(self, head: Mapping[str, Any]) -> nn.Module:
        """Lay out a head of zeros."""
        num_outputs = self.labels.num_outputs
        if head["kind"] == "knn":
            return Neighbors(head["num_rows"], self.width, num_outputs, head["k"], self.labels.kind)
        if head["kind"] == "mlp":
            first, last = nn.Linear(self.width, head["hidden"]), nn.Linear(head["hidden"], num_outputs)
            return nn.Sequential(first, nn.ReLU(), last)
        return nn.Linear(self.width, num_outputs)

    def set_head(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Put a fitted head in place.

        Args:
            head: Its layout, as the constructor takes it.
            tensors: Its weights by their names in the head.
        """
        self.settings["head"] = dict(head)
        device = next(self.encoder.parameters()).device
        self.head = self._build_head(head)
        self.head.load_state_dict(dict(tensors))
        self.head.to(device)

    def rescale(self, mean: float, deviation: float) -> None:
        """Write a target's own unit into the head: its last layer, or the examples that vote."""
        if isinstance(self.head, Neighbors):
            votes_NC: Tensor = self.head.votes_NC  # type: ignore[assignment]
            self.head.votes_NC = (votes_NC.cpu().double() * deviation + mean).to(votes_NC)
            return
        last = self.head[-1] if isinstance(self.head, nn.Sequential) else self.head
        assert isinstance(last, nn.Linear)
        rescale_layer(last, mean, deviation)

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Give the vectors (B, D) of B texts."""
        layers = read_layers(self.encoder, inputs, layers=self.how["layers"], pooling=self.how["pooling"])
        return combine_vectors(layers, combine=self.how["combine"], normalize=self.how["normalize"])

    def compute(self, inputs: dict[str, Tensor]) -> Tensor:
        """Give the head's logits, or the vectors themselves while those are what is trained."""
        vectors_BD = self.embed(inputs).float()
        if self.gives_vectors:
            return vectors_BD
        logits_BC: Tensor = self.head(vectors_BD)
        return logits_BC
