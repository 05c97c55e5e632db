"""Logits in bf16 with the labels of float32: whatever bf16 leaves in doubt is looked at again."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.engine.predict.forward import Feeder
from nlp_transfer.engine.predict.logits import compute_packed, order_answers, pack_model, plan_passes
from nlp_transfer.engine.predict.packed import PackedModel
from nlp_transfer.models.blocks import find_stack

__all__ = ["Gauge", "HalfScorer"]

LEAST_EXAMPLES = 64
"""Examples of a split from which bf16 is worth its copy of the weights and its gauging; chosen."""

GAUGED = 32
"""Examples run in both formats before bf16 is trusted with any; chosen."""

DEVIATIONS = 4.0
"""A margin of so many times the error's root mean square is beyond doubt. Chosen: of normal errors, one in 16,000 is
larger, and it changes a label only where the margin is hardly larger than that."""


class Gauge:
    """Knows how far margins in bf16 lie from those in float32, and which of them are too small to tell.

    A margin is the distance between the logits of the best two classes, or in a multi-label task that of a logit from
    zero, where its label begins.

    Args:
        space: The label contract; not of a regression, whose numbers have no margin.

    Example:
        >>> gauge = Gauge(LabelSpace("classification", ("a", "b")))
        >>> gauge.observe(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 0.03], [0.0, 2.04]]))
        >>> round(gauge.bound, 3), gauge.find_doubtful(np.array([[1.0, 0.95], [3.0, 0.0]])).tolist()
        (0.141, [0])
    """

    def __init__(self, space: LabelSpace) -> None:
        assert space.kind != "regression", "a number has no margin"
        self._is_exclusive = space.is_categorical
        self._squares, self.num_observed = 0.0, 0

    @property
    def bound(self) -> float:
        """The margin below which a label is in doubt, in logits; infinite before anything was observed."""
        if not self.num_observed:
            return float("inf")
        return DEVIATIONS * float(np.sqrt(self._squares / self.num_observed))

    def observe(self, half: np.ndarray, full: np.ndarray) -> None:
        """Learn from examples that were run in both formats.

        Args:
            half: Logits in bf16, shape (N, C).
            full: Those in float32, shape (N, C).
        """
        errors = np.abs(self._measure(half, half) - self._measure(full, half))
        # Of several labels the one that is furthest off counts, as any of them may be the one in doubt.
        largest = errors.max(axis=1, initial=0.0)
        largest = largest[np.isfinite(largest)]
        self._squares += float((largest.astype(np.float64) ** 2).sum())
        self.num_observed += len(largest)

    def find_doubtful(self, half: np.ndarray) -> np.ndarray:
        """Find the examples whose labels float32 must decide.

        Args:
            half: Logits in bf16, shape (N, C).

        Returns:
            Their numbers, int64, ascending.
        """
        smallest = np.abs(self._measure(half, half)).min(axis=1, initial=np.inf)
        # Also what is no number is in doubt.
        return np.flatnonzero(~(smallest >= self.bound) | ~np.isfinite(half).all(axis=1)).astype(np.int64)

    def _measure(self, logits: np.ndarray, leaders: np.ndarray) -> np.ndarray:
        """Margins, shape (N, K): between the classes that lead in the other array, or those of every label."""
        if not self._is_exclusive:
            return logits
        if logits.shape[1] == 1:
            return np.empty((len(logits), 0), dtype=logits.dtype)
        first_N2 = np.take_along_axis(logits, np.argpartition(leaders, -2, axis=1)[:, -2:], axis=1)
        margins: np.ndarray = first_N2[:, 1:] - first_N2[:, :1]
        return margins


class HalfScorer:
    """Scores splits in bf16; keeps the copy of the weights and what was learned of its errors between calls.

    Labels are those of float32 but for errors beyond the bound. Logits of examples that were in no doubt stay those of
    bf16: probabilities differ by about the rounding error, a few thousandths.

    Args:
        model: Whose weights do not change any more.
        space: Its label contract.
    """

    def __init__(self, model: nn.Module, space: LabelSpace) -> None:
        self._model, self._gauge = model, None if space.kind == "regression" else Gauge(space)
        self._half: PackedModel | None = None
        self._full: PackedModel | None = None

    def suits(self, feeder: Feeder) -> bool:
        """Say whether bf16 may do it: not a regression, not few examples, nor a model that must be run as it is.

        Args:
            feeder: The split.

        Returns:
            True where `predict` may be called.
        """
        if self._gauge is None or feeder.encoded.num_examples < LEAST_EXAMPLES or not feeder.can_pack():
            return False
        return self._half is not None or find_stack(self._model) is not None

    def predict(
        self,
        feeder: Feeder,
        *,
        batch_size: int,
        max_tokens: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Score every example of a split.

        Args:
            feeder: The split; one that ``suits``.
            batch_size: Examples in one forward pass.
            max_tokens: Most tokens in one forward pass, where that is fewer than a pass takes.
            progress: Called with the count of examples done since the last call.

        Returns:
            Float32, shape (N, C), in the order of the split.

        Raises:
            ShapeError: Not every example was scored exactly once.
        """
        gauge, total = self._gauge, feeder.encoded.num_examples
        assert gauge is not None, "ask suits first"
        self._pack(feeder)
        assert self._half is not None, "packed above"
        passes = plan_passes(feeder, batch_size=batch_size, max_tokens=max_tokens)
        if gauge.num_observed < GAUGED:
            # Of all lengths, since those differ in their errors.
            ordered = np.concatenate(passes)
            sample = ordered[np.linspace(0, total - 1, GAUGED).round().astype(np.int64)]
            gauge.observe(_run(self._half, feeder, sample, batch_size), self._look_again(feeder, sample, batch_size))
        parts = []
        with torch.inference_mode():
            for examples in passes:
                parts.append((examples, compute_packed(self._half, feeder, examples).numpy()))
                if progress is not None:
                    progress(len(examples))
        half = order_answers(parts, total)
        result, is_done = half.copy(), np.zeros(total, dtype=bool)
        # What the second look finds may raise the bound, and with it what is in doubt.
        while True:
            doubtful = gauge.find_doubtful(half)
            rest = doubtful[~is_done[doubtful]]
            if not len(rest):
                return result
            result[rest] = self._look_again(feeder, rest, batch_size)
            gauge.observe(half[rest], result[rest])
            is_done[rest] = True

    def _pack(self, feeder: Feeder) -> None:
        """Make both models that read without padding, once."""
        if self._half is None or self._full is None:
            self._full, self._half = pack_model(self._model, feeder), pack_model(self._model, feeder, torch.bfloat16)

    def _look_again(self, feeder: Feeder, examples: np.ndarray, batch_size: int) -> np.ndarray:
        """Logits in float32."""
        assert self._full is not None, "packed before"
        return _run(self._full, feeder, examples, batch_size)


def _run(packed: PackedModel, feeder: Feeder, examples: np.ndarray, batch_size: int) -> np.ndarray:
    """Logits of some examples, in their order, neighbors in length together."""
    order = np.argsort(-feeder.lengths[examples], kind="stable")
    found: np.ndarray | None = None
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            own = order[start : start + batch_size]
            logits = compute_packed(packed, feeder, examples[own]).numpy()
            found = np.empty((len(examples), logits.shape[1]), dtype=np.float32) if found is None else found
            found[own] = logits
    assert found is not None, "there are examples"
    return found
