"""Pieces are written while the next are computed; whatever ends a job, what it made is kept."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path
from shutil import copytree

import pytest

from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.errors import UserError
from synfer_rt.jobs import runner


class Written:
    """An output in memory, and what was done to it."""

    def __init__(self) -> None:
        self.pieces: list[int] = []
        self.ends: list[str] = []

    def finish(self) -> None:
        self.ends.append("finished")

    def close(self) -> None:
        self.ends.append("closed")


@pytest.fixture
def bundle(tiny_bundle_path: Path, tmp_path: Path) -> Bundle:
    return open_bundle(copytree(tiny_bundle_path, tmp_path / "bundle"))


def numbers(until: int) -> Generator[int]:
    yield from range(until)


def test_every_piece_is_written_in_order_and_the_output_finished(bundle: Bundle):
    output, told = Written(), list[int]()
    runner.run(bundle, numbers(5), output.pieces.append, output, told.append)
    assert output.pieces == told == [0, 1, 2, 3, 4]
    assert output.ends == ["finished", "closed"]


def test_a_piece_is_written_while_the_next_is_computed(bundle: Bundle):
    computing = threading.Event()

    def pieces() -> Generator[int]:
        yield 0
        computing.set()
        yield 1

    def write(piece: int) -> None:
        assert piece == 1 or computing.wait(10)

    runner.run(bundle, pieces(), write, Written(), lambda piece: None)


@pytest.mark.parametrize("ending", [KeyboardInterrupt, UserError])
def test_what_ends_a_job_early_leaves_every_piece_before(
    bundle: Bundle, ending: type[BaseException]
):
    output, cleaned = Written(), list[bool]()

    def pieces() -> Generator[int]:
        try:
            yield from range(5)
        finally:
            cleaned.append(True)

    def stop(piece: int) -> None:
        if piece == 2:
            raise ending

    with pytest.raises(ending):
        runner.run(bundle, pieces(), output.pieces.append, output, stop)
    assert output.pieces == [0, 1, 2]
    assert output.ends == ["closed"] and cleaned == [True]


def test_a_write_that_fails_ends_the_job(bundle: Bundle):
    output = Written()

    def write(piece: int) -> None:
        if piece == 1:
            raise UserError("The disk is full.")
        output.pieces.append(piece)

    with pytest.raises(UserError, match="disk is full"):
        runner.run(bundle, numbers(5), write, output, lambda piece: None)
    assert output.pieces == [0] and output.ends == ["closed"]


def test_a_piece_that_a_changed_bundle_made_is_not_written(bundle: Bundle):
    output = Written()

    def change(piece: int) -> None:
        (bundle.path / "decoder.onnx").write_bytes(b"another")

    with pytest.raises(UserError, match=r"decoder\.onnx was changed or removed"):
        runner.run(bundle, numbers(5), output.pieces.append, output, change)
    assert output.pieces == [0] and output.ends == ["closed"]
