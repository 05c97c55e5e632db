"""An explained prediction, shown in a terminal, a notebook and a page."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from markupsafe import Markup
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nlp_transfer.errors import OutputError
from nlp_transfer.figures import format_number
from nlp_transfer.files import check_new_file
from nlp_transfer.publishing.result import Result
from nlp_transfer.publishing.summary import show_text
from nlp_transfer.publishing.views import make_templates, read_styles

__all__ = ["BASELINES", "METHODS", "Baseline", "Explanation", "Method"]

Method = Literal["integrated_gradients", "occlusion"]
Baseline = Literal["pad", "mask"]

METHODS: tuple[Method, ...] = get_args(Method)
BASELINES: tuple[Baseline, ...] = get_args(Baseline)

BLANKED: dict[str, str] = {"mask": "masked", "pad": "blanked out"}
"""Baseline to a word for its effect on the text."""

TOP = 10
"""Most words in the table; every word is in the JSON."""

WORD_LETTERS = 40
"""Most characters of a word in the table."""

FOR, AGAINST = (0, 103, 165), (200, 76, 0)
"""Blue and orange of the reports, which color-blind readers can distinguish."""

FAINT = 0.05
"""Share of the largest value below which a word is not colored; chosen."""

Piece = tuple[str, float | None]
"""Text and, for a word that was read, its value."""


class Explanation(Result):
    """The contribution of each word to the log-odds of a label; shows itself in a terminal and in a notebook.

    Args:
        record: A dictionary as ``to_json`` returns it. It is copied.

    Example:
        >>> words = [{"word": "superb", "part": "text", "start": 2, "end": 8, "value": 1.5}]
        >>> found = Explanation({"text": "a superb", "label": "good", "words": words})
        >>> found.top(1), found
        ([('superb', 1.5)], Explanation(good: superb +1.500))
    """

    name = "an explanation"
    missing = "Make one with: nlp-transfer explain -o FILE.json"
    damaged = "Explain again."

    @classmethod
    def locate(cls, folder: Path) -> Path:
        """Return the path itself: an explanation is one file, not a folder."""
        return folder

    @staticmethod
    def check(record: dict[str, Any]) -> None:
        """Refuse a record that is no explanation."""
        if not isinstance(record["words"], list) or not isinstance(record["label"], str):
            raise ValueError("no words in it")

    def render(self, *, is_page: bool) -> str:
        """Render the colored text and a table, as a page or as a fragment for a notebook, without scripts."""
        return _render(self, is_page=is_page)

    @property
    def label(self) -> str:
        """The label that is explained."""
        return str(self.record["label"])

    @property
    def words(self) -> list[dict[str, Any]]:
        """Every word in order: ``word``, ``part`` (text or text_b), ``start``, ``end``, ``value``; None if not read."""
        return list(self.record["words"])

    @property
    def num_unread(self) -> int:
        """Number of words beyond the classifier's maximum length."""
        return sum(word["value"] is None for word in self.words)

    def top(self, count: int = TOP) -> list[tuple[str, float]]:
        """List the words with the largest absolute values.

        Args:
            count: Number of words.

        Returns:
            Word and value, the largest first.
        """
        return [(word["word"], word["value"]) for word in self._rank()[:count]]

    def save(self, path: Path | str, *, overwrite: bool = False) -> Path:  # type: ignore[override]
        """Write a page or JSON, by the file's ending; atomically.

        Args:
            path: Ends in ``.html`` or ``.json``.
            overwrite: Whether a file of that name is replaced.

        Returns:
            The file.

        Raises:
            OutputError: The ending is another one, or the file exists.
            StorageError: The machine could not write.
        """
        from nlp_transfer.publishing.artifact import write_atomically

        place = Path(path)
        self.claim(place, overwrite=overwrite)
        text = json.dumps(self.record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        page = _render(self, is_page=True) if place.suffix.lower() == ".html" else text
        # A text may hold a lone surrogate, which UTF-8 cannot encode.
        write_atomically(place, page.encode("utf-8", errors="backslashreplace"))
        return place

    @staticmethod
    def claim(path: Path, *, overwrite: bool = False) -> None:
        """Refuse, before any work is done, a file that could not be written.

        Args:
            path: The file to write.
            overwrite: Whether an existing file may be replaced.

        Raises:
            OutputError: The ending is neither .html nor .json, the file exists, or its folder does not.
        """
        if path.suffix.lower() not in (".html", ".json"):
            raise OutputError(f"--out: {path}: expected a file ending in .html or .json. Name one.")
        if path.is_dir() or (path.exists() and not overwrite):
            raise OutputError(f"--out: {path}: exists already. Name another file, or add --overwrite.")
        if not path.parent.is_dir():
            raise OutputError(f"--out: {path}: there is no folder {path.parent}. Make it first.")
        check_new_file(path, where=f"--out: {path}")

    def __repr__(self) -> str:
        return f"Explanation({self.label}: {', '.join(f'{word} {_sign(value)}' for word, value in self.top(5))})"

    def __rich__(self) -> RenderableType:
        texts = []
        for pieces in self._list_texts():
            line = Text()
            for shown, value in pieces:
                line.append(shown, style=_choose_style(self._share(value)))
            texts += [line, Text()]
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_column("Word")
        table.add_column(self._unit.capitalize(), justify="right", no_wrap=True)
        table.add_column("")
        for word, value, share in self._list_rows():
            table.add_row(Text(word), _sign(value), Text("█" * round(12 * abs(share)), style=_choose_ink(share)))
        notes = [Text(line, style="dim") for line in self._describe_sum()]
        alerts = [Text(line, style="bold red") for line in self._list_alerts()]
        return Group(Text(self._lead, style="bold"), Text(), *texts, table, Text(), *notes, *alerts)

    @property
    def _unit(self) -> str:
        """Unit of the values."""
        return "value" if self.record.get("kind") == "regression" else "log-odds"

    @property
    def _lead(self) -> str:
        """The explained label with its scores, in one line."""
        record, label = self.record, show_text(self.label, 60)
        if record["kind"] == "regression":
            return f"{label}: {format_number(record['score'])}"
        predicted = record["predicted"]
        is_predicted = self.label in (predicted if isinstance(predicted, list) else [predicted])
        names = ", ".join(predicted) if isinstance(predicted, list) else predicted
        other = "" if is_predicted else f" (predicted: {show_text(names or 'none', 60)})"
        return f"{label}{other}: probability {record['probability']:.3f}, log-odds {_sign(record['score'])}"

    def _describe_sum(self) -> list[str]:
        """Explain how the values add up, line by line."""
        record = self.record
        read = [word["value"] for word in self.words if word["value"] is not None]
        rest = len(read) - len(self._rank()[:TOP])
        lines = []
        if rest:
            others = sum(read) - sum(value for _, value in self.top())
            lines.append(f"{rest} other word{'s' if rest > 1 else ''}: {_sign(others)} together")
        every = f"{_sign(record['baseline_score'])} with every word {BLANKED[record['baseline']]}"
        if record["method"] == "occlusion":
            told = f"Occlusion: the drop in {self._unit} without each word; the drops need not add up; {every}."
            return [*lines, told]
        total = sum(read) + record["special"]
        return [
            *lines,
            f"Special tokens: {_sign(record['special'])}",
            f"Sum: {_sign(total)}, from {every} to {_sign(record['score'])} with the text",
            f"Integrated gradients in {record['steps']} steps, error of the sum {format_number(record['gap'])}",
        ]

    def _list_alerts(self) -> list[str]:
        """List warnings: values that do not add up, words that were not read."""
        found = []
        if not self.record["is_complete"]:
            found.append(
                f"The values do not add up: the error of their sum is {format_number(self.record['gap'])} after "
                f"{self.record['steps']} steps. Use more steps with --steps, or --method occlusion."
            )
        if self.num_unread:
            what = "word is" if self.num_unread == 1 else "words are"
            found.append(f"{self.num_unread:,} {what} not read: the text is longer than the classifier reads.")
        return found

    def _rank(self) -> list[dict[str, Any]]:
        """Sort the words that were read by absolute value, the largest first."""
        read = [word for word in self.words if word["value"] is not None]
        return sorted(read, key=lambda word: -abs(word["value"]))

    def _share(self, value: float | None) -> float:
        """A value as a share of the largest, in [-1, 1]."""
        largest = max((abs(word["value"]) for word in self.words if word["value"] is not None), default=0.0)
        return 0.0 if value is None or not largest else value / largest

    def _list_rows(self) -> list[tuple[str, float, float]]:
        """List word, value and share for the rows of the table."""
        return [(show_text(word, WORD_LETTERS), value, self._share(value)) for word, value in self.top()]

    def _list_texts(self) -> list[list[Piece]]:
        """Cut each text into words and the gaps between them."""
        parts = [part for part in ("text", "text_b") if part in self.record]
        return [
            list(_cut_text(self.record[part], [word for word in self.words if word["part"] == part])) for part in parts
        ]


def _cut_text(text: str, words: list[dict[str, Any]]) -> Iterator[Piece]:
    """Cut one text into pieces that are safe to show; a run of unread words becomes their count."""
    at, unread = 0, 0
    for word in [*words, {"start": len(text), "end": len(text), "value": 0.0}]:
        if word["value"] is None:
            unread += 1
            at = word["end"]
            continue
        if unread:
            yield f" [{unread:,} not read] ", None
            unread = 0
        yield _show_gap(text[at : word["start"]]), None
        yield show_text(text[word["start"] : word["end"]]), word["value"]
        at = word["end"]


def _sign(value: float) -> str:
    """Write a value with its sign."""
    return format_number(value, signed=True)


def _show_gap(gap: str) -> str:
    """Show the text between two words, with runs of spaces reduced to one."""
    shown = show_text(gap)
    if not shown:
        return " " if gap else ""
    return f"{' ' * gap[0].isspace()}{shown}{' ' * gap[-1].isspace()}"


def _choose_style(share: float) -> str:
    """Choose the background of a word in a terminal: blue for, orange against, paler for smaller values."""
    if abs(share) < FAINT:
        return ""
    strength = 0.2 + 0.8 * abs(share)
    red, green, blue = (round(255 + (ink - 255) * strength) for ink in (FOR if share > 0 else AGAINST))
    return f"{'white' if strength > 0.6 else 'black'} on rgb({red},{green},{blue})"


def _choose_ink(share: float) -> str:
    """Choose the color of a bar in a terminal."""
    return "rgb({},{},{})".format(*(FOR if share > 0 else AGAINST))


def _render(found: Explanation, *, is_page: bool) -> str:
    """Fill the template; autoescape is on for every value."""
    return (
        make_templates("nlp_transfer.publishing")
        .get_template("explanation.html.j2")
        .render(
            is_page=is_page,
            title=f"Why {show_text(found.label, 60)}",
            lead=found._lead,
            unit=found._unit.capitalize(),
            texts=[
                [
                    {
                        "shown": shown,
                        "value": None if value is None else _sign(value),
                        **_choose_color(found._share(value)),
                    }
                    for shown, value in pieces
                ]
                for pieces in found._list_texts()
            ],
            rows=[
                {"word": word, "value": _sign(value), **_choose_bar(share)} for word, value, share in found._list_rows()
            ],
            notes=found._describe_sum(),
            alerts=found._list_alerts(),
            styles=Markup(read_styles()),
        )
    )


def _choose_color(share: float) -> dict[str, Any]:
    """Choose color and opacity of a word or bar."""
    ink = ",".join(map(str, FOR if share > 0 else AGAINST))
    return {"ink": ink, "strength": 0.0 if abs(share) < FAINT else round(0.08 + 0.52 * abs(share), 3)}


def _choose_bar(share: float) -> dict[str, str]:
    """Choose the color of a bar, its length in percent of the cell, and its side from the middle of the cell."""
    ink = ",".join(map(str, FOR if share > 0 else AGAINST))
    return {"ink": ink, "width": f"{50 * abs(share):.1f}", "side": "left" if share > 0 else "right"}
