"""Processes that begin anew, share no thread or memory with this one, and end with it."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


@contextmanager
def fresh_processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """`count` processes to submit work to; what has not begun when the block ends never does.

    Not forked: runtimes have threads. An interruption ends what they are at.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, initializer=_leave_signals_to_the_parent) as pool:
        try:
            yield pool
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _leave_signals_to_the_parent() -> None:
    """A terminal sends its signals to all processes, and the parent knows what to do."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
