"""Writing beside computing: one job at a time on a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Background:
    """Runs jobs in their order, one at a time, beside what its owner does.

    A context manager: however the block ends, the job under way is done when it has ended. A job
    begins only when the one before has gone well, so what comes out is without gaps.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._job: Future[Any] | None = None

    def __enter__(self) -> Background:
        # A signal that comes while the pool starts its thread leaves one that `shutdown` does not
        # wait for. Let that be without a job.
        self._thread.submit(int).result()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def start(self, job: Callable[..., Any], *arguments: Any) -> None:
        """Begin a job when the one before is done. Raises what that one raised."""
        self.wait()
        self._job = self._thread.submit(job, *arguments)

    def wait(self) -> None:
        """Return when no job is under way. Raises what the last one raised."""
        if self._job is not None:
            self._job.result()
            self._job = None
