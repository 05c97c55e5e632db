"""Techniques by name, each imported when it is asked for."""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, TypeVar

__all__ = ["Techniques"]

T = TypeVar("T")


class Techniques(Mapping[str, T]):
    """A table of modules whose techniques are imported one by one: what one needs (peft, scikit-learn), others spare.

    Args:
        table: Kind to its row, whose ``technique`` names its module where that is not called as the kind is.
        package: Holds the modules.
        read: Takes the technique out of its module.
    """

    def __init__(self, table: Mapping[str, Any], package: str, read: Callable[[Any], T]) -> None:
        self._table, self._package, self._read = table, package, read

    def __getitem__(self, kind: str) -> T:
        return self._read(import_module(self._table[kind].technique or f"{self._package}.{kind}"))

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)
