"""Progress in a notebook: one output that is drawn again in place, without widgets to install."""

import html
import time
from collections.abc import Mapping
from typing import Any

from nlp_transfer.contracts import Evaluation, RunLog
from nlp_transfer.figures import format_number

__all__ = ["NotebookBar", "NotebookProgress"]

REDRAW_SECONDS = 0.5
"""Least time between two drawings; chosen: a browser that is flooded shows nothing."""

MOST_FIGURES = 3
"""Validation figures in a row of the table; chosen."""


class NotebookBar:
    """A bar, words beside it and a table below it, all in one output of a cell.

    Args:
        label: What is done.
        total: How much there is of it.
    """

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total = label, total
        self.done, self.words = 0, ""
        self.rows: list[Mapping[str, str]] = []
        self._handle: Any = None
        self._drawn = 0.0

    def draw(self, *, is_done: bool = False) -> dict[str, str]:
        """Lay it out.

        Args:
            is_done: Whether the work is over, and with it the bar.

        Returns:
            The same as HTML and as text, by media type.
        """
        lead = f"{self.label}: {self.done:,} of {self.total:,}" + (f", {self.words}" if self.words else "")
        bar = "" if is_done else f'<progress value="{self.done}" max="{max(self.total, 1)}"></progress> '
        shown = f"<div>{bar}{html.escape(lead)}</div>"
        lines = [lead]
        if self.rows:
            cells = "".join(f"<th>{html.escape(name)}</th>" for name in self.rows[0])
            body = "".join(
                f"<tr>{''.join(f'<td>{html.escape(value)}</td>' for value in row.values())}</tr>" for row in self.rows
            )
            shown += f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
            lines += [", ".join(f"{name} {value}" for name, value in row.items()) for row in self.rows]
        return {"text/html": shown, "text/plain": "\n".join(lines)}

    def show(self, *, is_due: bool = False, is_done: bool = False) -> None:
        """Draw it again, if the last time is a while ago or it is due."""
        now = time.monotonic()
        if not is_due and not is_done and now - self._drawn < REDRAW_SECONDS:
            return
        self._drawn = now
        drawn = self.draw(is_done=is_done)
        if self._handle is None:
            from IPython.display import display

            self._handle = display(drawn, raw=True, display_id=True)
        else:
            self._handle.update(drawn, raw=True)

    def advance(self, count: int) -> None:
        """Move the bar by so much."""
        self.done += count
        self.show()


class NotebookProgress:
    """Follows a training; a hook, as `engine.hooks` has them.

    Args:
        num_steps: Updates of the whole run.
        label: What is trained.
    """

    def __init__(self, num_steps: int, label: str) -> None:
        self.bar = NotebookBar(label, num_steps)
        self.bar.show()

    def after_step(self, log: RunLog, loss: float | None, learning_rate: float) -> None:  # noqa: ARG002
        """Move the bar."""
        self.bar.done = log.steps
        if loss is not None:
            speed = log.examples / max(log.seconds, 1e-9)
            left = (self.bar.total - log.steps) * log.seconds / max(log.steps, 1)
            self.bar.words = f"loss {format_number(loss)}, {speed:.0f} examples/s, {left:.0f} s left"
        self.bar.show()

    def after_evaluation(self, log: RunLog, evaluation: Evaluation) -> None:  # noqa: ARG002
        """Add the validation figures to the table."""
        figures = list(evaluation.metrics.items())[:MOST_FIGURES]
        row = {"epoch": f"{evaluation.epoch:.1f}"}
        self.bar.rows.append(row | {f"validation {name}": format_number(value) for name, value in figures})
        self.bar.show(is_due=True)

    def close(self) -> None:
        """Take the bar away; the table stays."""
        self.bar.words = self.bar.words.rpartition(", ")[0]
        self.bar.show(is_done=True)
