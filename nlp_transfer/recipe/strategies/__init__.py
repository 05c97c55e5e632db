"""The strategy section of a recipe: a module a strategy, which is the only home of its defaults, and their table."""
