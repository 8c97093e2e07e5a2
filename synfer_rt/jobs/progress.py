"""How far a job is, as it tells whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from synfer_rt.errors import UserError


@dataclass(frozen=True)
class Progress:
    """How many images of a job are done.

    `done` counts those that were there `before` too, and parts of images that are being made.
    `count` is the number of images when the job is complete; with `at_most` it may end with fewer.
    """

    done: float
    count: int
    before: int = 0
    at_most: bool = False


OnProgress = Callable[[Progress], None]
"""Called when a job begins and each time it gets on. What it raises ends the job."""


def reporter(
    on_progress: OnProgress | None, before: int, count: int, at_most: bool = False
) -> Callable[[float], None]:
    """What a job calls with the number of images that are done; reports the beginning at once."""

    if not (on_progress is None or callable(on_progress)):
        raise UserError(f"`on_progress` must be a function, got {on_progress!r}.")

    def report(done: float) -> None:
        if on_progress is not None:
            on_progress(Progress(done, count, before, at_most))

    report(before)
    return report
