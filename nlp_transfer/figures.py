"""Format figures: one rule for scores, losses and targets of any size."""

import math

__all__ = ["format_number"]

MOST_WHOLE = 1e6
"""From this size on a figure is written with a power of ten, because nobody compares more digits. Chosen."""

LEAST_PLAIN = 1e-4
"""Below this size a figure is written with a power of ten."""

LEAST_FIXED = 1e-2
"""Below this size three decimals would leave fewer than two digits."""


def format_number(value: float | None, *, signed: bool = False) -> str:
    """Write a figure of any size so that readers can compare it, in at most nine characters beside the sign.

    Three decimals from 0.01 to 10, the range of most metrics; four digits up to 10,000, all whole digits up to a
    million; two digits below 0.01. A number above a million or below a ten-thousandth has a power of ten.

    Args:
        value: Any number; None if there is none.
        signed: Whether a positive number gets a plus sign, as differences do.

    Returns:
        Text without spaces; ``undefined`` for None and for numbers that are not finite.

    Example:
        >>> [format_number(value) for value in (0.87154, 12.3456, 1234.5, 95123.4, 1.234e10, None)]
        ['0.872', '12.35', '1,234', '95,123', '1.23e10', 'undefined']
        >>> [format_number(value) for value in (0.0, -0.0042, 0.00000042)], format_number(0.5, signed=True)
        (['0.000', '-0.0042', '4.2e-7'], '+0.500')
    """
    if value is None or not math.isfinite(value):
        return "undefined"
    sign = "-" if value < 0 else "+" if signed else ""
    return sign + _write_size(abs(value))


def _write_size(size: float) -> str:
    """Write a number that is at least 0; limits apply to the rounded number, so that 9.9996 does not become 10.000."""
    if size == 0:
        return "0.000"
    if size < LEAST_PLAIN:
        return _write_power(size, 1)
    if size < LEAST_FIXED:
        # Two digits with trailing zeros, as in 0.0040, so that a column lines up.
        return f"{size:.{1 - math.floor(math.log10(float(f'{size:.1e}')))}f}"
    if float(f"{size:.3f}") < 10:
        return f"{size:.3f}"
    if float(f"{size:.4g}") < 10_000:
        return f"{float(f'{size:.4g}'):,.{max(0, 3 - math.floor(math.log10(float(f'{size:.4g}'))))}f}"
    return f"{size:,.0f}" if float(f"{size:.0f}") < MOST_WHOLE else _write_power(size, 2)


def _write_power(size: float, decimals: int) -> str:
    """Write a number with a power of ten, without the zeros and signs that it does not need."""
    digits, _, power = f"{size:.{decimals}e}".partition("e")
    return f"{digits}e{int(power)}"
