"""Terms that name who a person is: the shipped list, where they stand in a text, and texts with another in place."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from nlp_transfer.errors import DataError
from nlp_transfer.files import explain_reading
from nlp_transfer.recipe.yaml12 import parse_yaml

__all__ = ["TermList", "read_terms"]

SHIPPED = Path(__file__).with_name("terms.yaml")

ARTICLE = re.compile(r"\b(an?)(\s+)$", re.IGNORECASE)

SOUNDS_LIKE_Y = ("european", "eu")
"""Starts of terms that are written with a vowel and spoken without one."""


@dataclass(frozen=True)
class TermList:
    """Sets of terms of one grammatical form each, whose members can stand for each other.

    Attributes:
        kinds: Term to what it tells of a person, such as ``religion``.
        sets: Term to all terms of its set, itself included.

    Example:
        >>> terms = TermList.build({"orientation": [["gay", "heterosexual"]], "age": [["young", "elderly"]]})
        >>> terms.find("A GAY couple, both young.")
        ['gay', 'young']
        >>> terms.replace("A GAY couple, a young one.", {"gay": "heterosexual", "young": "elderly"})
        'A HETEROSEXUAL couple, an elderly one.'
    """

    kinds: Mapping[str, str]
    sets: Mapping[str, tuple[str, ...]]
    pattern: re.Pattern[str] = field(repr=False)

    @classmethod
    def build(cls, content: Mapping[str, Iterable[Iterable[str]]]) -> "TermList":
        """Make a list out of what a file holds.

        Args:
            content: Kind to its sets of terms.

        Raises:
            DataError: A set has one term, a term is empty or stands in the list twice.
        """
        kinds: dict[str, str] = {}
        sets: dict[str, tuple[str, ...]] = {}
        for kind, groups in content.items():
            for group in groups:
                members = tuple(" ".join(str(term).lower().split()) for term in group)
                if len(members) < 2:
                    raise DataError(
                        f"terms: {kind}: expected two terms or more in a set, got {list(members)}. Add one."
                    )
                for term in members:
                    if not term or term in kinds:
                        raise DataError(f"terms: {kind}: expected each term once, got {term!r} again. Keep one.")
                    kinds[term], sets[term] = kind, members
        if not kinds:
            raise DataError("terms: expected sets of terms, got none. Write KIND: [[TERM, TERM]].")
        # The longest first, so that "african american" is not read as "african".
        words = sorted(kinds, key=lambda term: (-len(term), term))
        joined = "|".join(r"[\s-]+".join(map(re.escape, re.split(r"[\s-]", word))) for word in words)
        return cls(kinds, sets, re.compile(rf"(?<!\w)(?:{joined})(?!\w)", re.IGNORECASE))

    def find(self, text: str) -> list[str]:
        """List the terms of a text, each once, in the order in which they come.

        Args:
            text: Any text; whole words count, in any case.
        """
        return list(dict.fromkeys(self._name(match[0]) for match in self.pattern.finditer(text)))

    def replace(self, text: str, others: Mapping[str, str]) -> str:
        """Put other terms in place of some, in the case of what they replace; ``a`` and ``an`` follow.

        Args:
            text: Any text.
            others: Term to what comes in its place; terms that are not in it stay.

        Returns:
            The text with every occurrence replaced.
        """
        parts, start = [], 0
        for match in self.pattern.finditer(text):
            other = others.get(self._name(match[0]))
            if other is None:
                continue
            before = text[start : match.start()]
            if article := ARTICLE.search(before):
                fitting = "an" if other[0] in "aeiou" and not other.startswith(SOUNDS_LIKE_Y) else "a"
                before = before[: article.start()] + _take_case(article[1], fitting, is_article=True) + article[2]
            parts += [before, _take_case(match[0], other)]
            start = match.end()
        return "".join([*parts, text[start:]])

    def _name(self, found: str) -> str:
        """The term as the list has it, however it was written."""
        words = re.split(r"[\s-]+", found.lower())
        return next(name for name in (" ".join(words), "-".join(words)) if name in self.kinds)


def _take_case(model: str, word: str, *, is_article: bool = False) -> str:
    """Write a word in upper case, or with a capital, as another one is."""
    if model.isupper() and (len(model) > 1 or not is_article):
        return word.upper()
    return word[0].upper() + word[1:] if model[0].isupper() else word


@cache
def read_terms(path: Path | None = None) -> TermList:
    """Read a list of terms.

    Args:
        path: A YAML or JSON file, kind to sets of terms; the shipped list where absent.

    Returns:
        The list.

    Raises:
        DataError: There is no such file, or it holds something else.

    Example:
        >>> terms = read_terms()
        >>> terms.kinds["lesbian"], "gay" in terms.sets["lesbian"], len(terms.kinds) > 80
        ('orientation', True, True)
    """
    place = path or SHIPPED
    try:
        content = parse_yaml(place.read_text(encoding="utf-8"), source=str(place), as_text=True)
    except (OSError, UnicodeDecodeError) as error:
        raise explain_reading(f"terms: {place}", error, DataError, way_out="Name a YAML or JSON file.") from error
    is_fitting = isinstance(content, dict) and all(
        isinstance(groups, list) and all(isinstance(group, list) and group for group in groups)
        for groups in content.values()
    )
    if not is_fitting:
        raise DataError(f"terms: {place}: expected KIND: [[TERM, TERM, ...], ...], got something else. Correct it.")
    return TermList.build(content)
