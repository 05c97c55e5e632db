"""A finished comparison: what `compare` returns, and what ``compare.json`` and ``report.html`` hold."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_transfer.errors import ArtifactError, name_cause
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
from nlp_transfer.files import explain_reading
from nlp_transfer.models.digests import open_record, seal_record
from nlp_transfer.publishing.summary import show_text
from nlp_transfer.publishing.views import show_plain, to_json_value, write_view

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Comparison"]

COMPARE_JSON = "compare.json"
REPORT_HTML = "report.html"


class Comparison:
    """One finished ladder; shows itself in a terminal and in a notebook.

    Args:
        record: What ``compare.json`` holds. It is copied; figures that are not finite become None.
        folder: Of the comparison.

    Example:
        >>> record = {"rows": [{"rung": "full"}], "recommended": "full", "recommendation": "Take full."}
        >>> Comparison(record, "runs/compare-reviews")
        Comparison('runs/compare-reviews': 1 rungs. Take full.)
    """

    def __init__(self, record: Mapping[str, Any], folder: Path | str) -> None:
        self.record: dict[str, Any] = to_json_value(record)
        self.folder = Path(folder)

    @classmethod
    def load(cls, folder: Path | str) -> "Comparison":
        """Read a finished comparison.

        Args:
            folder: Of the comparison.

        Returns:
            The comparison.

        Raises:
            ArtifactError: There is none in the folder.
            StorageError: The machine could not read it.
        """
        path = Path(folder) / COMPARE_JSON
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise ArtifactError(f"{path}: expected a finished comparison, found none; run compare first.") from error
        except OSError as error:
            raise explain_reading(path, error, ArtifactError, way_out="Compare again.") from error
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"{path}: expected JSON, got {name_cause(error)}; run compare again.") from error
        if not isinstance(record, dict) or not isinstance(record.get("rows"), list):
            raise ArtifactError(f'{path}: expected an object with "rows", found none; run compare again.')
        return cls(open_record(record, path)[0], folder)

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

    def save(self) -> None:
        """Write ``report.html`` and ``compare.json`` into the folder, each whole or not at all.

        Raises:
            StorageError: The machine could not write.
        """
        text = json.dumps(seal_record(self.record), indent=2, allow_nan=False) + "\n"
        write_view(self.folder, {REPORT_HTML: render_comparison(self.record)}, {COMPARE_JSON: text})

    def __repr__(self) -> str:
        return f"Comparison({str(self.folder)!r}: {len(self.rows)} rungs. {self.recommendation})"

    def __str__(self) -> str:
        return show_plain(self.__rich__(), width=100)

    def __rich__(self) -> "RenderableType":
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        def lay_out(columns: Sequence[str], rows: Sequence[Sequence[str]], *, gap: int = 1) -> Table:
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap, 0, 0), show_edge=False)
            for number, column in enumerate(columns):
                table.add_column(column, justify="right" if number else "left", no_wrap=not number)
            for row in rows:
                table.add_row(*(Text(cell) for cell in row))
            return table

        record = self.record
        parts: list[RenderableType] = [Text(name_comparison(record), style="bold"), Text()]
        parts += [lay_out(list_score_columns(record), list_score_rows(record), gap=0), Text()]
        costs = [row[:NARROW] for row in list_cost_rows(record)]
        parts += [lay_out(list_cost_columns(record)[:NARROW], costs), Text()]
        if record.get("curve"):
            columns, rows = list_curve(record)
            parts += [lay_out(columns, rows), Text()]
        parts.append(Text(write_footnote(record), style="dim"))
        parts += [Text(f"Note: {line}", style="yellow") for line in list_warnings(record)]
        parts += [Text(f"Left out: {line}", style="dim") for line in list_left_out(record)]
        parts += [Text(), Text(self.recommendation, style="bold green")]
        parts.append(Text(f"Report: {show_text(str(self.folder / REPORT_HTML))}", style="dim"))
        return Group(*parts)

    def _repr_html_(self) -> str:
        """Tables and pictures for a notebook, as one fragment of HTML without scripts."""
        return render_comparison(self.record, is_fragment=True)
