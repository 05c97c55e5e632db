"""The methods of a recipe: one module for each, the only home of its defaults, and their table."""
