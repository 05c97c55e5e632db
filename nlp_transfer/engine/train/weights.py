"""What an update moves, and what stands in the model's place for it while a run lasts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from nlp_transfer.engine.fast.vocabulary import reach_vocabulary
from nlp_transfer.engine.predict.forward import Feeder
from nlp_transfer.engine.train.average import Average
from nlp_transfer.engine.train.checkpoint import collect_weights, copy_to_cpu, restore_weights
from nlp_transfer.engine.train.masters import HalfAdamW, Masters
from nlp_transfer.engine.train.state import LoopState

__all__ = ["TrainedWeights"]


class TrainedWeights:
    """The weights of a run: those that are trained, and those that are scored and kept.

    Embeddings that no example reaches stand apart, bf16 models have float32 weights beside them, and a running mean
    may be scored in place of the weights themselves.

    Args:
        model: On its device; changed until ``put_back``.
        feeders: Of all rows that it is trained on.
        decay: Of the running mean; 0 for none.
        half: Whether the model computes in bf16.
        holds_weights: Whether guides need the weights where the model has them; they are given whole matrices.

    Attributes:
        masters: Float32 weights that the optimizer is given in place of the model's own; None where those are updated.
        tensors: Name to what the optimizer updates.
    """

    def __init__(
        self, model: nn.Module, feeders: Sequence[Feeder], *, decay: float, half: bool, holds_weights: bool
    ) -> None:
        self.model = model
        self._vocabulary = None if holds_weights else reach_vocabulary(model, feeders)
        self.masters = Masters(model) if half else None
        stand_ins = {} if self.masters is None else self.masters.trained
        # Taken once: a guide may close and open some of them for a while.
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.tensors: dict[str, Tensor] = {**trained, **stand_ins}
        self._average = Average(self.tensors, decay) if decay else None

    def take_gradients(self) -> None:
        """Have the gradients of a part of a window where the optimizer looks for them."""
        if self.masters is not None:
            self.masters.take_gradients()

    def take_step(self, state: LoopState, optimizer: torch.optim.Optimizer, *, was_skipped: bool) -> None:
        """Follow an update; called with the rates of that update.

        Args:
            state: Its share that decay has left of embeddings without gradient is brought up to date.
            optimizer: What updated.
            was_skipped: Whether it found no finite gradients and did nothing.
        """
        if self._vocabulary is not None and not was_skipped:
            state.kept *= self._vocabulary.find_decay(optimizer)
        if not isinstance(optimizer, HalfAdamW):
            self._hand_down()

    def take_mean(self, state: LoopState, steps: int) -> None:
        """Move the running mean towards the weights."""
        share = 1.0 if self._average is None else self._average.take(steps)
        state.mean_kept += share * (state.kept - state.mean_kept)

    @contextmanager
    def scored(self) -> Iterator[None]:
        """Put what is scored and kept in the weights' place for a while: the mean, where there is one."""
        if self._average is None:
            yield
            return
        with self._average.in_place():
            self._hand_down()
            yield
        self._hand_down()

    @contextmanager
    def complete(self, state: LoopState) -> Iterator[None]:
        """The same, and let tokens through that no example of train has."""
        whole = nullcontext() if self._vocabulary is None else self._vocabulary.whole(state.mean_kept)
        with self.scored(), whole:
            yield

    def collect(self) -> dict[str, Tensor]:
        """Copy the weights and the model's buffers, on the CPU."""
        return collect_weights(self.model, self.tensors)

    def collect_scored(self) -> dict[str, Tensor]:
        """Copy what is scored and kept."""
        with self.scored():
            return self.collect()

    def collect_mean(self) -> dict[str, Tensor]:
        """Copy the running mean, on the CPU; empty where there is none."""
        return {} if self._average is None else copy_to_cpu(self._average.mean)

    def restore(self, weights: Mapping[str, Tensor], mean: Mapping[str, Tensor] | None = None) -> None:
        """Put collected weights in place.

        Raises:
            KeyError: They are of another model.
        """
        restore_weights(self.model, weights, self.tensors)
        if self._average is not None and mean is not None:
            self._average.restore(mean)
        self._hand_down()

    def settle(self) -> None:
        """Let what is scored take the weights' place for good."""
        if self._average is not None:
            self._average.swap()
            self._hand_down()

    def put_back(self, kept: float) -> None:
        """Give the model whole, float32 weights for good.

        Args:
            kept: What weight decay has left of embeddings that no example reaches, as a share.
        """
        for tensor in self.tensors.values():
            tensor.requires_grad_(True)  # a guide may have left some closed
        if self.masters is not None:
            self.masters.put_back()
        if self._vocabulary is not None:
            self._vocabulary.put_back(kept)

    def _hand_down(self) -> None:
        """Let a model that computes in bf16 know of other weights."""
        if self.masters is not None:
            self.masters.hand_down()
