"""Rows that a training reads beside its own: unlabelled texts, another domain, a memory."""

import zlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from nlp_transfer.engine.predict.forward import Feeder

__all__ = ["Stream"]


@dataclass(frozen=True)
class Stream:
    """Further rows, so many for each update, in an order that is a function of seed and step.

    A resumed run needs nothing but its step to go on with the same rows.

    Args:
        name: Decides the order too, so that two streams of the same rows differ.
        feeder: Feeds the rows.
        batch_size: Examples an update, over all processes.
        seed: ``training.seed``.
    """

    name: str
    feeder: Feeder
    batch_size: int
    seed: int
    _orders: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens an example, int64, shape (N,)."""
        return self.feeder.lengths

    def pick(self, step: int) -> np.ndarray:
        """Choose the examples of an update: each once before any comes again.

        Args:
            step: Updates done before it.

        Returns:
            Indices of examples, int64, shape (batch_size,).
        """
        num = len(self.lengths)
        passes, places = np.divmod(np.arange(step * self.batch_size, (step + 1) * self.batch_size), num)
        # An update lies in one pass or reaches into the next, of a few rows into several. Others are not needed again.
        needed = range(int(passes[0]), int(passes[-1]) + 1)
        orders = {each: self._orders[each] if each in self._orders else self._shuffle(each) for each in needed}
        self._orders.clear()
        self._orders.update(orders)
        return np.concatenate([orders[each][places[passes == each]] for each in needed])

    def _shuffle(self, number: int) -> np.ndarray:
        """The order of one pass over the rows."""
        return np.random.default_rng([self.seed, zlib.crc32(self.name.encode()), number]).permutation(len(self.lengths))
