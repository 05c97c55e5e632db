"""Turn pydantic's errors into sentences that a user can act on."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from nlp_transfer.recipe.fields import (
    describe_type,
    get_annotation,
    join_choices,
    list_keys,
    list_kinds,
    list_sections,
    split_union,
    suggest_key,
    suggest_nearest,
)
from nlp_transfer.recipe.methods.table import METHODS
from nlp_transfer.recipe.yaml12 import parse_scalar

__all__ = ["describe_value", "explain_errors", "locate_errors"]

_MAX_SHOWN = 60  # chosen: characters of a value shown in a message

Path = tuple[str | int, ...]


def describe_value(value: Any) -> str:
    """Say in words which value came instead of the expected one.

    Example:
        >>> describe_value("two"), describe_value(None), describe_value([1])
        ('the text "two"', 'nothing', 'a list')
    """
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 1024:
        return "a number too large to handle"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, str):
        shown = value if len(value) <= _MAX_SHOWN else value[:_MAX_SHOWN] + "..."
        return f"the text {json.dumps(shown, ensure_ascii=False)}" if value else "an empty text"
    if isinstance(value, Sequence):
        return "a list" if value else "an empty list"
    return "a mapping" if isinstance(value, Mapping) else f"an object of type {type(value).__name__}"


def explain_errors(error: ValidationError, data: Mapping[str, Any]) -> list[str]:
    """Turn pydantic's errors into one sentence for each problem, in the order of the recipe.

    Args:
        error: What ``Recipe.model_validate`` raised.
        data: The mapping that was validated.

    Returns:
        Sentences of the form *where: what was expected, what came, what to do*.
    """
    fields: dict[Path, list[tuple[Path, ErrorDetails]]] = {}
    for details in error.errors(include_url=False):
        path = _resolve_path(details["loc"], data)
        # Each alternative of a union reports its own error for a field; together they are one problem.
        fields.setdefault(path[:2], []).append((path, details))
    problems = [line for found in fields.values() for line in _explain_field(found, data)]
    return list(dict.fromkeys(problems))


def locate_errors(error: ValidationError, data: Mapping[str, Any]) -> list[tuple[str | int, ...]]:
    """List the sections and keys that pydantic refused, each once.

    Args:
        error: What ``Recipe.model_validate`` raised.
        data: The mapping that was validated.

    Returns:
        Paths of one part (a section, or a top-level key) or two (a key of a section).
    """
    found = [_resolve_path(details["loc"], data)[:2] for details in error.errors(include_url=False)]
    return [path for path in dict.fromkeys(found) if path]


def _resolve_path(loc: tuple[int | str, ...], data: Any) -> Path:
    """Keep the keys of the recipe in pydantic's location; drop the names of types and union members."""
    path: list[str | int] = []
    for part in loc:
        in_mapping = isinstance(data, Mapping) and part in data
        if in_mapping or (isinstance(data, list) and isinstance(part, int) and part < len(data)):
            data = data[part]
            path.append(part)
    return tuple(path)


def _format_path(path: Path) -> str:
    """Write a path as the command line takes it, list positions in brackets."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) and text else f".{part}" if text else str(part)
    return text


def _explain_field(found: list[tuple[Path, ErrorDetails]], data: Mapping[str, Any]) -> list[str]:
    """Sum up the errors of one field: the errors inside its value where there are any, else one for the field."""
    depth = max(len(path) for path, _ in found)
    if depth > 2:
        # One alternative fits the value's type; only its errors inside the value matter.
        return [_explain(path, details, data) for path, details in found if len(path) > 2]
    if len(found) == 1 or len(found[0][0]) < 2:
        return [_explain(path, details, data) for path, details in found]
    path, details = found[0]
    section, key = str(path[0]), str(path[1])
    return [_explain_type(path, details["input"], get_annotation(section, key))]


def _explain(path: Path, details: ErrorDetails, data: Mapping[str, Any]) -> str:
    """Put one error into a sentence."""
    where = _format_path(path)
    value = details["input"]
    kind = details["type"]
    if path and path[0] == "methods" and (explained := _explain_method(path, details, data)):
        return explained
    if kind == "extra_forbidden":
        return _explain_unknown(path, data)
    if kind == "missing":
        key = _format_path((*path, str(details["loc"][-1])))
        return f"{key}: missing. Give it a value, such as {key}=VALUE."
    if kind == "invalid_key" or details["loc"][-1] == "[key]":
        return _explain_key(where, value, details)
    if kind.startswith("union_tag"):
        return _explain_kind(where, value)
    if len(path) == 1 and path[0] in list_sections():
        return _explain_section(str(path[0]), value)
    if kind in _BOUNDS:
        return f"{where}: {_BOUNDS[kind](details.get('ctx', {}))}, got {describe_value(value)}."
    if kind.endswith("_type") or kind in ("literal_error", "int_from_float"):
        return _explain_type(path, value, _find_annotation(path))
    return f"{where}: {details['msg'].removeprefix('Value error, ')}, got {describe_value(value)}."


def _explain_method(path: Path, details: ErrorDetails, data: Mapping[str, Any]) -> str:
    """Explain errors that only the list of methods can have; empty where the general explanation applies."""
    where, value, kinds = _format_path(path), details["input"], list(METHODS)
    if len(path) == 1:
        return f"{where}: expected a list of methods, got {describe_value(value)}. Write [{{kind: {kinds[0]}}}]."
    if details["type"].startswith("union_tag") and isinstance(value, Mapping) and "kind" in value:
        nearest = suggest_nearest(value["kind"], kinds)
        given = describe_value(value["kind"])
        return f"{where}.kind: expected one of {join_choices(kinds)}, got {given}.{nearest}"
    if details["type"].startswith("union_tag"):
        return f"{where}.kind: missing. Choose one of {join_choices(kinds)}."
    if len(path) == 2:
        return f"{where}: expected a method, got {describe_value(value)}. Write {{kind: {kinds[0]}}}."
    section = METHODS[data["methods"][path[1]]["kind"]].section
    if details["type"] == "extra_forbidden":
        known = list(section.model_fields)
        nearest = suggest_nearest(path[2], known) or f" Known here: {', '.join(known)}."
        return f'{where}: unknown key for kind "{data["methods"][path[1]]["kind"]}".{nearest}'
    if details["type"].endswith("_type") or details["type"] in ("literal_error", "int_from_float"):
        return _explain_type(path, value, section.model_fields[str(path[2])].annotation)
    return ""


def _explain_unknown(path: Path, data: Mapping[str, Any]) -> str:
    """Name the nearest right key, or the section a key belongs in."""
    section = str(path[0]) if len(path) > 1 else ""
    holder = data.get(section)
    chosen = holder.get("kind") if isinstance(holder, Mapping) and list_kinds(section) else None
    where = f' for kind "{chosen}"' if chosen else ""
    return f"{_format_path(path)}: unknown key{where}.{suggest_key(section, str(path[-1]), chosen)}"


def _explain_key(where: str, value: Any, details: ErrorDetails) -> str:
    """Explain a key that is not text, or is not one of the allowed keys of a mapping."""
    if isinstance(value, str):
        expected = str(details.get("ctx", {}).get("expected", "another key"))
        choices = expected.replace("'", '"')
        return f"{where}: unknown key, expected {choices}."
    return f"{where}: expected a key that is text, got {describe_value(value)}. Put it in quotes."


def _explain_kind(section: str, value: Any) -> str:
    """Explain a missing or unknown ``kind``."""
    kinds = list(list_kinds(section))
    given = value.get("kind") if isinstance(value, Mapping) else None
    if given is None:
        return f"{section}.kind: missing. Choose one of {join_choices(kinds)}."
    nearest = suggest_nearest(given, kinds)
    return f"{section}.kind: expected one of {join_choices(kinds)}, got {describe_value(given)}.{nearest}"


def _explain_section(section: str, value: Any) -> str:
    """Explain a section that is not a mapping of keys."""
    keys = list_keys(section)
    if isinstance(value, str) and value in list_kinds(section):
        return f"{section}: expected keys, got {describe_value(value)}. Write {section}.kind: {value} instead."
    hint = "Remove the line, or give it keys" if value is None else "Give it keys"
    return f"{section}: expected a section with keys, got {describe_value(value)}. {hint} such as {keys[0]}."


def _find_annotation(path: Path) -> Any:
    """Look up the annotation of a key, or of the items of its list or mapping."""
    annotation = get_annotation(str(path[0]), str(path[1])) if len(path) > 1 else str
    if len(path) < 3:
        return annotation
    wanted = list if isinstance(path[2], int) else dict
    for member in split_union(annotation):
        if get_origin(member) is wanted:
            return get_args(member)[-1]
    return annotation


def _explain_type(path: Path, value: Any, annotation: Any) -> str:
    """Explain a value of the wrong type, or a word that is not one of the choices."""
    members = split_union(annotation)
    hint = _hint_at_value(value, members)
    return f"{_format_path(path)}: expected {describe_type(annotation)}, got {describe_value(value)}.{hint}"


def _hint_at_value(value: Any, members: tuple[Any, ...]) -> str:
    """Suggest how to write the value, where that can be guessed."""
    words = [word for member in members if get_origin(member) is Literal for word in get_args(member)]
    numeric = int in members or float in members
    if value is None:
        return " Remove the line to use the default."
    if isinstance(value, str):
        return _hint_at_text(value, members, words)
    if isinstance(value, (bool, int, float)) and str in members:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return f' Put it in quotes: "{text}".'
    if isinstance(value, float) and numeric and value.is_integer():
        return f" Write {int(value)}."
    return ""


def _hint_at_text(value: str, members: tuple[Any, ...], words: list[str]) -> str:
    """Suggest what a text was probably meant to be."""
    numeric = int in members or float in members
    if numeric and isinstance(parse_scalar(value), (int, float)) and not isinstance(parse_scalar(value), bool):
        return " Remove the quotes."
    if bool in members and value.lower() in ("no", "off", "false", "n"):
        return " Write false."
    if bool in members and value.lower() in ("yes", "on", "true", "y"):
        return " Write true."
    if any(get_origin(member) is list for member in members) and not words:
        return f" Write [{value}]."
    return suggest_nearest(value, words)


def _format_bound(bound: float) -> str:
    """Write a bound without a needless decimal point."""
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _describe_length(context: Mapping[str, Any]) -> str:
    """Say how many items a list may have."""
    most = context["max_length"]
    return f"expected at most {most} items" if most else "expected an empty list"


_BOUNDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda context: f"expected a number above {_format_bound(context['gt'])}",
    "greater_than_equal": lambda context: f"expected a number of at least {_format_bound(context['ge'])}",
    "less_than": lambda context: f"expected a number below {_format_bound(context['lt'])}",
    "less_than_equal": lambda context: f"expected a number of at most {_format_bound(context['le'])}",
    "finite_number": lambda _: "expected a finite number",
    "string_too_short": lambda _: "expected text",
    "too_short": lambda context: f"expected at least {context['min_length']} item",
    "too_long": _describe_length,
}
