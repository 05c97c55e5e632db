"""Figures of any size are written so that they can be compared."""

import re

import numpy as np
import pytest

from nlp_transfer.figures import format_number

WIDEST = 9
"""Letters beside the sign that a column of a table has room for."""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.87154, "0.872"),
        (9.9994, "9.999"),
        (9.9996, "10.00"),
        (99.996, "100.0"),
        (1234.5, "1,234"),
        (9999.6, "10,000"),
        (95_123.4, "95,123"),
        (999_999.6, "1.00e6"),
        (1.2345e10, "1.23e10"),
        (-300_000, "-300,000"),
        (0.0123, "0.012"),
        (0.0042, "0.0042"),
        (0.004, "0.0040"),
        (0.00042, "0.00042"),
        (4.2e-7, "4.2e-7"),
        (0.0, "0.000"),
        (-0.0, "0.000"),
        (None, "undefined"),
        (float("nan"), "undefined"),
        (float("inf"), "undefined"),
    ],
)
def test_a_figure_has_the_digits_that_its_size_needs(value, text):
    assert format_number(value) == text


def test_figures_of_every_size_stay_short_and_near_what_they_are():
    values = np.concatenate([10.0 ** np.linspace(-30, 30, 4001), [9.99999, 0.0099999, 999.99, 99_999.9]])
    assert len(values) == 4005
    for value in values:
        text = format_number(float(value))
        assert len(text) <= WIDEST, (value, text)
        assert re.fullmatch(r"[0-9.,]+(e-?[0-9]+)?", text), text
        read = float(text.replace(",", ""))
        assert read == pytest.approx(value, rel=0.051), (value, text)
        assert format_number(-float(value)) == f"-{text}"
        assert format_number(float(value), signed=True) == f"+{text}"


def test_no_figure_above_zero_is_shown_as_zero():
    assert {format_number(value) for value in (1e-300, 4e-8, 0.0004, 0.0051)} == {
        "1.0e-300",
        "4.0e-8",
        "0.00040",
        "0.0051",
    }
