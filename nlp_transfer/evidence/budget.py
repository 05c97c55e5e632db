"""Time as people write it: 90s, 15m, 1.5h."""

import re

from nlp_transfer.errors import TransferError

__all__ = ["parse_seconds"]

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_seconds(text: str | float, *, where: str = "--budget") -> float:
    """Read a length of time.

    Args:
        text: A number of seconds, or a number and a unit: s, m or h.
        where: Names the option in the message.

    Returns:
        Seconds, above 0.

    Raises:
        TransferError: It is none.

    Example:
        >>> parse_seconds("15m"), parse_seconds("1.5h"), parse_seconds(90)
        (900.0, 5400.0, 90.0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", str(text))
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if seconds <= 0:
        raise TransferError(f'{where}: expected a time such as 90s, 15m or 2h, got "{text}".')
    return seconds
