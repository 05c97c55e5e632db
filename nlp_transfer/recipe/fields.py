"""What the schema contains, derived from its models: sections, keys, and the types of a key."""

import difflib
import types
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.recipe.section import read_kind

__all__ = [
    "describe_type",
    "get_annotation",
    "get_default",
    "guess_names",
    "join_choices",
    "list_keys",
    "list_kinds",
    "list_sections",
    "split_union",
    "suggest_key",
    "suggest_nearest",
]

_TYPE_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
}
_PLURALS: dict[Any, str] = {int: "whole numbers", float: "numbers", str: "texts"}


def split_union(annotation: Any) -> tuple[Any, ...]:
    """List the alternatives of an annotation, their constraints left out.

    Example:
        >>> split_union(str | list[str] | None)
        (<class 'str'>, list[str], <class 'NoneType'>)
    """
    origin = get_origin(annotation)
    if origin is Annotated:
        return split_union(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return tuple(part for member in get_args(annotation) for part in split_union(member))
    return (annotation,)


def _list_models(section: str) -> list[type[BaseModel]]:
    """The models of a section of the recipe; empty for a top-level key with a plain value."""
    info = Recipe.model_fields.get(section)
    members = split_union(info.annotation) if info else ()
    return [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]


def list_sections() -> list[str]:
    """Name the sections of a recipe, in their order.

    Example:
        >>> list_sections()[:4]
        ['task', 'encoder', 'data', 'strategy']
    """
    return [name for name in Recipe.model_fields if _list_models(name)]


def list_kinds(section: str) -> dict[str, list[str]]:
    """Map each ``kind`` of a section with several models to its keys; empty for the other sections.

    Example:
        >>> list_kinds("strategy")["lora"][:3]
        ['kind', 'variant', 'rank']
    """
    models = _list_models(section)
    if len(models) < 2:
        return {}
    return {read_kind(model): list(model.model_fields) for model in models}


def list_keys(section: str, kind: Any = None) -> list[str]:
    """Name the keys of a section, or of the recipe where ``section`` is empty.

    Args:
        section: Name of a section, or ``""``.
        kind: The kind whose keys are wanted, for a section with kinds; where it is unknown, the keys of all kinds.
    """
    if not section:
        return list(Recipe.model_fields)
    kinds = list_kinds(section)
    if isinstance(kind, str) and kind in kinds:
        return kinds[kind]
    return list(dict.fromkeys(key for model in _list_models(section) for key in model.model_fields))


def get_annotation(section: str, key: str) -> Any:
    """Look up the type annotation of a key; None where there is no such key."""
    for model in _list_models(section):
        if key in model.model_fields:
            return model.model_fields[key].annotation
    return None


def get_default(section: str, key: str, kind: Any = None) -> Any:
    """Look up the value of a key in a recipe that does not name it.

    Args:
        section: Name of a section.
        key: Name of a key; the value is None where the section has no such key.
        kind: The kind that the recipe names, for a section with kinds.

    Example:
        >>> get_default("data", "path"), get_default("strategy", "kind"), get_default("strategy", "variant", "lora")
        ('reviews', 'full', 'lora')
    """
    kinds = dict(zip(list_kinds(section), _list_models(section), strict=False))
    if isinstance(kind, str) and kind in kinds:
        info = kinds[kind].model_fields.get(key)
        return None if info is None or info.is_required() else info.get_default(call_default_factory=True)
    return getattr(getattr(Recipe(), section), key, None)


def describe_type(annotation: Any) -> str:
    """Say in words which values a key takes; null is not mentioned.

    Example:
        >>> describe_type(float | None), describe_type(str | list[str])
        ('a number', 'text or a list of texts')
    """
    members = [member for member in split_union(annotation) if member is not type(None)]
    return " or ".join(dict.fromkeys(_describe_member(member) for member in members))


def _describe_member(member: Any) -> str:
    """Say in words which values one alternative of a union takes."""
    origin = get_origin(member)
    if origin is Literal:
        choices = get_args(member)
        return f"one of {join_choices(choices)}" if len(choices) > 1 else join_choices(choices)
    if origin is list:
        item = split_union(get_args(member)[0])[0]
        return f"a list of {_PLURALS.get(item, 'values')}"
    if origin is dict:
        return "a mapping"
    return _TYPE_NAMES.get(member, "a value")


def join_choices(choices: Iterable[object]) -> str:
    """Write choices in quotes, separated by commas."""
    return ", ".join(f'"{choice}"' for choice in choices)


def suggest_nearest(word: object, choices: Iterable[str]) -> str:
    """Suggest the choice nearest to a word, as a sentence with a space before it.

    Returns:
        The sentence, or ``""`` where nothing is near.

    Example:
        >>> suggest_nearest("acuracy", ["accuracy", "mcc"])
        ' Did you mean "accuracy"?'
    """
    near = difflib.get_close_matches(str(word).lower(), list(choices), n=1)
    return f' Did you mean "{near[0]}"?' if near else ""


def guess_names(word: object) -> list[str]:
    """Give a word that is a section or key as it is, or the sections and keys nearest to it.

    Example:
        >>> guess_names("batch_size"), guess_names("epochz")
        (['batch_size'], ['epochs'])
    """
    known = list(dict.fromkeys([*list_keys(""), *(key for section in list_sections() for key in list_keys(section))]))
    return [str(word)] if word in known else difflib.get_close_matches(str(word).lower(), known)


def suggest_key(section: str, key: str, kind: Any = None) -> str:
    """Say what to do about a key that a section does not have.

    Args:
        section: The section the key stands in, ``""`` at the top of the recipe.
        key: The unknown key.
        kind: The section's ``kind``, where it has one.

    Returns:
        A sentence with a space before it.

    Example:
        >>> suggest_key("training", "learning_rat"), suggest_key("data", "epochs")
        (' Did you mean "learning_rate"?', ' It belongs in "training".')
    """
    owners = [name for name, keys in list_kinds(section).items() if key in keys]
    if owners:
        return f" It belongs to kind {join_choices(owners)}."
    homes = [name for name in list_sections() if name != section and key in list_keys(name)]
    if section and key in list_sections():
        return " It is a section of its own: move it to the start of a line."
    known = list_keys(section, kind)
    if len(homes) == 1:
        return f' It belongs in "{homes[0]}".'
    near = suggest_nearest(key, known)
    if near:
        return near
    if homes:
        return f" It belongs in {' or '.join(join_choices([home]) for home in homes)}."
    for name in list_sections():
        elsewhere = difflib.get_close_matches(key, list_keys(name), n=1, cutoff=0.8)
        if elsewhere:
            return f' Did you mean "{name}.{elsewhere[0]}"?'
    return f" Known here: {', '.join(known)}."
