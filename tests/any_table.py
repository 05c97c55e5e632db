"""Random tables, and the files and frames that hold them: what a search by machine throws at the readers of data."""

from __future__ import annotations

import bz2
import csv
import datetime
import decimal
import gzip
import io
import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
from hypothesis import strategies as st

__all__ = ["FILE_FORMATS", "UNSEEN", "Layout", "Sheet", "layouts", "put", "sheets", "takes"]

WORDS = (
    *("a joy", "a bore", "fine, really", 'said "no" twice', "two\nlines", "semi; colon", "tab\there", "pipe | here"),
    *(
        "naïve café",
        "Ωμέγα",
        "привет",
        "你好",
        "สวัสดี",
        "🙂 smile",
        "👩‍👩‍👧",
        "e\u0301 combining",
        "zero\u200bwidth",
        "\u200f rtl",
    ),
    *("=1+1", "-5", "007", "1.10", "1e5", "NA", "None", "null", "nan", "N/A", "True", "#", "'quoted'", "<b>bold</b>"),
    *(
        "line\u2028separator",
        "form\x0cfeed",
        "no\ufeffbreak",
        "crlf\r\nhere",
        "cr\rhere",
        "[UNK] [SEP]",
        "back\\slash",
        "{x}",
    ),
)
"""Cells that readers of tables have been seen to trip over."""

EMPTY = ("", " ", "\t", "\u00a0", "\n", None)
UNSEEN = ("\u200b", "\u00ad", "\ufeff\u200b")
NAMES = {
    "words": ("bad", "good", "so, so"),
    "traps": ("NA", "None", "null"),
    "digits": ("01", "1.10", "2"),
    "ints": (0, 1, 2),
    "gaps": (3, 7, 11),
    "floats": (1.0, 2.0, 3.0),
    "bools": (False, True),
    "flags": ("false", "true"),
    "dates": (datetime.date(2024, 1, 31), datetime.date(2024, 2, 1)),
    "decimals": (decimal.Decimal("1"), decimal.Decimal("2")),
    "scripts": ("bé", "很好", "good 🙂"),
    "spaces": (" bad", "good ", "a  b"),
}
"""Kinds of labels, and the values of each."""

FILE_FORMATS = (
    "csv",
    "tsv",
    "jsonl",
    "ndjson",
    "parquet",
    "arrow",
    "feather",
    "csv.gz",
    "jsonl.gz",
    "csv.xz",
    "tsv.bz2",
)
MEMORY = ("pandas", "datasets", "pyarrow", "dict")
TEXT_NAMES = ("text", "Review", "sentence", "Comment, original", "текст")
LABEL_NAMES = ("label", "Target", "the; class", "y")


@dataclass(frozen=True)
class Sheet:
    """A labelled table.

    Attributes:
        texts: One a row; None where it is missing.
        labels: One a row, all of one kind; None where it is missing.
        kind: Key of `NAMES`.
        text: Name of the column of texts.
        label: Name of the column of labels.
        extras: Further columns, which nobody reads.
    """

    texts: tuple[str | None, ...]
    labels: tuple[Any, ...]
    kind: str
    text: str = "text"
    label: str = "label"
    extras: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, tuple[Any, ...]]:
        """Every column, texts and labels in the middle."""
        names = list(self.extras)
        before, behind = names[: len(names) // 2], names[len(names) // 2 :]
        table = {name: self.extras[name] for name in before}
        table |= {self.text: self.texts, self.label: self.labels}
        return table | {name: self.extras[name] for name in behind}

    @property
    def keys(self) -> list[str]:
        """The overrides that name the two columns."""
        return [f"data.text={json.dumps(self.text)}", f"data.label={json.dumps(self.label)}"]

    def is_empty(self, row: int) -> bool:
        """Whether a row has no text, invisible characters aside."""
        return (self.texts[row] or "").strip() == ""


@dataclass(frozen=True)
class Layout:
    """How a table is written down.

    Attributes:
        kind: One of `FILE_FORMATS` or of what is held in memory.
        delimiter: Between the cells of a csv.
        quoting: Of the csv module.
        encoding: Of text files.
        line_end: Of csv.
        directive: Whether ``sep=`` comes first.
        blanks: Blank lines behind the rows.
        repeats_header: Whether the header comes again in the middle, as in joined files.
    """

    kind: str
    delimiter: str = ","
    quoting: int = csv.QUOTE_MINIMAL
    encoding: str = "utf-8"
    line_end: str = "\n"
    directive: bool = False
    blanks: int = 0
    repeats_header: bool = False

    @property
    def is_delimited(self) -> bool:
        return self.kind.split(".")[0] in ("csv", "tsv")

    @property
    def is_text(self) -> bool:
        return self.is_delimited or self.kind.split(".")[0] in ("jsonl", "ndjson")

    @property
    def keys(self) -> list[str]:
        """The overrides that a reader needs to be told."""
        return [] if self.encoding in ("utf-8", "utf-8-sig") or not self.is_text else [f"data.encoding={self.encoding}"]


def _mask(values: tuple[Any, ...], missing: frozenset[int]) -> tuple[Any, ...]:
    return tuple(None if row in missing else value for row, value in enumerate(values))


@st.composite
def sheets(draw: st.DrawFn) -> Sheet:
    """Tables of two to thirty rows; most can be trained on, some have holes, repeats, or a single class."""
    num_rows = draw(st.integers(2, 30))
    kind = draw(st.sampled_from(sorted(NAMES)))
    names = NAMES[kind][: draw(st.sampled_from((2, 3, 3, 1)))]
    cells = draw(st.lists(st.sampled_from(WORDS), min_size=num_rows, max_size=num_rows))
    is_numbered = draw(st.sampled_from((True, True, True, False)))
    texts: list[str | None] = [f"{row} {cell}" if is_numbered else cell for row, cell in enumerate(cells)]
    holes = draw(st.sampled_from(("none", "none", "texts", "labels", "both", "unseen")))
    some = st.frozensets(st.integers(0, num_rows - 1), min_size=1, max_size=3)
    labels: tuple[Any, ...] = tuple(names[row % len(names)] for row in range(num_rows))
    if holes in ("texts", "both"):
        for row in sorted(draw(some)):
            texts[row] = draw(st.sampled_from(EMPTY))
    if holes == "unseen":
        for row in sorted(draw(some)):
            texts[row] = draw(st.sampled_from(UNSEEN))
    if holes in ("labels", "both"):
        labels = _mask(labels, draw(some))
    extras: dict[str, tuple[Any, ...]] = {}
    for name in draw(
        st.sets(st.sampled_from(("note", "when", "price", "ok", "empty", "id", "weird name, 2")), max_size=3)
    ):
        pool: dict[str, tuple[Any, ...]] = {
            "note": WORDS, "when": NAMES["dates"], "price": (1.5, float("nan"), None, 3.0), "ok": (True, False, None),
            "empty": (None,), "id": tuple(range(40)), "weird name, 2": ("x", "y,z", ""),
        }  # fmt: skip
        extras[name] = tuple(draw(st.sampled_from(pool[name])) for _ in range(num_rows))
    text, label = draw(st.sampled_from(TEXT_NAMES)), draw(st.sampled_from(LABEL_NAMES))
    return Sheet(tuple(texts), labels, kind, text, label, extras)


@st.composite
def layouts(draw: st.DrawFn, kinds: tuple[str, ...] = FILE_FORMATS + MEMORY) -> Layout:
    """Ways to write a table down."""
    layout = Layout(draw(st.sampled_from(kinds)))
    if layout.is_text:
        layout = replace(layout, encoding=draw(st.sampled_from(("utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252"))))
    if not layout.is_delimited:
        return layout
    return replace(
        layout,
        delimiter="\t" if layout.kind.startswith("tsv") else draw(st.sampled_from((",", ",", ";", "\t", "|"))),
        quoting=draw(st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC))),
        line_end=draw(st.sampled_from(("\n", "\r\n"))),
        directive=draw(st.sampled_from((False, False, True))),
        blanks=draw(st.sampled_from((0, 0, 1, 3))),
        repeats_header=draw(st.sampled_from((False, False, False, True))),
    )


def takes(layout: Layout, sheet: Sheet) -> bool:
    """Whether a way of writing can hold a table to the letter: an encoding may lack characters."""
    if not layout.is_text or layout.encoding.startswith("utf"):
        return True
    try:
        json.dumps([list(values) for values in sheet.columns.values()], default=str, ensure_ascii=False).encode(
            layout.encoding
        )
        json.dumps(list(sheet.columns), ensure_ascii=False).encode(layout.encoding)
    except UnicodeEncodeError:
        return False
    return True


def put(sheet: Sheet, layout: Layout, folder: Path) -> object:
    """Write a table as a layout says; gives the file's path, or the object in memory."""
    if layout.kind in MEMORY:
        return _hold(sheet, layout.kind)
    path = folder / f"table.{layout.kind}"
    if layout.is_text:
        write = _write_delimited if layout.is_delimited else _write_json
        content = write(sheet, layout).encode(layout.encoding)
        packers: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}
        path.write_bytes(packers.get(path.suffix[1:], bytes)(content))
        return path
    table = _hold(sheet, "pyarrow")
    assert isinstance(table, pa.Table)
    if layout.kind == "parquet":
        pq.write_table(table, path)
    elif layout.kind == "feather":
        pyarrow.feather.write_feather(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    return path


def _hold(sheet: Sheet, kind: str) -> object:
    """A table in memory."""
    columns = {name: list(values) for name, values in sheet.columns.items()}
    if kind == "dict":
        return columns
    if kind == "pandas":
        return pd.DataFrame(columns)
    table = pa.table({name: _make_array(values) for name, values in columns.items()})
    return table if kind == "pyarrow" else datasets.Dataset(table)


def _make_array(values: list[Any]) -> pa.Array:
    return pa.array(values) if any(value is not None for value in values) else pa.array(values, pa.string())


def _format_cell(value: object) -> object:
    """A value as pandas writes it into csv."""
    if value is None or value != value:
        return ""
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else str(value)


def _write_delimited(sheet: Sheet, layout: Layout) -> str:
    file = io.StringIO()
    has_return = any("\r" in str(value) for values in sheet.columns.values() for value in values)
    # The module leaves a carriage return without quotes where that does not end the lines it writes.
    quoting: Any = csv.QUOTE_ALL if has_return else layout.quoting
    writer = csv.writer(file, delimiter=layout.delimiter, quoting=quoting, lineterminator=layout.line_end)
    if layout.directive:
        file.write(f"sep={layout.delimiter}{layout.line_end}")
    header = list(sheet.columns)
    rows = list(zip(*sheet.columns.values(), strict=True))
    writer.writerow(header)
    for number, row in enumerate(rows):
        if layout.repeats_header and number == len(rows) // 2:
            writer.writerow(header)
        writer.writerow([_format_cell(value) for value in row])
    file.write(layout.line_end * layout.blanks)
    return file.getvalue()


def _write_json(sheet: Sheet, layout: Layout) -> str:
    """One object a line, NaN and all, as pandas and Python write it."""
    names = list(sheet.columns)
    rows = zip(*sheet.columns.values(), strict=True)
    values = [{name: _to_json(value) for name, value in zip(names, row, strict=True)} for row in rows]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in values)


def _to_json(value: object) -> object:
    """A value as JSON has it."""
    if isinstance(value, decimal.Decimal):
        return float(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)
