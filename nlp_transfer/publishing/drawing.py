"""Shared parts of all pictures: style, colors, layout, and the conversion of a figure to inline SVG.

Only matplotlib's object interface is used: no pyplot, no global figure.
"""

import html
import io
import math
import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from nlp_transfer.publishing.summary import show_text

__all__ = [
    "BLUE",
    "GREEN",
    "GRID",
    "INK",
    "LETTER",
    "MUTED",
    "ON_BLUE",
    "RED",
    "SOFT",
    "WIDTH",
    "draw_bars",
    "measure_text",
    "new_figure",
    "place",
    "shorten",
    "shorten_all",
    "tidy_bars",
    "write_above",
    "write_heading",
    "write_names",
    "write_svg",
]

WIDTH = 330.0
"""Points; about a phone's width, so that letters keep their size there."""

LETTER = 0.6
"""Width of a letter in font sizes: an upper estimate, because the reader's font is not known."""

FONT, LINE = 9.0, 11.0
"""Size of a name beside a point, and the height that it takes, in points."""

LEAST_TICK, LARGE_TICK, MOST_TICK = 1e-3, 1e4, 1e6
"""Tick labels below the first or from the last have a power of ten; from the second they have separators."""

MARK, AWAY = 4.0, 6.0
"""Half the width of a point's mark with some room, and how far a name stands from the point, in points."""

_PLACES = tuple(product((6.0 - LINE * lines for lines in range(12)), ("left", "right")))
"""Positions of a name, the best first: its vertical offset from its point, and which of its ends is at the point."""

# Blue, vermilion and bluish green of Okabe and Ito 2008 can be distinguished with any color vision. Each color is
# replaced by a CSS variable in the finished SVG, so no two may be equal.
INK, MUTED, GRID, SOFT = "#1e293c", "#5b687b", "#dfe5ed", "#a9b5c6"
BLUE, RED, GREEN, ON_BLUE = "#0067a5", "#c84c00", "#00805c", "#fffffe"
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    SOFT: "soft",
    BLUE: "blue",
    RED: "red",
    GREEN: "green",
    ON_BLUE: "on-blue",
}

_STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10.0,
    "text.color": INK,
    "text.parse_math": False,
    "text.usetex": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.grid": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "grid.color": GRID,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "nlp_transfer",
    "path.simplify": True,
}


def shorten(name: object, width: int) -> str:
    """Cut a name to a display width, with an ellipsis for its middle; wide (East Asian) letters count twice.

    Class names often share their start, so the end is kept too.

    Example:
        >>> shorten("card_payment_fee_charged", 12), shorten("short", 12)
        ('card_pa…rged', 'short')
    """
    text = show_text(name, 200)
    if measure_text(text) <= width:
        return text
    tail_width = (width - 1) * 2 // 5
    head = _take(text, width - 1 - tail_width)
    tail = _take(text[::-1], tail_width)[::-1]
    return f"{head}…{tail}"


def shorten_all(names: Sequence[str], width: int) -> list[str]:
    """Cut names to a width; numbered where cutting makes two of them look the same.

    Example:
        >>> shorten_all(["a long name: 1 of it", "a long name: 2 of it"], 10)
        ['1 a lo…it', '2 a lo…it']
    """
    short = [shorten(name, width) for name in names]
    if len(set(short)) == len(short):
        return short
    return [f"{position} {shorten(name, width - 3)}" for position, name in enumerate(names, start=1)]


def _take(text: str, width: int) -> str:
    """Take the start of a text, up to a display width."""
    kept = ""
    for letter in text:
        if measure_text(kept + letter) > width:
            break
        kept += letter
    return kept


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """Make a figure of a size in points; style and ignored warnings are in effect until the block ends."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The reader's browser has letters that the measuring font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        figure = Figure(figsize=(width / 72, height / 72))
        FigureCanvasSVG(figure)
        yield figure


def place(figure: Figure, *, left: float, right: float, bottom: float, top: float, gap: float = 0.2) -> None:
    """Set margins in points."""
    width, height = (float(size) * 72 for size in figure.get_size_inches())
    figure.subplots_adjust(
        left=left / width, right=1 - right / width, bottom=bottom / height, top=1 - top / height, hspace=gap
    )


def write_names(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Write a name beside each point: to its right or else its left, and further down where there is no room.

    Args:
        axes: Axes with the points; their limits must not change after this call.
        points: Name and coordinates of each point, in units of the axes.
    """
    axes.autoscale_view()
    scale = 72 / axes.figure.dpi
    edge = float(axes.figure.bbox.width) * scale
    spots = [tuple(float(value) * scale for value in axes.transData.transform(point[1:])) for point in points]
    # Occupied boxes: left, right and middle of the names and of the marks of all points.
    taken = [(x - MARK, x + MARK, y) for x, y in spots]
    for (name, own_x, own_y), (x, y) in sorted(zip(points, spots, strict=True), key=lambda each: each[1][0]):
        width = LETTER * FONT * measure_text(name)
        for offset, side in _PLACES:
            left = x + AWAY if side == "left" else x - AWAY - width
            end, middle = left + width, y + offset
            if (
                left > 0
                and end < edge
                and not any(
                    abs(middle - other) < LINE and left < their_end and start < end for start, their_end, other in taken
                )
            ):
                break
        taken.append((left, end, middle))
        axes.annotate(
            name,
            (own_x, own_y),
            xytext=(AWAY if side == "left" else -AWAY, offset),
            textcoords="offset points",
            ha=side,
            va="center",
            fontsize=FONT,
            color=INK,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": SOFT, "linewidth": 0.8} if abs(offset) > LINE else None,
        )


class PlainTicks(ScalarFormatter):
    """Tick labels that each hold the whole number: matplotlib writes a power of ten apart, where the heading is here.

    Example:
        >>> PlainTicks().format_ticks([0.0, 5e9, 1e10]), PlainTicks().format_ticks([0.0, 100_000.0])
        (['0', '0.5e10', '1e10'], ['0', '100,000'])
    """

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """Write the labels of all ticks at once, so that they agree in their digits."""
        largest = max((abs(float(value)) for value in values), default=0.0)
        if largest and not LEAST_TICK <= largest < MOST_TICK:
            power = math.floor(math.log10(largest))
            return [f"{value / 10.0**power:.3g}e{power}" if value else "0" for value in values]
        if largest >= LARGE_TICK:
            return [f"{value:,.10g}" for value in values]
        self.set_scientific(False)
        labels: list[str] = super().format_ticks(list(values))
        return labels


def write_svg(figure: Figure, title: str) -> str:
    """Turn a figure into one scalable SVG element with a title and colors from CSS variables."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if type(axis.get_major_formatter()) is ScalarFormatter:
                axis.set_major_formatter(PlainTicks(useOffset=False))
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for color, name in _VARIABLES.items():
        text = re.sub(rf"((?:fill|stroke): ){color}", rf"\1var(--nt-{name}, {color})", text)
    width, height = (float(size) * 72 for size in figure.get_size_inches())
    safe = html.escape(title)
    opening = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'role="img" aria-label="{safe}" '
        f'viewBox="0 0 {width:g} {height:g}" style="width: 100%; max-width: {width * 1.7:.0f}px; height: auto">'
        f"<title>{safe}</title>"
    )
    return re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1).strip()


def measure_text(text: str) -> int:
    """Display width in letters; a wide letter counts twice."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def write_heading(axes: Axes, text: str) -> None:
    """Write the name of the vertical axis horizontally above it."""
    axes.set_title(text, loc="left", fontsize=9.5, color=MUTED, pad=7)


def write_above(axes: Axes, top: float, text: str, detail: str = "") -> None:
    """Write a bar's name above its top edge at the left, and a detail at the right."""
    for share, words, side, size, color in ((0.0, text, "left", 9.5, INK), (1.0, detail, "right", 8.5, MUTED)):
        axes.annotate(
            words,
            (share, top),
            xycoords=axes.get_yaxis_transform(),
            xytext=(0, 2.5),
            textcoords="offset points",
            ha=side,
            va="bottom",
            fontsize=size,
            color=color,
            annotation_clip=False,
        )


def tidy_bars(axes: Axes, count: int) -> None:
    """Give bars a common frame: the first on top, no vertical axis."""
    axes.set_ylim(count - 0.6, -0.62)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(visible=True, axis="x", linewidth=0.8)
    axes.set_axisbelow(True)


def draw_bars(rows: Sequence[tuple[str, float, str]], *, color: str, title: str) -> str:
    """Draw horizontal bars of shares, each under its own text of two lines."""
    if not rows:
        return ""
    with new_figure(WIDTH, 48 + 48 * len(rows)) as figure:
        axes = figure.subplots()
        place(figure, left=14, right=18, bottom=34, top=8)
        axes.barh(np.arange(len(rows)) + 0.18, [share for _, share, _ in rows], height=0.22, color=color, linewidth=0)
        for position, (text, _, detail) in enumerate(rows):
            write_above(axes, position + 0.07, text, detail)
        tidy_bars(axes, len(rows))
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        axes.set_xlabel("Share of the true class")
        return write_svg(figure, title)
