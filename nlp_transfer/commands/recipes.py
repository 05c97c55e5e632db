"""Commands about recipes: `list`, `copy`, `validate` and `schema`. Nothing is loaded and nothing trained."""

from pathlib import Path
from typing import Annotated

import typer

from nlp_transfer.terminal import complain, say, say_json, show

__all__ = ["copy", "list_all", "schema", "validate"]


def list_all() -> None:
    """Show the shipped recipes, the strategies and the methods."""
    from rich.table import Table

    from nlp_transfer.recipe.methods.table import METHODS
    from nlp_transfer.recipe.schema import STRATEGY_CONFIGS
    from nlp_transfer.recipe.shipped import list_shipped

    recipes = Table(title="Recipes", title_justify="left", box=None, padding=(0, 2, 0, 0))
    recipes.add_column("name", style="bold", no_wrap=True)
    recipes.add_column("what it does")
    for name, description in list_shipped().items():
        recipes.add_row(name, description)
    strategies = Table(title="\nStrategies", title_justify="left", box=None, padding=(0, 2, 0, 0))
    strategies.add_column("kind", style="bold", no_wrap=True)
    strategies.add_column("what it does")
    strategies.add_column("use it when you have")
    for kind, section in STRATEGY_CONFIGS.items():
        strategies.add_row(kind, (section.__doc__ or "").splitlines()[0], section.use_when)
    methods = Table(title="\nMethods", title_justify="left", box=None, padding=(0, 2, 0, 0))
    methods.add_column("kind", style="bold", no_wrap=True)
    methods.add_column("what it does")
    methods.add_column("use it when you have")
    for kind, facts in METHODS.items():
        methods.add_row(kind, (facts.section.__doc__ or "").splitlines()[0], facts.section.use_when)
    show(recipes, strategies, methods)


def copy(
    recipe: Annotated[str, typer.Argument(help="Shipped name.")],
    dest: Annotated[Path, typer.Argument(help="File or folder to write to; nothing is overwritten.")],
) -> None:
    """Copy a shipped recipe, to make it your own."""
    from nlp_transfer.recipe.shipped import copy_shipped

    say(f"wrote {copy_shipped(recipe, dest)}")


def validate(
    recipes: Annotated[list[str], typer.Argument(help="Shipped names or files.")],
) -> None:
    """Check recipes without running them, and show every problem of every file."""
    from nlp_transfer.errors import RecipeError
    from nlp_transfer.recipe.load import load_recipe

    failed = 0
    for recipe in recipes:
        try:
            load_recipe(recipe)
        except RecipeError as error:
            failed += 1
            complain(str(error))
        else:
            say(f"{recipe}: valid")
    if failed:
        raise typer.Exit(2)


def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from nlp_transfer.recipe.load import export_json_schema

    say_json(export_json_schema())
