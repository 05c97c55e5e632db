"""The methods of a recipe: a module a method, which is the only home of its defaults, and their table."""
