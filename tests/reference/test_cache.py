"""Rows kept on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reference import cache


def squares(numbers: np.ndarray) -> dict[str, np.ndarray]:
    return {"square": numbers**2, "pair": np.stack([numbers, -numbers], 1).astype("f4")}


def test_rows_are_what_is_computed_of_their_numbers(tmp_path: Path) -> None:
    found = cache.rows(tmp_path / "a", 10, squares, at_once=4)
    assert found["square"].tolist() == [n * n for n in range(10)]
    assert found["pair"].shape == (10, 2) and found["pair"].dtype == np.float32


def test_what_was_interrupted_goes_on_after_the_last_piece(tmp_path: Path) -> None:
    asked = []

    def dying(numbers: np.ndarray) -> dict[str, np.ndarray]:
        if 8 in numbers:
            raise KeyboardInterrupt
        return squares(numbers)

    def watched(numbers: np.ndarray) -> dict[str, np.ndarray]:
        asked.extend(numbers.tolist())
        return squares(numbers)

    with pytest.raises(KeyboardInterrupt):
        cache.rows(tmp_path / "a", 10, dying, at_once=4)
    found = cache.rows(tmp_path / "a", 10, watched, at_once=4)
    assert asked == [8, 9]
    assert found["square"].tolist() == [n * n for n in range(10)]


def test_a_key_tells_facts_and_arrays_apart() -> None:
    assert cache.key("a", 1) == cache.key("a", 1) != cache.key("a", 2)
    x = np.arange(6)
    assert cache.digest(x) == cache.digest(x.copy()) != cache.digest(x[::-1])
