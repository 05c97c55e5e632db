"""A budget of time: how much is left, and watchers that end a fit which would overrun it."""

import re
import time
from collections.abc import Callable, Sequence

from nlp_transfer.contracts import Evaluation, Hook, RunLog
from nlp_transfer.errors import OutOfTimeError, RecipeError

__all__ = ["Clock", "DeadlineHook", "FitWatch", "StepTimer", "parse_budget", "parse_seconds"]

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_seconds(text: str | float, *, where: str = "--budget") -> float:
    """Read a length of time.

    Args:
        text: A number of seconds, or a number and a unit: s, m or h.
        where: Names the option in the message.

    Returns:
        Seconds, above 0.

    Raises:
        RecipeError: It is none.

    Example:
        >>> parse_seconds("15m"), parse_seconds("1.5h"), parse_seconds(90)
        (900.0, 5400.0, 90.0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", str(text))
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if seconds <= 0:
        raise RecipeError(f'{where}: expected a time such as 10m, 90s or 1h, got "{text}".')
    return seconds


SETTLED_STEPS = 3
"""First steps that are not timed: they fill caches. Chosen."""

PROBE_STEPS = 10
"""Steps after which a fit's end is foreseen; chosen."""

SETTLED_SHARE = 0.1
"""Share of a fit from which on its foreseen end is taken at its word; before, it may be over by `DOUBT`. Chosen."""

DOUBT = 1.25


def parse_budget(text: str | float | None) -> float | None:
    """Read a budget such as 10m, 90s or 1h.

    Args:
        text: A number with its unit, seconds where there is none; None for no budget.

    Returns:
        Seconds.

    Raises:
        RecipeError: It is no time, or none is left.

    Example:
        >>> parse_budget("10m"), parse_budget("1.5h"), parse_budget(90), parse_budget(None)
        (600.0, 5400.0, 90.0, None)
    """
    return None if text is None else parse_seconds(text, where="budget")


class Clock:
    """Counts a budget down.

    Args:
        budget: Seconds; None for as long as it takes.
        spent: Seconds of it that are gone already.

    Example:
        >>> clock = Clock(100.0, spent=40.0)
        >>> 59 < clock.left <= 60, Clock(None).left
        (True, inf)
    """

    def __init__(self, budget: float | None, spent: float = 0.0) -> None:
        self.budget = budget
        self.started = time.monotonic() - spent
        self.reserve = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def left(self) -> float:
        """Seconds until everything but the reserve is used; infinite without a budget."""
        return float("inf") if self.budget is None else self.budget - self.reserve - self.elapsed


class DeadlineHook:
    """Ends a fit at a time, or as soon as it is clear that it will not be through by then.

    Args:
        num_steps: Updates of the fit.
        end: When it has to be through, on the clock of `now`.
        now: The clock.
    """

    def __init__(self, num_steps: int, end: float, now: Callable[[], float] = time.monotonic) -> None:
        self.num_steps, self.end, self.now = num_steps, end, now
        self.first: tuple[int, float] | None = None
        self.seen = 0

    def after_step(self, log: RunLog, loss: float | None, learning_rate: float) -> None:
        """Look at the clock, and ahead."""
        now = self.now()
        if log.steps >= self.num_steps:
            # What is through needs no time any more.
            return
        if now >= self.end:
            raise OutOfTimeError(f"stopped at step {log.steps} of {self.num_steps}, when its time was up")
        self.seen += 1
        if self.seen == SETTLED_STEPS:
            self.first = (log.steps, now)
        if self.first is None or self.seen < SETTLED_STEPS + PROBE_STEPS:
            return
        steps, since = self.first
        needed = (now - since) / (log.steps - steps) * (self.num_steps - log.steps)
        doubt = 1.0 if log.steps >= SETTLED_SHARE * self.num_steps else DOUBT
        if needed > doubt * (self.end - now):
            raise OutOfTimeError(
                f"stopped at step {log.steps} of {self.num_steps}: it needed {needed:.0f} s more, "
                f"{self.end - now:.0f} s were left"
            )

    def after_evaluation(self, log: RunLog, evaluation: Evaluation) -> None:
        """Look at the clock."""
        if self.now() >= self.end and log.steps < self.num_steps:
            raise OutOfTimeError(f"stopped at step {log.steps} of {self.num_steps}, when its time was up")

    def close(self) -> None:
        """Nothing to put away."""


class FitWatch:
    """Gives each fit of a run its `DeadlineHook`, and knows when training was last at work: what `run` takes as watch.

    Args:
        end: When training has to be through, on the monotonic clock; infinite for no deadline.
    """

    def __init__(self, end: float) -> None:
        self.end = end
        self.last: float | None = None

    def __call__(self, num_steps: int, _label: str, /) -> Sequence[Hook]:
        """Give the watchers of one fit."""
        return (DeadlineHook(num_steps, self.end, self.look),)

    def look(self) -> float:
        """Tell the time, and remember it."""
        self.last = time.monotonic()
        return self.last


class StepTimer:
    """Times a few steps and ends the fit, by an `OutOfTimeError`.

    Args:
        limit: Most seconds; fewer steps are timed where they take longer.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.times: list[float] = []

    def after_step(self, log: RunLog, loss: float | None, learning_rate: float) -> None:
        """Take the time."""
        self.times.append(time.monotonic())
        long = len(self.times) > 1 and self.times[-1] - self.times[0] > self.limit
        if long or len(self.times) > PROBE_STEPS:
            raise OutOfTimeError("timed enough steps")

    def after_evaluation(self, log: RunLog, evaluation: Evaluation) -> None:
        """Nothing to time."""

    def close(self) -> None:
        """Nothing to put away."""

    @property
    def seconds(self) -> float:
        """Mean seconds of a step, the first ones left out where there are enough; 0 where none was timed."""
        times = self.times[SETTLED_STEPS - 1 :] if len(self.times) > SETTLED_STEPS + 1 else self.times
        return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
