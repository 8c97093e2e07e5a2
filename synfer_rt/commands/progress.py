"""What a command shows: tables, and how far it is (a bar on a terminal, plain lines elsewhere)."""

from __future__ import annotations

import io
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from synfer_rt.commands.interruption import raise_if_swallowed
from synfer_rt.commands.notes import note
from synfer_rt.commands.quantities import duration

if TYPE_CHECKING:
    from rich.console import Console

    from synfer_rt.jobs.progress import Progress

_SECONDS_BETWEEN_LINES = 5.0
_NO_LIMIT = 100_000
"""Columns: a width that no line reaches."""


class ProgressBar:
    """Shows on stderr how far a job is, which calls it as its `on_progress`.

    A context manager; the bar is gone when it ends.
    """

    def __init__(self) -> None:
        self._started: float | None = None
        self._said = 0.0
        self._bar: Any = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            with suppress(OSError):  # the terminal may be gone
                self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Show how far the job is. Raises Interrupted if a signal asks to stop."""
        raise_if_swallowed()
        now = time.monotonic()
        if self._started is None:
            self._started = self._said = now
            self._begin(progress)
        speed = (progress.done - progress.before) / max(now - self._started, 1e-9)
        said = f"{speed:.1f} images/s"
        if speed > 0 and not progress.at_most:
            said += f", {duration((progress.count - progress.done) / speed)} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=int(progress.done), said=said)
        elif now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            most = "at most " if progress.at_most else ""
            note(f"{int(progress.done)} of {most}{progress.count} images, {said}")

    def _begin(self, progress: Progress) -> None:
        if not is_terminal(sys.stderr):
            return
        from rich import progress as rich
        from rich.console import Console

        self._bar = rich.Progress(
            rich.BarColumn(None),
            rich.MofNCompleteColumn(),
            rich.TextColumn("{task.fields[said]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(
            "", total=progress.count, completed=progress.before, said=""
        )


def console() -> Console:
    """A rich console on stdout that wraps at the terminal's width.

    Where stdout is no terminal, it neither wraps nor cuts anything: rich would take 80 columns.
    """
    from rich.console import Console

    if is_terminal(sys.stdout):
        return Console()
    return Console(file=sys.stdout or io.StringIO(), width=_NO_LIMIT)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal; a closed one is None."""
    return stream is not None and stream.isatty()
