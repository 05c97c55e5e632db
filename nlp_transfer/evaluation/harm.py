"""When a difference is called harm: the rule behind the guard against negative transfer."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri

from nlp_transfer.contracts import Score

__all__ = ["Judgement", "judge_gain"]

FEWEST_EXAMPLES = 30
"""Below it nothing is called harm: a bootstrap over so few examples is too narrow. Chosen."""


@dataclass(frozen=True)
class Judgement:
    """What a gain says.

    Attributes:
        verdict: ``harm``, ``gain``, or ``unclear``.
        bound: End of the widened interval that harm must reach; harm where it lies on the bad side of 0.
    """

    verdict: Literal["harm", "gain", "unclear"]
    bound: float


def judge_gain(gain: Score, *, confidence: float, num_comparisons: int, lower_is_better: bool = False) -> Judgement:
    """Decide whether a difference between two trained systems is harm.

    A false alarm throws good work away, so harm has to be clearer than a gain: the interval is widened for the number
    of comparisons that one run makes (Bonferroni), and for what another training seed would have changed, which
    resampled examples do not show. The seeds' variance is that of the differences seed by seed, with the examples'
    own variance standing in as one more seed; of a single seed it is all there is.

    Args:
        gain: First minus second on the same examples, with its two-sided interval; ``per_seed`` holds the difference
            of each seed where there are several.
        confidence: Coverage of that interval, in (0.5, 1).
        num_comparisons: Count of differences that are judged in this run, at least 1.
        lower_is_better: Whether a negative difference is the good one.

    Returns:
        The verdict and the bound.

    Source:
        The rule is this package's own. Bonferroni's correction; the sum of two variances under a normal distribution.

    Example:
        >>> gain = Score(-0.10, -0.13, -0.07, 800)
        >>> judge_gain(gain, confidence=0.95, num_comparisons=1).verdict
        'harm'
        >>> judge_gain(Score(-0.03, -0.059, -0.001, 800), confidence=0.95, num_comparisons=1).verdict
        'unclear'
    """
    sign = -1.0 if lower_is_better else 1.0
    value = sign * gain.value
    low, high = sorted((sign * gain.low, sign * gain.high))
    if not all(math.isfinite(figure) for figure in (value, low, high)):
        return Judgement("unclear", math.nan)
    asked = float(ndtri((1 + confidence) / 2))
    needed = float(ndtri(1 - (1 - confidence) / (2 * num_comparisons)))
    examples = ((high - low) / (2 * asked)) ** 2
    seeds = np.asarray(gain.per_seed, dtype=np.float64)
    count = max(1, len(seeds))
    # One seed's worth of the examples' variance, so that two seeds that agree by chance do not count as certainty.
    spread = (examples + (float(((seeds - seeds.mean()) ** 2).sum()) if count > 1 else 0.0)) / count
    scale = needed / asked * (math.sqrt(1 + spread / count / examples) if examples else 1.0)
    bound = value + (high - value) * scale
    if bound < 0 and gain.n >= FEWEST_EXAMPLES:
        return Judgement("harm", sign * bound)
    return Judgement("gain" if low > 0 else "unclear", sign * bound)
