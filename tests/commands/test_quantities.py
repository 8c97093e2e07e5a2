"""Times and sizes in words."""

from __future__ import annotations

import pytest

from synfer_rt.commands.quantities import duration, size


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.0001, "0 s"),
        (0.314, "0.31 s"),
        (9.4, "9.4 s"),
        (9.6, "10 s"),
        (119, "119 s"),
        (120, "2 min"),
        (1500, "25 min"),
        (27_000, "7.5 h"),
        (276_480, "3.2 days"),
        (86_400 * 1234, "1234 days"),
    ],
)
def test_a_time_is_told_in_its_largest_unit(seconds: float, words: str):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (999.7, "1 kB"),
        (12_345, "12.3 kB"),
        (999_700, "1 MB"),
        (1_500_000_000, "1.5 GB"),
        (123_456e15, "123456 PB"),
    ],
)
def test_a_size_is_told_in_decimal_units(count: float, words: str):
    assert size(count) == words
