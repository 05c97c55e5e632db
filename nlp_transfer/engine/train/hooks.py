"""Watchers of the loop: a progress bar, plain lines, trackers."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nlp_transfer.contracts import Evaluation, Hook, RunLog
from nlp_transfer.engine.train.notebook import NotebookBar, NotebookProgress
from nlp_transfer.figures import format_number
from nlp_transfer.recipe.schema import TrainingConfig

__all__ = ["PlainProgress", "ProgressBar", "TrackerHook", "build_progress", "track_work", "watch_work"]

PLAIN_SECONDS = 10.0
"""Seconds between two plain lines; chosen."""


def describe_metrics(metrics: Mapping[str, float], *, most: int = 3) -> str:
    """Write the first few metrics in one line.

    Example:
        >>> describe_metrics({"accuracy": 0.91234, "mcc": 0.8})
        'accuracy 0.912, mcc 0.800'
    """
    return ", ".join(f"{name} {format_number(value)}" for name, value in list(metrics.items())[:most])


class ProgressBar:
    """A bar with loss, examples a second and time left.

    Args:
        console: Where it is drawn.
        num_steps: Updates of the whole run.
        label: What is being trained.
    """

    def __init__(self, console: Console, num_steps: int, label: str) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        self.task = self.progress.add_task(label, total=num_steps, figures="")
        self.progress.start()

    def after_step(self, log: RunLog, loss: float | None, learning_rate: float) -> None:
        """Move the bar."""
        figures = None
        if loss is not None:
            figures = f"loss {format_number(loss)}  {log.examples / max(log.seconds, 1e-9):.0f} examples/s"
        if figures is None:
            self.progress.update(self.task, completed=log.steps)
        else:
            self.progress.update(self.task, completed=log.steps, figures=figures)

    def after_evaluation(self, log: RunLog, evaluation: Evaluation) -> None:
        """Write the validation figures above the bar."""
        self.console.print(f"  epoch {evaluation.epoch:.1f}: validation {describe_metrics(evaluation.metrics)}")

    def close(self) -> None:
        """Take the bar off the screen."""
        self.progress.stop()


class PlainProgress:
    """A line now and then, for logs and pipes.

    Args:
        console: Where lines go.
        num_steps: Updates of the whole run.
        label: What is being trained.
    """

    def __init__(self, console: Console, num_steps: int, label: str) -> None:
        self.console, self.num_steps, self.label = console, num_steps, label
        self.said = time.monotonic()

    def after_step(self, log: RunLog, loss: float | None, learning_rate: float) -> None:
        """Write a line if the last one is a while ago."""
        now = time.monotonic()
        if loss is None or now - self.said < PLAIN_SECONDS:
            return
        self.said = now
        speed = log.examples / max(log.seconds, 1e-9)
        left = (self.num_steps - log.steps) * log.seconds / log.steps
        self.console.print(
            f"  {self.label}: step {log.steps}/{self.num_steps}, loss {format_number(loss)}, {speed:.0f} examples/s, "
            f"{left:.0f} s left",
            soft_wrap=True,
        )

    def after_evaluation(self, log: RunLog, evaluation: Evaluation) -> None:
        """Write the validation figures."""
        self.console.print(
            f"  epoch {evaluation.epoch:.1f}: validation {describe_metrics(evaluation.metrics)}", soft_wrap=True
        )

    def close(self) -> None:
        """Nothing to put away."""


def build_progress(console: Console, num_steps: int, label: str) -> ProgressBar | NotebookProgress | PlainProgress:
    """Choose a bar on a terminal or in a notebook, plain lines elsewhere."""
    if console.is_jupyter and not console.quiet:
        return NotebookProgress(num_steps, label)
    if console.is_terminal and not console.is_jupyter:
        return ProgressBar(console, num_steps, label)
    return PlainProgress(console, num_steps, label)


@contextmanager
def track_work(console: Console, label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far work without updates has come: a bar on a terminal or in a notebook, a line now and then elsewhere.

    Args:
        console: Where it is shown.
        label: What is done.
        total: How much there is of it.

    Yields:
        A callable that takes the count done since its last call.
    """
    if console.is_jupyter and not console.quiet:
        bar = NotebookBar(label, total)
        yield bar.advance
        bar.show(is_done=True)
        return
    if console.is_terminal and not console.is_jupyter:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(compact=True), console=console, transient=True) as progress:
            task = progress.add_task(label, total=total)
            yield lambda count: progress.update(task, advance=count)
        return
    done, said = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, said
        done += count
        if time.monotonic() - said >= PLAIN_SECONDS:
            said = time.monotonic()
            console.print(f"  {label}: {done:,} of {total:,}", highlight=False, markup=False, soft_wrap=True)

    yield advance


@contextmanager
def watch_work(
    shown: AbstractContextManager[Callable[[int], None]], hooks: Sequence[Hook]
) -> Iterator[Callable[[int], None]]:
    """Let watchers of the loop see work without updates too, so that one that counts time can end it.

    Args:
        shown: What shows the work.
        hooks: Each is told the count done as if it were steps; what it raises ends the work.

    Yields:
        A callable that takes the count done since its last call.

    Example:
        >>> from nlp_transfer.contracts import track_nothing
        >>> with watch_work(track_nothing("reading", 3), [PlainProgress(Console(), 3, "reading")]) as advance:
        ...     advance(3)
    """
    log = RunLog()

    def tell(count: int) -> None:
        log.steps += count
        advance(count)
        for hook in hooks:
            hook.after_step(log, None, 0.0)

    try:
        with shown as advance:
            yield tell
    finally:
        for hook in hooks:
            hook.close()


class TrackerHook:
    """Sends figures to accelerate's trackers.

    Args:
        accelerator: Its trackers are initialised.
        training: Says how often.
    """

    def __init__(self, accelerator: Accelerator, training: TrainingConfig) -> None:
        self.accelerator, self.training = accelerator, training

    def after_step(self, log: RunLog, loss: float | None, learning_rate: float) -> None:
        """Send loss and rate where the loss has been read."""
        if loss is not None:
            values = {"train/loss": loss, "train/learning_rate": learning_rate, "train/epoch": log.epochs}
            self.accelerator.log(values, step=log.steps)

    def after_evaluation(self, log: RunLog, evaluation: Evaluation) -> None:
        """Send validation figures."""
        values = {f"validation/{name}": value for name, value in evaluation.metrics.items()}
        self.accelerator.log(values, step=log.steps)

    def close(self) -> None:
        """Let trackers write what they hold."""
        self.accelerator.end_training()
