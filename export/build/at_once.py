"""Several engines built at once, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from synfer_rt.errors import UserError
from synfer_rt.fresh_processes import fresh_processes

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def at_once(
    build: Callable[[_Job], _Result], jobs: Sequence[_Job], processes: int
) -> Iterator[_Result]:
    """The result of every job as it is finished, at most `processes` at once.

    With 1, they are built in this process and in their order. Raises UserError if a process is
    killed.
    """
    if processes == 1 or len(jobs) < 2:
        yield from map(build, jobs)
        return
    with fresh_processes(processes) as pool:
        try:
            for future in as_completed([pool.submit(build, job) for job in jobs]):
                yield future.result()
        except BrokenProcessPool:
            raise UserError(
                "A process that builds an engine was killed, probably because memory ran out; "
                "build again with fewer `jobs`: finished engines are kept."
            ) from None
