"""Writing beside computing: one job after the other on a thread of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Background:
    """Runs jobs in their order, one at a time, beside what its owner does.

    A context manager: however the block ends, the jobs that were started are done when it has
    ended. A job begins only when the one before has gone well, so what comes out is without gaps.
    `waiting` jobs may wait behind the one under way.
    """

    def __init__(self, name: str, waiting: int = 0) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._jobs: deque[Future[None]] = deque()
        self._waiting, self._failed = waiting, False

    def __enter__(self) -> Background:
        # A signal that comes while the pool starts its thread leaves one that `shutdown` does not
        # wait for. Let that be without a job.
        self._thread.submit(int).result()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def start(self, job: Callable[..., Any], *arguments: Any) -> None:
        """Begin a job when there is room for it. Raises what one that is done has raised."""
        while self._jobs and (self._jobs[0].done() or len(self._jobs) > self._waiting):
            self._end_first()
        self._jobs.append(self._thread.submit(self._run, job, *arguments))

    def wait(self) -> None:
        """Return when no job is under way. Raises what the first that failed has raised."""
        while self._jobs:
            self._end_first()

    def _end_first(self) -> None:
        self._jobs[0].result()
        self._jobs.popleft()

    def _run(self, job: Callable[..., Any], *arguments: Any) -> None:
        if self._failed:
            return
        try:
            job(*arguments)
        except BaseException:
            self._failed = True
            raise
