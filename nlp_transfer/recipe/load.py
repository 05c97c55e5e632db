"""From a shipped name, a file or a mapping to a checked recipe, and back to YAML."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nlp_transfer.errors import RecipeError
from nlp_transfer.recipe.conflicts import find_conflicts
from nlp_transfer.recipe.fields import guess_names
from nlp_transfer.recipe.formats import is_table_name
from nlp_transfer.recipe.mistakes import describe_value, explain_errors, locate_errors
from nlp_transfer.recipe.overrides import apply_changes, copy_plain, describe_dropped, read_changes
from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.recipe.shipped import (
    expand_path,
    explain_unknown_name,
    find_shipped,
    find_shipped_name,
    read_recipe_file,
)
from nlp_transfer.recipe.yaml12 import dump_yaml, parse_yaml

__all__ = ["export_json_schema", "list_dropped", "load_recipe", "recipe_to_yaml"]


def load_recipe(
    source: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str] | Mapping[str, Any] = ()
) -> Recipe:
    """Load a recipe, change it, and check all of it.

    Where the recipe names no ``report.output_dir``, it becomes ``runs/`` and the shipped name with ``-`` for ``/``,
    or the file's stem. Overriding ``data.path``, ``encoder.name``, ``strategy.kind``, ``strategy.variant`` or
    ``task.kind`` with another value also drops the keys that the recipe set for the old value (columns, revisions,
    rates, metrics), unless they are overridden too; ``list_dropped`` lists them.

    Args:
        source: A shipped name (``sentiment/lora``, with or without ``.yaml``), a file, a mapping, or a recipe.
        overrides: Texts such as ``training.epochs=2``, or a mapping of dotted keys to values.

    Returns:
        The recipe with every default filled in.

    Raises:
        RecipeError: The recipe or an override is invalid; the error lists every problem found.
        StorageError: The disk failed while the file was read.

    Example:
        >>> recipe = load_recipe({"strategy": {"kind": "lora"}}, ["strategy.rank=4", "training.learning_rate=2e-4"])
        >>> recipe.strategy.rank, recipe.training.learning_rate
        (4, 0.0002)
    """
    content, run_name, label = _read_source(source)
    changes, problems = read_changes(overrides)
    if not isinstance(content, Mapping):
        came = "an empty file" if content is None else describe_value(content)
        problem = f"expected sections such as data, strategy and training, got {came}."
        raise RecipeError([*problems, f"{problem} See nlp-transfer copy quickstart my.yaml."], source=label)
    data = apply_changes(content, changes)
    if run_name:
        _name_output(data, run_name)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problems += [*explain_errors(error, data), *_find_other_conflicts(error, data)]
        raise RecipeError(problems, source=label) from None
    problems += find_conflicts(recipe)
    if problems:
        raise RecipeError(problems, source=label)
    return recipe


def list_dropped(
    source: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str] | Mapping[str, Any]
) -> list[str]:
    """List the keys that ``load_recipe`` drops from a recipe because an override makes them stale.

    Args:
        source: As for ``load_recipe``.
        overrides: As for ``load_recipe``.

    Returns:
        One sentence for each override that drops keys; empty where no key is dropped.

    Raises:
        RecipeError: There is no such recipe, or the file is not YAML.
        StorageError: The disk failed while the file was read.

    Example:
        >>> list_dropped({"data": {"path": "old.csv", "text": "body"}}, ["data.path=new.csv"])[0].split(",")[0]
        'data.path=new.csv: dropped data.text=body of the recipe'
    """
    content, _, _ = _read_source(source)
    return describe_dropped(content, read_changes(overrides)[0]) if isinstance(content, Mapping) else []


def _find_other_conflicts(error: ValidationError, data: Mapping[str, Any]) -> list[str]:
    """Find contradictions among the values that pydantic accepted."""
    rest: dict[Any, Any] = copy_plain(data)
    doubtful: set[str] = set()
    for section, *keys in locate_errors(error, data):
        held = rest.get(section)
        (held if keys and isinstance(held, dict) else rest).pop(keys[0] if keys else section, None)
        doubtful.update(guess_names(keys[0] if keys else section))
    try:
        found = find_conflicts(Recipe.model_validate(rest))
    except ValidationError:
        return []
    # A sentence names every key it depends on; where the value of one key is invalid, the sentence may be wrong.
    return [line for line in found if doubtful.isdisjoint(sum(re.findall(r"\b(\w+)\.(\w+)", line), ()))]


def _read_source(source: str | Path | Mapping[str, Any] | Recipe) -> tuple[Any, str, str]:
    """Read a source: its plain values, the name of its output folder, and its name in messages."""
    if isinstance(source, (Recipe, Mapping)):
        return copy_plain(source), "", ""
    if not isinstance(source, (str, Path)):
        raise RecipeError(f"recipe: expected a name, a file, a mapping or a Recipe, got {describe_value(source)}.")
    if source == "":
        raise RecipeError("recipe: expected a name or a file, got an empty text. See nlp-transfer list.")
    if isinstance(source, str):
        path = None if source.endswith(".yaml") and _is_file(source) else find_shipped(source)
        if path is not None:
            name = source.removesuffix(".yaml")
            return parse_yaml(read_recipe_file(path), source=name), name.replace("/", "-"), name
        if not _is_path(source):
            raise RecipeError(explain_unknown_name(source))
    file = expand_path(source)
    if is_table_name(file):
        problem = (
            f"expected a recipe (a YAML file), got a table. Name a recipe, and pass the table as data.path={source}."
        )
        raise RecipeError(f"{problem} See nlp-transfer copy quickstart my.yaml.", source=str(source))
    content = parse_yaml(read_recipe_file(file), source=str(source))
    return content, (find_shipped_name(file) or file.stem).replace("/", "-"), str(source)


def _is_file(text: str) -> bool:
    """Whether a text names an existing file."""
    try:
        return expand_path(text).is_file()
    except OSError:
        return False


def _is_path(text: str) -> bool:
    """Whether a text means a file rather than a shipped name."""
    try:
        return text.endswith((".yaml", ".yml")) or text.startswith((".", "/", "~")) or expand_path(text).exists()
    except OSError:
        return False


def _name_output(data: dict[str, Any], run_name: str) -> None:
    """Set the output folder where the recipe names none."""
    report = data.setdefault("report", {})
    if isinstance(report, dict):
        report.setdefault("output_dir", f"runs/{run_name}")


def recipe_to_yaml(recipe: Recipe) -> str:
    """Write a recipe with every key and value; ``load_recipe`` reads it back equal.

    Example:
        >>> recipe_to_yaml(load_recipe({"description": "A try."})).splitlines()[:3]
        ['description: A try.', 'task:', '  kind: classification']
    """
    return dump_yaml(recipe.model_dump())


def export_json_schema() -> dict[str, Any]:
    """Describe recipes as JSON Schema, for editors that complete and check YAML.

    Example:
        >>> sorted(export_json_schema()["properties"])[:3]
        ['data', 'description', 'encoder']
    """
    schema = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "nlp_transfer recipe"}
