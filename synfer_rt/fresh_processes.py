"""Fresh processes, which share no thread or memory with this one and end with it."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


@contextmanager
def fresh_processes(count: int) -> Generator[ProcessPoolExecutor]:
    """A pool of `count` processes; work that has not begun when the block ends is cancelled.

    They are spawned, not forked, since runtimes have threads. An interruption terminates them.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, initializer=leave_signals_to_the_parent) as pool:
        try:
            yield pool
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def leave_signals_to_the_parent() -> None:
    """Ignore a terminal's signals, which all processes receive; the parent handles them."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
