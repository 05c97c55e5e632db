"""Commands of the command line, a module for each group: each parses, calls and shows; `cli.py` names them."""
