"""Messages about a table name a command's own options, where a recipe has keys for the same."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from nlp_transfer.errors import DataError

__all__ = ["name_options"]

NAMES = {
    "data.path": "DATA",
    "data.text": "--text",
    "data.text_b": "--text-b",
    "data.label": "--label",
    "data.encoding": "--encoding",
}
"""Option by key, as every command that reads one table has them."""


@contextmanager
def name_options(*, drops_invalid: bool = False) -> Iterator[None]:
    """Let messages name options.

    Args:
        drops_invalid: Whether the command can leave out rows without a text or a label.

    Raises:
        DataError: As it was raised inside, in other words.
    """
    try:
        yield
    except DataError as error:
        message = str(error)
        if drops_invalid:
            message = message.replace("data.invalid=drop", "--drop-invalid")
        message = re.sub(r"\bdata\.\w+", lambda key: NAMES.get(key[0], key[0]), message)
        raise type(error)(message) from error
