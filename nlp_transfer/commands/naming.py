"""Commands that read one table: their options in messages and as overrides, and what reading the table found."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nlp_transfer.errors import DataError
from nlp_transfer.terminal import note

if TYPE_CHECKING:
    from nlp_transfer.data.findings import Findings

__all__ = ["add_delimiter", "name_options", "tell_notes"]

NAMES = {
    "data.path": "DATA",
    "data.text": "--text",
    "data.text_b": "--text-b",
    "data.label": "--label",
    "data.encoding": "--encoding",
    "data.delimiter": "--delimiter",
    "data.sheet": "--sheet",
}
"""Option by key, as every command that reads one table has them."""


@contextmanager
def name_options(*, drops_invalid: bool = False) -> Iterator["Findings"]:
    """Let messages name options, and tell what reading tables found.

    Args:
        drops_invalid: Whether the command can leave out rows without a text or a label.

    Yields:
        Is given to what reads tables; told on stderr at the end, also where that fails.

    Raises:
        DataError: As it was raised inside, in other words.
    """
    from nlp_transfer.data.findings import Findings

    findings = Findings()
    try:
        yield findings
    except DataError as error:
        message = str(error)
        if drops_invalid:
            message = message.replace("data.invalid=drop", "--drop-invalid")
        raise type(error)(_name(message)) from error
    finally:
        tell_notes([*findings.list_notes(), *findings.warnings])


def tell_notes(notes: Sequence[str]) -> None:
    """Write notes to stderr, with a command's own options in them."""
    for line in notes:
        note(_name(line))


def _name(message: str) -> str:
    """Put options in place of keys."""
    return re.sub(r"\bdata\.\w+", lambda key: NAMES.get(key[0], key[0]), message)


def add_delimiter(overrides: Sequence[str] | None, delimiter: str | None) -> list[str]:
    """Write ``--delimiter`` as an override of the recipe, behind the others.

    Example:
        >>> add_delimiter(["data.limit=9"], ";")
        ['data.limit=9', 'data.delimiter=;']
    """
    return [*(overrides or []), *([] if delimiter is None else [f"data.delimiter={delimiter}"])]
