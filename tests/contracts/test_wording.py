"""Numbers as people read them: four digits, separators from a thousand on, powers of ten at the ends."""

from __future__ import annotations

import math

import pytest

from equivengine.contracts.wording import between, counted, number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.5, "-0.5"),
        (3.14159, "3.142"),
        (999.94, "999.9"),
        (999.96, "1,000"),
        (1153.5, "1,154"),
        (1303.0, "1,303"),
        (-1234.4, "-1,234"),
        (184964.2, "184,964"),
        (2345678.9, "2.346e+06"),
        (2345678.0, "2,345,678"),
        (0.00043213, "0.000432"),
        (0.03001, "0.03001"),
        (math.nan, "-"),
        (math.inf, "-"),
    ],
)
def test_a_number_has_four_digits_and_separators(value, text):
    assert number(value) == text


def test_both_ends_of_an_interval_are_written_alike():
    assert between((996.5, 1409.5)) == "996.5 .. 1,410"


def test_what_is_counted_is_in_the_singular_of_one_alone():
    assert [counted(count, "row") for count in (0, 1, 2, 30000)] == ["0 rows", "1 row", "2 rows", "30,000 rows"]
    assert [counted(count, "more class", "more classes") for count in (1, 5)] == ["1 more class", "5 more classes"]
