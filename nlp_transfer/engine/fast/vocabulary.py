"""Train the embeddings that the training set reaches, and no others: the rest of the matrix is only decayed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nlp_transfer.engine.predict.forward import Feeder

__all__ = ["ReachedVocabulary", "reach_vocabulary"]

MOST_REACHED = 0.75
"""Share of the vocabulary above which nothing is won; chosen."""


def reach_vocabulary(model: nn.Module, feeders: Sequence[Feeder]) -> "ReachedVocabulary | None":
    """Put the embeddings of the tokens that a split holds in the place of the whole matrix.

    A word that is in no example never gets a gradient, so its embedding takes no part in the update but for weight
    decay, and its rows of the gradient and of the optimizer's moments are zeros: most of the matrix, for a small set.
    This leaves them out, and the weights are those of the plain update.

    Args:
        model: About to be trained, on its device; no optimizer has its parameters yet.
        feeders: Of all rows that it will be trained on.

    Returns:
        What puts the whole matrix back; None where the model is left as it is: its embeddings do not move, are shared
        with a language-model head, or are nearly all reached.
    """
    embedding = find_embedding(model)
    if embedding is None:
        return None
    reached = np.zeros(embedding.num_embeddings, dtype=bool)
    for feeder in feeders:
        reached[feeder.list_tokens()] = True
    if embedding.padding_idx is not None:
        reached[embedding.padding_idx] = True
    if reached.mean() > MOST_REACHED:
        return None
    (name,) = (name for name, parameter in model.named_parameters() if parameter is embedding.weight)
    return ReachedVocabulary(embedding, torch.from_numpy(np.flatnonzero(reached)), name)


def find_embedding(model: nn.Module) -> nn.Embedding | None:
    """Find the one matrix of word embeddings that is trained and that nothing else reads."""
    found: list[nn.Embedding] = []
    for each in model.modules():
        if isinstance(each, PreTrainedModel):
            if each.get_output_embeddings() is not None:
                return None
            embedding = each.get_input_embeddings()
            if type(embedding) is nn.Embedding and not any(embedding is other for other in found):
                found.append(embedding)
    if len(found) != 1 or not found[0].weight.requires_grad:
        return None
    num_places = sum(p is found[0].weight for _, p in model.named_parameters(remove_duplicate=False))
    return found[0] if num_places == 1 else None


class ReachedVocabulary:
    """Some rows of an embedding matrix, standing in its place.

    Args:
        embedding: Its weight becomes a new, smaller parameter.
        rows: Numbers of the rows that stay, ascending, int64, shape (R,).
        name: Of the weight, in the model that is trained.

    Example:
        >>> embedding = nn.Embedding(5, 2)
        >>> before = embedding.weight.detach().clone()
        >>> reached = ReachedVocabulary(embedding, torch.tensor([1, 3]), "weight")
        >>> tuple(embedding.weight.shape), bool((embedding(torch.tensor([3, 1])) == before[[3, 1]]).all())
        ((2, 2), True)
        >>> reached.put_back(kept=0.5)
        >>> bool((embedding.weight[[1, 3]] == before[[1, 3]]).all()), bool((embedding.weight[0] == before[0] / 2).all())
        (True, True)
    """

    def __init__(self, embedding: nn.Embedding, rows: Tensor, name: str) -> None:
        self.embedding, self.name = embedding, name
        assert isinstance(embedding.weight, nn.Parameter)
        self.matrix = embedding.weight
        device = self.matrix.device
        self.rows = rows.to(device)
        self._padding_idx = embedding.padding_idx
        # A token that is not among the rows has no place: the lookup fails rather than reads another's.
        self._places = torch.full((len(self.matrix),), len(rows), device=device)
        self._places[self.rows] = torch.arange(len(rows), device=device)
        self.weight = nn.Parameter(self.matrix.detach()[self.rows].clone())
        self._hook = embedding.register_forward_pre_hook(self._translate)
        self._narrow()

    def find_decay(self, optimizer: torch.optim.Optimizer) -> float:
        """Give the share that one update leaves of a row without gradient; called with the rates of that update."""
        for group in optimizer.param_groups:
            if self.name in group["names"]:
                return 1.0 - float(group["lr"]) * float(group["weight_decay"])
        return 1.0

    @contextmanager
    def whole(self, kept: float) -> Iterator[None]:
        """Let any token through for a while, as for an evaluation.

        Args:
            kept: What weight decay has left of the other rows, as a share.
        """
        with torch.no_grad():
            matrix = (self.matrix * kept).to(self.weight.dtype)
            matrix[self.rows] = self.weight
        self._widen(nn.Parameter(matrix, requires_grad=False))
        try:
            yield
        finally:
            self._narrow()

    def put_back(self, kept: float) -> None:
        """Put the whole matrix back for good, trained rows and decayed ones.

        Args:
            kept: What weight decay has left of the other rows, as a share.
        """
        with torch.no_grad():
            self.matrix.mul_(kept)
            self.matrix[self.rows] = self.weight
        self._widen(self.matrix)
        self._hook.remove()

    def _narrow(self) -> None:
        """Put the rows in the matrix's place."""
        self.embedding.weight = self.weight
        if self._padding_idx is not None:
            self.embedding.padding_idx = int(self._places[self._padding_idx])

    def _widen(self, matrix: nn.Parameter) -> None:
        """Put a whole matrix in the rows' place."""
        self.embedding.weight = matrix
        self.embedding.padding_idx = self._padding_idx

    def _translate(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Give the rows' own numbers for tokens, while they are in the matrix's place."""
        return (self._places[inputs[0]], *inputs[1:]) if self.embedding.weight is self.weight else inputs
