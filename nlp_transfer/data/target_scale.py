"""The unit of a regression's target, which must not matter: training sees standard deviations from the mean."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nlp_transfer.contracts import Prepared

__all__ = ["MOST_COARSE", "TargetScale", "standardize_targets"]

MOST_COARSE = 0.01
"""Largest distance between two neighboring float32 numbers around the targets, in standard deviations of these, that
nobody need be told of; chosen: rounding to it changes a correlation by less than a hundred-thousandth."""

ROUNDINGS = 8
"""Times that a figure may be rounded on its way; chosen."""


@dataclass(frozen=True)
class TargetScale:
    """Mean and standard deviation of the targets that training reads.

    Attributes:
        mean: In the target's own unit.
        deviation: In the target's own unit, above 0.

    Example:
        >>> scale = TargetScale.measure(np.array([100_000.0, 300_000.0]))
        >>> scale.standardize(np.array([100_000.0, 200_000.0])).tolist(), scale.restore(np.array([1.0])).tolist()
        ([-1.0, 0.0], [300000.0])
    """

    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def measure(cls, targets: np.ndarray) -> "TargetScale":
        """Read mean and standard deviation off the targets of train.

        Args:
            targets: Finite numbers, shape (N,), N at least 1.

        Returns:
            The scale; of targets that are all the same, that number and a deviation of 1.

        Example:
            >>> TargetScale.measure(np.array([0.1, 0.1, 0.1]))
            TargetScale(mean=0.1, deviation=1.0)
        """
        values = np.asarray(targets, dtype=np.float64)
        low, high = float(values.min()), float(values.max())
        if low == high:
            return cls(low, 1.0)
        # Between 0 and 1 first: squares of very large or small numbers are no numbers, and a sum around a large offset
        # loses what the targets differ by.
        width = high - low
        shares = (values - low) / width
        return cls(low + width * float(shares.mean()), width * float(shares.std()))

    def standardize(self, values: np.ndarray) -> np.ndarray:
        """Turn numbers in the target's own unit into standard deviations from the mean, float64, any shape."""
        return np.asarray((np.asarray(values, dtype=np.float64) - self.mean) / self.deviation)

    def restore(self, values: np.ndarray) -> np.ndarray:
        """Turn standard deviations from the mean into the target's own unit, float64, any shape."""
        return np.asarray(np.asarray(values, dtype=np.float64) * self.deviation + self.mean)

    @classmethod
    def read(cls, metadata: Mapping[str, Any]) -> "TargetScale":
        """Read the scale back from what an artefact says of itself.

        Args:
            metadata: What ``nlp_transfer.json`` holds.

        Returns:
            The scale; one that changes nothing where the artefact names none: of another task, or of another
            tool.

        Example:
            >>> TargetScale.read({"target": {"mean": 3.0, "deviation": 2.0}}), TargetScale.read({})
            (TargetScale(mean=3.0, deviation=2.0), TargetScale(mean=0.0, deviation=1.0))
        """
        try:
            scale = cls(float(metadata["target"]["mean"]), float(metadata["target"]["deviation"]))
        except (KeyError, TypeError, ValueError):
            return cls()
        return scale if math.isfinite(scale.mean) and 0 < scale.deviation < math.inf else cls()

    def measure_rounding(self) -> float:
        """How far two ways of computing a number near the mean in float32 may differ, in the target's own unit."""
        return ROUNDINGS * float(np.spacing(np.float32(abs(self.mean)))) if self.mean else 0.0

    def measure_coarseness(self, largest: float) -> float:
        """Say how far float32, in which a model gives its numbers, can tell the targets apart.

        Args:
            largest: The largest target without its sign.

        Returns:
            The distance between two neighboring float32 numbers there, in standard deviations.

        Example:
            >>> round(TargetScale(1e6, 1e-3).measure_coarseness(1e6))
            62
        """
        return float(np.spacing(np.float32(largest))) / self.deviation


def standardize_targets(prepared: Prepared, scale: TargetScale) -> Prepared:
    """Give every split targets in standard deviations from the mean.

    Args:
        prepared: Tokenized splits of a regression, targets in their own unit; not changed.
        scale: Read off train.

    Returns:
        The same splits with float32 targets; those without stay without.
    """
    splits = {
        name: encoded
        if encoded.labels is None
        else replace(encoded, labels=scale.standardize(encoded.labels).astype(np.float32))
        for name, encoded in prepared.splits.items()
    }
    return replace(prepared, splits=splits)
