"""Rows kept on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from synfer_rt.errors import UserError
from synfer_rt.export.training import cache


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


def test_two_processes_may_compute_the_same_rows_at_once(tmp_path: Path) -> None:
    """As trainings do that share `work`; the slower one does not take rows from the faster one."""

    def killed(numbers: np.ndarray) -> dict[str, np.ndarray]:
        if 4 in numbers:
            raise KeyboardInterrupt
        return squares(numbers)

    def overtaken(numbers: np.ndarray) -> dict[str, np.ndarray]:
        if 8 in numbers:
            (tmp_path / "a" / "done").rename(tmp_path / "later")  # the other began before
            with pytest.raises(KeyboardInterrupt):
                cache.rows(tmp_path / "a", 10, killed, at_once=4)
            (tmp_path / "later").rename(tmp_path / "a" / "done")
        return squares(numbers)

    found = cache.rows(tmp_path / "a", 10, overtaken, at_once=4)
    assert found["square"].tolist() == [n * n for n in range(10)]
    assert found["pair"].tolist() == [[n, -n] for n in range(10)]


def test_a_key_tells_facts_and_arrays_apart() -> None:
    assert cache.key("a", 1) == cache.key("a", 1) != cache.key("a", 2)
    x = np.arange(6)
    assert cache.digest(x) == cache.digest(x.copy()) != cache.digest(x[::-1])


def test_a_full_disk_costs_nothing_but_the_rest(tmp_path: Path) -> None:
    """The rows before stay, the message says how to go on, and the same call does.

    The kernel's limit on the size of a file ends a write as a full disk does, in the midst of it.
    """
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    folder, before = tmp_path / "a", resource.getrlimit(resource.RLIMIT_FSIZE)
    eight_rows_and_a_half = 128 + 8 * 8 + 4  # after numpy's header
    resource.setrlimit(resource.RLIMIT_FSIZE, (eight_rows_and_a_half, before[1]))
    try:
        with pytest.raises(UserError, match=r"File too large.*run the same again"):
            cache.rows(folder, 10, squares, at_once=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert cache.done(folder) == 8
    assert (folder / "square.npy").stat().st_size == eight_rows_and_a_half
    found = cache.rows(folder, 10, squares, at_once=4)
    assert found["square"].tolist() == [n * n for n in range(10)]
    assert found["pair"].tolist() == [[n, -n] for n in range(10)]


def test_rows_that_memory_maps_wrote_before_go_on(tmp_path: Path) -> None:
    """Earlier releases made the whole file at once and filled it through a map."""
    folder = tmp_path / "a"
    folder.mkdir()
    for name, rows in squares(np.arange(10)).items():
        shape = (10, *rows.shape[1:])
        array = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", rows.dtype, shape)
        array[:4] = rows[:4]
        array.flush()
    (folder / "done").write_text("4")
    found = cache.rows(folder, 10, squares, at_once=4)
    assert found["square"].tolist() == [n * n for n in range(10)]


def test_what_does_not_fit_is_refused_before_it_begins(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    said = cache.check_room(tmp_path / "new" / "a", 10, 0, 1000, "Ten rows")
    assert said.startswith("Ten rows take 0.01 MB in ")
    with pytest.raises(UserError, match=r"only .* are free there"):
        cache.check_room(tmp_path / "new", 4, 0, free, "Four rows")
    cache.check_room(tmp_path / "new", 4, 4, free, "Four rows")  # they are there already
