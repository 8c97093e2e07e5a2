"""What every job does with what it makes: write each piece while the next is computed, and keep it.

A job that is interrupted, or ends in an error, has on the disk all that was handed over before.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Protocol, TypeVar

from synfer_rt.bundle import Bundle
from synfer_rt.jobs.background import Background

Piece = TypeVar("Piece")


class Output(Protocol):
    """What a job fills: the writer of a dataset, or the table of `label`."""

    def finish(self) -> None:
        """Everything is written: give it its final name."""
        ...

    def close(self) -> None:
        """Stop; what is written stays for a job that resumes."""
        ...


def run(
    bundle: Bundle,
    pieces: Generator[Piece],
    write: Callable[[Piece], None],
    output: Output,
    on_piece: Callable[[Piece], None],
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Hand `pieces` to `write` as they come, on a thread beside the computation; finish `output`.

    One piece may wait while another is written.

    `on_piece` is called after each piece is handed over, in this thread. `waiting` gives a context
    for the times in which this thread waits for the other one. Whatever ends the job early (a
    UserError, an interruption), the pieces handed over are written and `output` is closed, so that
    a job that resumes goes on after them. A piece is not written if the files of `bundle` have
    changed since it was begun: UserError is raised, as it is by `pieces`, `write` and `output`.
    """
    try:
        with Background("write", waiting=1) as background, closing(pieces):
            for piece in pieces:
                bundle.check_unchanged()
                with waiting():
                    background.start(write, piece)
                on_piece(piece)
            with waiting():
                background.wait()
                output.finish()
    finally:
        output.close()
