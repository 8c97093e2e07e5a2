"""How far a stage of a training is: what a long computation reports to whoever shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from synfer_rt.commands.notes import note
from synfer_rt.commands.progress import ProgressBar
from synfer_rt.jobs.progress import reporter

Stage = Callable[[str, int, int], AbstractContextManager[Callable[[int], None]]]
"""`stage(title, count, before)` gives a function to call with the number of images that are done,
of `count`; `before` are done already."""


@contextmanager
def shown(title: str, count: int, before: int = 0) -> Iterator[Callable[[int], None]]:
    """Show a stage on stderr: its title, then a bar or lines; nothing if it is done already."""
    if before >= count:
        yield lambda done: None
        return
    note(f"{title}: {count} images" + (f", {before} of them done before" if before else ""))
    with ProgressBar() as bar:
        yield reporter(bar, before, count)


@contextmanager
def silent(title: str, count: int, before: int = 0) -> Iterator[Callable[[int], None]]:
    """Show nothing."""
    yield lambda done: None
