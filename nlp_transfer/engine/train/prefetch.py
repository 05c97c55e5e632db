"""The next batch, made while the GPU works on this one."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from nlp_transfer.engine.predict.forward import Feeder, Microbatch

__all__ = ["Prefetcher"]


class Prefetcher:
    """Collates what is expected in a thread, and hands it out when it is asked for.

    What was not expected is collated on the spot: expectations change when batches are made, never what is in them.

    Args:
        feeder: Collates and places.
        is_on: Whether there is a thread at all; on a CPU it would take time from the training.
    """

    def __init__(self, feeder: Feeder, *, is_on: bool) -> None:
        self._feeder = feeder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="next-batch") if is_on else None
        self._made: dict[bytes, Future[Microbatch]] = {}

    def expect(self, find: Callable[[], Iterable[np.ndarray]]) -> None:
        """Start on what is next; what was expected before and never came is let go.

        Args:
            find: Gives the examples of each batch; called only where there is a thread.
        """
        if self._pool is None:
            return
        for old in self._made.values():
            old.cancel()
        self._made = {part.tobytes(): self._pool.submit(self._feeder.collate, part) for part in find()}

    def feed(self, examples: np.ndarray) -> Microbatch:
        """Give a batch on the device, as ``Feeder.feed`` does; raises what collating it raised."""
        made = self._made.pop(examples.tobytes(), None)
        return self._feeder.feed(examples) if made is None else self._feeder.place(made.result())

    def close(self) -> None:
        """End the thread."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
