"""What a command shows: tables, and how far it is (a bar on a terminal, plain lines elsewhere)."""

from __future__ import annotations

import io
import sys
import time
from contextlib import suppress
from typing import Any, TextIO

from synfer_rt.commands.interruption import raise_if_swallowed
from synfer_rt.commands.notes import note

_SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Shows on stderr how many of `count` images there are, `done` of them from before.

    With `at_most` there may be fewer in the end, so that nobody knows how long it takes. A context
    manager; the bar is gone when it ends.
    """

    def __init__(self, done: int, count: int, at_most: bool = False) -> None:
        self._first, self._count, self._at_most = done, count, at_most
        self._started = self._said = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if is_terminal(sys.stderr):
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(
                progress.BarColumn(None),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[said]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=self._count, completed=self._first, said="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            with suppress(OSError):  # the terminal may be gone
                self._bar.stop()

    def update(self, images: float) -> None:
        """`images` of the run are made, parts of one counted too.

        Raises Interrupted if a signal asks to stop.
        """
        raise_if_swallowed()
        now = time.monotonic()
        speed = (images - self._first) / max(now - self._started, 1e-9)
        said = f"{speed:.1f} images/s"
        if speed > 0 and not self._at_most:
            said += f", {_duration((self._count - images) / speed)} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=int(images), said=said)
        elif now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            most = "at most " if self._at_most else ""
            note(f"{int(images)} of {most}{self._count} images, {said}")


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def console() -> Any:
    """A rich console on stdout that wraps at the terminal's width, and nowhere else."""
    from rich.console import Console

    if is_terminal(sys.stdout):
        return Console()
    return Console(file=sys.stdout or io.StringIO(), width=160)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal; a closed one is None."""
    return stream is not None and stream.isatty()
