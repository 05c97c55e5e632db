"""YAML as version 1.2 reads it: ``2e-5`` is a number, ``no`` is text, and nothing can run code.

PyYAML follows version 1.1, where ``2e-5`` is text, ``no`` is false, ``010`` is 8 and ``1:30`` is 90. This module
follows the core schema of version 1.2, and refuses what a recipe never needs: tags, anchors, aliases, repeated keys.
"""

import math
import re
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from nlp_transfer.errors import RecipeError

__all__ = ["MAX_CHARACTERS", "dump_yaml", "parse_scalar", "parse_yaml"]

MAX_CHARACTERS = 1_000_000
"""Longest text that is parsed; chosen, a recipe has a few thousand characters."""

_MAX_DEPTH = 20  # chosen: the deepest recipe has 4 levels, and the composer recurses
_MAX_DIGITS = 400  # chosen: more digits than the largest float has

_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"[-+]?\.(?:inf|Inf|INF)")
_NAN = re.compile(r"\.(?:nan|NaN|NAN)")

_READERS: tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...] = (
    (_NULL, lambda _: None),
    (_BOOL, lambda text: text.lower() == "true"),
    (_INT, int),
    (_OCTAL, lambda text: int(text[2:], 8)),
    (_HEX, lambda text: int(text[2:], 16)),
    (_FLOAT, float),
    (_INFINITY, lambda text: -math.inf if text.startswith("-") else math.inf),
    (_NAN, lambda _: math.nan),
)


def parse_scalar(text: str) -> Any:
    """Read one unquoted value by the core schema of YAML 1.2.

    Args:
        text: The value after ``key:`` or ``key=``; surrounding spaces are ignored.

    Returns:
        None, a bool, an int, a float, or the text itself.

    Source:
        https://yaml.org/spec/1.2.2/#103-core-schema. Numbers of more than 400 digits stay text.

    Example:
        >>> [parse_scalar(text) for text in ("2e-5", "no", "010", "0x10", "null", "two")]
        [2e-05, 'no', 10, 16, None, 'two']
    """
    stripped = text.strip()
    if len(stripped) > _MAX_DIGITS:
        return stripped
    for pattern, read in _READERS:
        if pattern.fullmatch(stripped):
            return read(stripped)
    return stripped


class _Loader(yaml.SafeLoader):
    """Loader that builds plain values only; every scalar goes through ``parse_scalar``."""

    # Without resolvers every plain scalar arrives as text, merge keys and timestamps included.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own name

    read_scalars = True
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse anchors, aliases and tags, and nesting deep enough to exhaust the stack."""
        event = self.peek_event()
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConstructorError(None, None, "anchors and aliases are not allowed, write the value out", mark)
        if getattr(event, "tag", None):
            raise ConstructorError(None, None, f"the tag {event.tag} is not allowed, write the plain value", mark)
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise ConstructorError(None, None, f"nested more than {_MAX_DEPTH} levels deep", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_plain(self, node: yaml.ScalarNode) -> Any:
        """Read a scalar; quoted ones and blocks are always text."""
        value = str(node.value)
        return parse_scalar(value) if self.read_scalars and node.style is None else value

    def construct_items(self, node: yaml.SequenceNode) -> list[Any]:
        """Read a list."""
        return [self.construct_object(item, deep=True) for item in node.value]

    def construct_unique(self, node: yaml.MappingNode) -> dict[Any, Any]:
        """Read a mapping, refusing repeated keys and keys that are lists or mappings."""
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise ConstructorError(None, None, "a key must be a single value", key_node.start_mark)
            if key in found:
                raise ConstructorError(None, None, f'the key "{key}" occurs twice here', key_node.start_mark)
            found[key] = self.construct_object(value_node, deep=True)
        return found


class _TextLoader(_Loader):
    """Loader that keeps every scalar as text."""

    read_scalars = False


_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_plain)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_unique)
_Loader.add_constructor("tag:yaml.org,2002:seq", _Loader.construct_items)


def parse_yaml(text: str, *, source: str = "", as_text: bool = False) -> Any:
    """Read one YAML document into plain Python values.

    Args:
        text: The document, at most ``MAX_CHARACTERS`` long.
        source: File or name the text came from, for messages.
        as_text: Keep every scalar as text instead of reading numbers, booleans and nulls.

    Returns:
        Nested dicts and lists of None, bool, int, float and str; None for an empty document.

    Raises:
        RecipeError: The text is not YAML, is too long or too deep, repeats a key, or has a tag, anchor or alias;
            the message names line and column, both counted from 1.

    Example:
        >>> parse_yaml("training: {learning_rate: 2e-5, seeds: [0, 1]}")
        {'training': {'learning_rate': 2e-05, 'seeds': [0, 1]}}
    """
    if len(text) > MAX_CHARACTERS:
        raise RecipeError(
            f"expected a recipe of at most {MAX_CHARACTERS:,} characters, got {len(text):,}. Is this a data file?",
            source=source,
        )
    try:
        # Both loaders are SafeLoaders that refuse every tag.
        return yaml.load(text, Loader=_TextLoader if as_text else _Loader)
    except yaml.reader.ReaderError as error:
        raise RecipeError(_describe_character(text, error), source=source) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark and (tab := _find_tab(text, mark)):
            raise RecipeError(
                f"line {tab[0]}, column {tab[1]}: expected spaces, got a tab, which YAML does not allow in "
                "indentation. Replace it by spaces.",
                source=source,
            ) from None
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = error.problem or "this is not valid YAML"
        if problem.startswith("but ") and error.context:
            problem = f"{error.context}, {problem}"
        raise RecipeError(f"{where}{problem}.", source=source) from None


def _find_tab(text: str, mark: yaml.Mark) -> tuple[int, int] | None:
    """Find the tab that stopped the parser, as line and column from 1; None where no tab did.

    The tab is where the parser stopped, or in the indentation of that line or of one of the three before it.
    """
    lines = text.splitlines()
    for number in range(mark.line, max(mark.line - 3, -1), -1):
        line = lines[number] if number < len(lines) else ""
        if number == mark.line and line[mark.column : mark.column + 1] == "\t":
            return number + 1, mark.column + 1
        indentation = line[: len(line) - len(line.lstrip())]
        if "\t" in indentation:
            return number + 1, indentation.index("\t") + 1
    return None


def _describe_character(text: str, error: yaml.reader.ReaderError) -> str:
    """Say which character YAML does not allow, with its line and column."""
    before = text[: error.position]
    line = before.count("\n") + 1
    column = error.position - (before.rfind("\n") + 1) + 1
    code = ord(text[error.position])
    name = "a null byte" if code == 0 else f"the character U+{code:04X}"
    return f"line {line}, column {column}: {name} is not allowed in YAML. Save the file as plain UTF-8 text."


class _Dumper(yaml.SafeDumper):
    """Dumper whose output versions 1.1 and 1.2 both read back as the same values."""

    def ignore_aliases(self, _data: Any) -> bool:
        """Write a repeated value in full each time; the loader refuses anchors."""
        return True

    def represent_text(self, value: str) -> yaml.ScalarNode:
        """Quote text that version 1.2 would not read as text; PyYAML does the same for version 1.1."""
        style = None if parse_scalar(value) == value else "'"
        if not value.isprintable():
            style = '"'  # in other styles PyYAML writes rare line breaks such as U+0085 bare, and folds them on reading
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    def represent_sequence_by_content(self, value: list[Any]) -> yaml.SequenceNode:
        """Write a list of single values on one line."""
        flow = not any(isinstance(item, (list, dict)) for item in value)
        return self.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flow)


_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_representer(list, _Dumper.represent_sequence_by_content)


def dump_yaml(mapping: Mapping[str, Any]) -> str:
    """Write plain values as YAML that reads back equal.

    Args:
        mapping: Nested dicts and lists of None, bool, int, float and str; the order of keys is kept.

    Returns:
        The document, ending in a line break.

    Example:
        >>> print(dump_yaml({"rate": 2e-05, "labels": ["no", "1.0"], "limit": None}), end="")
        rate: 2.0e-05
        labels: ['no', '1.0']
        limit: null
    """
    return yaml.dump(
        dict(mapping), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=100
    )
