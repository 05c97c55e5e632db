"""A finished comparison: what `compare` returns, and what ``compare.json`` and ``report.html`` hold."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nlp_transfer.evidence.compare.cells import (
    NARROW,
    list_cost_columns,
    list_cost_rows,
    list_curve,
    list_left_out,
    list_score_columns,
    list_score_rows,
    list_warnings,
    name_comparison,
    write_footnote,
)
from nlp_transfer.evidence.compare.page import render_comparison
from nlp_transfer.publishing.result import PAGE, Result
from nlp_transfer.publishing.summary import show_text

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Comparison"]

COMPARE_JSON = "compare.json"


class Comparison(Result):
    """One finished ladder; shows itself in a terminal and in a notebook.

    Args:
        record: What ``compare.json`` holds. It is copied; figures that are not finite become None.
        folder: Of the comparison.

    Example:
        >>> record = {"rows": [{"rung": "full"}], "recommended": "full", "recommendation": "Take full."}
        >>> Comparison(record, "runs/compare-reviews")
        Comparison('runs/compare-reviews': 1 rungs. Take full.)
    """

    file = COMPARE_JSON
    name = "a finished comparison"
    missing = "Run compare first."
    damaged = "Run compare again."

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The table, one mapping a rung."""
        return list(self.record["rows"])

    @property
    def recommended(self) -> str:
        """Name of the rung to take."""
        return str(self.record["recommended"])

    @property
    def recommendation(self) -> str:
        """What to take, and why, in one sentence."""
        return str(self.record["recommendation"])

    @staticmethod
    def check(record: dict[str, Any]) -> None:
        """Refuse what is no comparison."""
        if not isinstance(record["rows"], list):
            raise ValueError("no rows in it")

    def render(self, *, is_page: bool) -> str:
        """Write it as a page, or as a fragment for a notebook, without scripts."""
        return render_comparison(self.record, is_fragment=not is_page)

    def __repr__(self) -> str:
        return f"Comparison({str(self.folder)!r}: {len(self.rows)} rungs. {self.recommendation})"

    def __rich__(self) -> "RenderableType":
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        def make_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, gap: int = 1) -> Table:
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap, 0, 0), show_edge=False)
            for number, column in enumerate(columns):
                table.add_column(column, justify="right" if number else "left", no_wrap=not number)
            for row in rows:
                table.add_row(*(Text(cell) for cell in row))
            return table

        record = self.record
        parts: list[RenderableType] = [Text(name_comparison(record), style="bold"), Text()]
        parts += [make_table(list_score_columns(record), list_score_rows(record), gap=0), Text()]
        costs = [row[:NARROW] for row in list_cost_rows(record)]
        parts += [make_table(list_cost_columns(record)[:NARROW], costs), Text()]
        if record.get("curve"):
            columns, rows = list_curve(record)
            parts += [make_table(columns, rows), Text()]
        parts.append(Text(write_footnote(record), style="dim"))
        parts += [Text(f"Note: {line}", style="yellow") for line in list_warnings(record)]
        parts += [Text(f"Left out: {line}", style="dim") for line in list_left_out(record)]
        parts += [Text(), Text(self.recommendation, style="bold green")]
        parts.append(Text(f"Report: {show_text(str(self.place / PAGE))}", style="dim"))
        return Group(*parts)
