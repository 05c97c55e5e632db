"""A running mean of the weights, which does better than the weights of any one step."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["Average", "find_decay"]


def find_decay(share: float, num_steps: int) -> float:
    """Give the decay of a mean that reaches back over about a share of a run.

    Args:
        share: From 0, no mean, to 1.
        num_steps: Updates of the run.

    Returns:
        0 where there is no mean, or where it would reach back over one step only.

    Example:
        >>> find_decay(0.2, 500), find_decay(0.0, 500)
        (0.99, 0.0)
    """
    return 1.0 - 1.0 / max(1.0, share * num_steps)


class Average:
    """The exponential moving average of what is trained, kept beside it.

    Steps are noisy: a large rate throws the weights about a good place, and their mean lies nearer to it. After step n
    the mean takes ``1 - min(decay, (n + 1) / (n + 10))`` of its way to the weights, so that a short run is not held
    at its start.

    Args:
        trained: Name to tensor, the very tensors that the optimizer updates.
        decay: What the mean keeps of itself in a late step.

    Attributes:
        mean: Name to tensor.

    Source:
        Polyak and Juditsky 1992; Morales-Brotons et al. 2024, https://arxiv.org/abs/2411.18704, for deep networks; the
        warm-up is TensorFlow's.

    Example:
        >>> weight = torch.zeros(1)
        >>> average = Average({"weight": weight}, decay=0.5)
        >>> _ = weight.add_(1.0)
        >>> _ = average.take(steps=100)
        >>> average.mean["weight"].item()
        0.5
        >>> with average.in_place():
        ...     seen = weight.item()
        >>> seen, weight.item()
        (0.5, 1.0)
    """

    def __init__(self, trained: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self._trained = dict(trained)
        self.mean = {name: tensor.detach().clone() for name, tensor in trained.items()}

    def take(self, steps: int) -> float:
        """Move the mean towards the weights.

        Args:
            steps: Updates done.

        Returns:
            The share of the way, for whatever else is to be averaged alike.
        """
        share = 1.0 - min(self.decay, (steps + 1) / (steps + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.values()), list(self._trained.values()), share)
        return share

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with a mean that was written down.

        Raises:
            KeyError: It is one of other weights.
        """
        for name, tensor in self.mean.items():
            tensor.copy_(tensors[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the mean stand in the weights' place for a while; no step is taken meanwhile."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Exchange weights and mean, without a copy."""
        for name, tensor in self._trained.items():
            tensor.data, self.mean[name] = self.mean[name], tensor.data
