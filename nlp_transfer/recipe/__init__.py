"""The recipe: one run, described completely, checked before anything is loaded or trained."""

from nlp_transfer.recipe.conflicts import find_conflicts
from nlp_transfer.recipe.load import export_json_schema, list_dropped, load_recipe, recipe_to_yaml
from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.recipe.shipped import copy_shipped, list_shipped, read_shipped
from nlp_transfer.recipe.yaml12 import dump_yaml, parse_scalar, parse_yaml

__all__ = [
    "Recipe",
    "copy_shipped",
    "dump_yaml",
    "export_json_schema",
    "find_conflicts",
    "list_dropped",
    "list_shipped",
    "load_recipe",
    "parse_scalar",
    "parse_yaml",
    "read_shipped",
    "recipe_to_yaml",
]
