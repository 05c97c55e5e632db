"""Changes to a recipe from the command line or from Python: ``training.epochs=2``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from nlp_transfer.errors import RecipeError
from nlp_transfer.recipe.fields import (
    get_annotation,
    get_default,
    join_choices,
    list_keys,
    list_kinds,
    list_sections,
    split_union,
    suggest_nearest,
)
from nlp_transfer.recipe.methods.table import METHODS
from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.recipe.yaml12 import parse_scalar, parse_yaml

__all__ = ["Change", "apply_changes", "check_sections", "copy_plain", "describe_dropped", "read_changes"]

Change = tuple[tuple[str, ...], Any]
"""Path of a key, one to three parts, and its new value; ``("methods", KIND, KEY)`` is a key of a method."""

_BOUND_KEYS: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    # Columns, splits and versions belong to the source they were written for.
    ("data", "path"): tuple(
        ("data", key)
        for key in (
            *("name", "revision", "text", "text_b", "label", "id", "splits", "delimiter", "sheet"),
            *("domain", "source", "target"),
        )
    ),
    ("encoder", "name"): (("encoder", "revision"),),
    # A rate that suits LoRA ruins full fine-tuning; the new strategy's own default is the safe one.
    ("strategy", "kind"): (("training", "learning_rate"), ("training", "head_learning_rate")),
    ("strategy", "variant"): (("training", "learning_rate"), ("training", "head_learning_rate")),
    ("task", "kind"): (("evaluation", "metrics"), ("training", "select_by")),
}
"""For each key, the keys that depend on its value and are dropped when it is overridden."""

_BOUND_TO: dict[tuple[str, str], str] = {
    ("data", "path"): "other data",
    ("encoder", "name"): "another encoder",
    ("strategy", "kind"): "another strategy",
    ("strategy", "variant"): "another variant",
    ("task", "kind"): "another task",
}
"""What the dependent keys were written for, in the words of the note."""


def check_sections(
    overrides: Sequence[str] | Mapping[str, Any], sections: Sequence[str], *, where: str
) -> dict[str, Any]:
    """Read overrides of some sections of a recipe, and refuse overrides of the other sections.

    Args:
        overrides: As for `read_changes`.
        sections: Names of the sections that may be overridden.
        where: The command, for the message.

    Returns:
        Values by dotted key.

    Raises:
        RecipeError: An override cannot be read, or belongs to another section.

    Example:
        >>> check_sections(["data.invalid=drop"], ["data"], where="advise")
        {'data.invalid': 'drop'}
    """
    changes, problems = read_changes(overrides)
    keys = ", ".join(f"{section}.*" for section in sections)
    problems += [
        f"{'.'.join(path)}: {where} takes keys of {keys} only, and chooses all others itself."
        for path, _ in changes
        if path[0] not in sections or len(path) < 2
    ]
    if problems:
        raise RecipeError(problems)
    return {".".join(path): value for path, value in changes}


def read_changes(overrides: Sequence[str] | Mapping[str, Any]) -> tuple[list[Change], list[str]]:
    """Read overrides into paths and values.

    Args:
        overrides: Texts ``training.epochs=2``, or a mapping of dotted keys to values. The value in a text is read as
            YAML 1.2; where the key takes text, the value is kept as written, and ``null`` clears the key.

    Returns:
        The changes in their order, and a sentence for each override that cannot be read.

    Example:
        >>> read_changes(["training.seeds=[0, 1]", "data.text=2024"])
        ([(('training', 'seeds'), [0, 1]), (('data', 'text'), '2024')], [])
        >>> read_changes(["training.epochs"])[1]
        ['override "training.epochs": expected key=value, such as training.epochs=2.']
    """
    changes: list[Change] = []
    problems: list[str] = []
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            _add_change(str(key), value, changes, problems)
        return changes, problems
    for text in [overrides] if isinstance(overrides, str) else overrides:
        key, equals, value = str(text).partition("=")
        path = _split_path(key)
        if not equals or path is None:
            problems.append(f'override "{text}": expected key=value, such as training.epochs=2.')
            continue
        try:
            _add_change(key, _read_value(path, value), changes, problems)
        except RecipeError as error:
            problems.extend(f"{'.'.join(path)}: {problem}" for problem in error.problems)
    return changes, problems


def _add_change(key: str, value: Any, changes: list[Change], problems: list[str]) -> None:
    """Check one override and add it to changes or problems."""
    path = _split_path(key)
    if path is None:
        problems.append(f'override "{key}": expected a dotted key, such as training.epochs.')
        return
    found, wrong = _place(path, copy_plain(value))
    changes.extend(found)
    problems.extend(wrong)


def _split_path(key: str) -> tuple[str, ...] | None:
    """Split a dotted key; everything after the second dot is one part, because label names may contain dots."""
    parts = [part.strip() for part in key.split(".", 2)]
    return tuple(parts) if all(parts) else None


def _read_value(path: tuple[str, ...], text: str) -> Any:
    """Read the text after ``=`` as the type of the key requires."""
    if path == ("data", "delimiter") and text not in ("", "null"):
        # YAML reads a tilde as null, and strip() removes tabs: as delimiters both are ordinary characters.
        return text[1] if len(text) == 3 and text[0] == text[2] and text[0] in "'\"" else text
    members = _list_members(path)
    stripped = text.strip()
    takes_text = any(member is str or get_origin(member) is Literal for member in members)
    shape = {"[": list, "{": dict}.get(stripped[:1])
    if shape and (not takes_text or shape in {get_origin(member) for member in members}):
        items = [get_args(member)[0] for member in members if get_origin(member) is list]
        if shape is list:
            return parse_yaml(stripped, as_text=str in items)
        return _read_mapping(stripped)
    if not takes_text:
        return parse_yaml(stripped) if stripped[:1] in ("'", '"') else parse_scalar(stripped)
    if stripped in ("null", "~") or (not stripped and type(None) in members):
        return None
    if len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "'\"":
        return parse_yaml(stripped)
    return stripped


def _read_mapping(text: str) -> dict[str, Any]:
    """Read ``{key: value}``; keys stay text, even label names that look like numbers."""
    return dict(zip(parse_yaml(text, as_text=True), parse_yaml(text).values(), strict=True))


def _list_members(path: tuple[str, ...]) -> tuple[Any, ...]:
    """List the types that the key at a path takes; empty where the path is unknown."""
    if path == ("description",):
        return (str,)
    if path[0] == "methods" and len(path) == 3 and path[1] in METHODS:
        field = METHODS[path[1]].section.model_fields.get(path[2])
        return split_union(field.annotation) if field else ()
    members = split_union(get_annotation(path[0], path[1])) if len(path) > 1 else ()
    if len(path) == 3:
        return tuple(get_args(member)[1] for member in members if get_origin(member) is dict)
    return members


def _place(path: tuple[str, ...], value: Any) -> tuple[list[Change], list[str]]:
    """Check that a path can take a value; a mapping for a whole section becomes one change for each key."""
    section = path[0]
    name = ".".join(path)
    if len(path) == 1 and section in list_sections():
        if isinstance(value, Mapping):
            return [((section, str(key)), item) for key, item in value.items()], []
        key = "kind" if isinstance(value, str) and value in list_kinds(section) else list_keys(section)[0]
        example = f"{section}.{key}={value if key == 'kind' and isinstance(value, str) else 'VALUE'}"
        return [], [f"{name}: expected a key, got a section. Name one of its keys, such as {example}."]
    if len(path) > 1 and section == "methods":
        return _place_in_method(path, value)
    if len(path) > 1 and section in list_keys("") and section not in list_sections():
        return [], [f"{name}: {section} has no keys. Write {section}=... instead."]
    if len(path) == 3 and get_annotation(section, path[1]) is not None and not _list_members(path):
        return [], [f"{name}: {section}.{path[1]} has no keys. Write {section}.{path[1]}=... instead."]
    return [(path, value)], []


def _place_in_method(path: tuple[str, ...], value: Any) -> tuple[list[Change], list[str]]:
    """Check that a path below ``methods`` names a method and a key; a mapping becomes one change a key."""
    kind, name = path[1], ".".join(path)
    if kind not in METHODS:
        known = suggest_nearest(kind, METHODS) or f" Known: {join_choices(METHODS)}."
        return [], [f"{name}: there is no method {kind!r}.{known}"]
    if len(path) == 3:
        return [(path, value)], []
    if isinstance(value, Mapping):
        return [(("methods", kind, str(key)), item) for key, item in value.items()], []
    keys = [key for key in METHODS[kind].section.model_fields if key != "kind"]
    return [], [f"{name}: expected a key, got a method. Name one of its keys, such as {name}.{keys[0]}=VALUE."]


def copy_plain(value: Any) -> Any:
    """Copy nested values into plain dicts and lists; paths become text, models mappings, tuples lists.

    Example:
        >>> copy_plain({"path": PurePath("a"), "seeds": (0, 1)})
        {'path': 'a', 'seeds': [0, 1]}
    """
    if isinstance(value, BaseModel):
        return copy_plain(value.model_dump())
    if isinstance(value, Mapping):
        return {key: copy_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [copy_plain(item) for item in value]
    return str(value) if isinstance(value, PurePath) else value


def apply_changes(base: Mapping[str, Any], changes: Sequence[Change]) -> dict[str, Any]:
    """Put changes into a recipe's mapping; the mapping itself stays as it is.

    When ``data.path``, ``encoder.name``, ``strategy.kind``, ``strategy.variant`` or ``task.kind`` changes, the keys
    that the recipe set for the old value are dropped: columns, splits and versions; the encoder's revision; keys of
    the old strategy and learning rates; metrics. Overrides of those keys themselves are kept.

    Args:
        base: The recipe as it was read.
        changes: Paths and values; a later change of the same key wins.

    Returns:
        A new mapping.

    Example:
        >>> recipe = {"data": {"path": "nyu-mll/glue", "name": "mrpc"}}
        >>> apply_changes(recipe, [(("data", "path"), "pairs.csv")])
        {'data': {'path': 'pairs.csv'}}
    """
    result: dict[str, Any] = copy_plain(base)
    for section, key, value in _list_switches(result, changes):
        for owner, dependent in _BOUND_KEYS[section, key]:
            _get_section(result, owner).pop(dependent, None)
        _drop_foreign_keys(result, section, value)
    for path, value in changes:
        _set(result, path, value)
    return result


def describe_dropped(base: Mapping[str, Any], changes: Sequence[Change]) -> list[str]:
    """Say which keys ``apply_changes`` drops from a recipe although the new value would allow them.

    Keys with their default value are not mentioned, nor are keys that the new strategy does not have.

    Args:
        base: The recipe as it was read.
        changes: Paths and values, as for ``apply_changes``.

    Returns:
        One sentence for each override that drops keys.

    Example:
        >>> describe_dropped({"data": {"path": "a.csv", "id": "key"}}, [(("data", "path"), "b.csv")])[0][:40]
        'data.path=b.csv: dropped data.id=key of '
    """
    plain: dict[str, Any] = copy_plain(base)
    named = {path[:2] for path, _ in changes}
    notes = []
    for section, key, value in _list_switches(plain, changes):
        usual = _resolve_defaults(plain, section, key)
        dropped = [
            f"{owner}.{dependent}={_write_value(held[dependent])}"
            for owner, dependent in _BOUND_KEYS[section, key]
            if dependent in (held := _get_section(plain, owner))
            and (owner, dependent) not in named
            and held[dependent] != getattr(getattr(usual, owner), dependent)
        ]
        if dropped:
            were, them = ("were", "them") if len(dropped) > 1 else ("was", "it")
            notes.append(
                f"{section}.{key}={_write_value(value)}: dropped {', '.join(dropped)} of the recipe, which {were} "
                f"written for {_BOUND_TO[section, key]}; name {them} again to keep {them}."
            )
    return notes


def _list_switches(base: dict[str, Any], changes: Sequence[Change]) -> list[tuple[str, str, Any]]:
    """List the keys with dependent keys whose value changes: section, key, new value."""
    found: list[tuple[str, str, Any]] = []
    for section, key in _BOUND_KEYS:
        values = [value for path, value in changes if path == (section, key)]
        # A change of strategy.kind drops everything that a change of strategy.variant would drop.
        is_covered = any(earlier == section for earlier, _, _ in found)
        if values and not is_covered and values[-1] != _get(base, section, key):
            found.append((section, key, values[-1]))
    return found


def _resolve_defaults(base: dict[str, Any], section: str, key: str) -> Recipe:
    """A recipe of defaults, except for the kind of a section and one key, which are those of the given recipe."""
    held = _get_section(base, section)
    try:
        return Recipe.model_validate({section: {each: held[each] for each in ("kind", key) if each in held}})
    except ValidationError:
        return Recipe()  # the recipe's own problem, reported with the others


def _write_value(value: Any) -> str:
    """Write a value as in an override: text without quotes, everything else as JSON, which is valid YAML."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _get_section(data: dict[str, Any], section: str) -> dict[str, Any]:
    """The mapping of a section; a new empty one where the section is missing or no mapping."""
    held = data.get(section)
    return held if isinstance(held, dict) else {}


def _get(data: dict[str, Any], section: str, key: str) -> Any:
    """A key's value in a mapping, or its default, which may depend on the section's kind."""
    held = _get_section(data, section)
    return held[key] if key in held else get_default(section, key, held.get("kind"))


def _drop_foreign_keys(data: dict[str, Any], section: str, kind: Any) -> None:
    """Remove the keys that the new kind of a section does not have."""
    kinds = list_kinds(section)
    if isinstance(kind, str) and kind in kinds:
        held = _get_section(data, section)
        for key in [key for key in held if key not in kinds[kind]]:
            # A key that no kind has is a typing error in the recipe, to be reported.
            if any(key in keys for keys in kinds.values()):
                del held[key]


def _set(data: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set one value; create its section or mapping where missing."""
    if len(path) == 1:
        data[path[0]] = value
        return
    if path[0] == "methods":
        _set_in_method(data, path[1], path[2], value)
        return
    held = data.setdefault(path[0], {})
    if not isinstance(held, dict):
        return  # the recipe's own problem, reported with the others
    if len(path) == 3:
        inner = held.get(path[1])
        value = {**(inner if isinstance(inner, dict) else {}), path[2]: value}
    held[path[1]] = value


def _set_in_method(data: dict[str, Any], kind: str, key: str, value: Any) -> None:
    """Set one key of a method, which joins the recipe's methods where it is not one of them."""
    held = data.get("methods") or []
    if not isinstance(held, list):
        return  # the recipe's own problem, reported with the others
    entries = [{"kind": each} if isinstance(each, str) else each for each in held]
    if not any(isinstance(each, dict) and each.get("kind") == kind for each in entries):
        entries.append({"kind": kind})
    data["methods"] = [
        {**each, key: value} if isinstance(each, dict) and each.get("kind") == kind else each for each in entries
    ]
