"""Load an engine of a bundle on a backend."""

from __future__ import annotations

import os

from synfer_rt import ranges
from synfer_rt.backends.choice import choose, runs_on
from synfer_rt.backends.engine import Engine
from synfer_rt.backends.runtimes import TARGETS, runtime
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError

MOST_THREADS = 1024
"""Far more CPU threads than help an engine; runtimes hang or crash on numbers beyond all sense."""


def default_threads() -> int:
    """The number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count(threads: int | None) -> int:
    """`threads`, the CPU threads of an engine, as an int; None means every usable core.

    Raises UserError unless it is from 1 to MOST_THREADS.
    """
    if threads is None:
        return default_threads()
    return ranges.whole("threads", threads, 1, MOST_THREADS)


def open_engine(
    bundle: Bundle,
    name: str,
    backend: str = "auto",
    threads: int | None = None,
    rows: int | None = None,
) -> Engine:
    """Load the engine `name` of a checked bundle.

    `threads` is the number of CPU threads of one call; None means every usable core. `rows` is the
    number of images in the calls to come, if it is known: the engine is made ready for them. Raises
    UserError for a backend that does not work here, an engine that the bundle lacks, a number of
    threads that `thread_count` refuses, a plan that is not for this GPU and this version of its
    library, and a file that the runtime refuses.
    """
    count = thread_count(threads)
    if name not in bundle.engines:
        raise UserError(f"{bundle.name} has no engine {name}; it has {', '.join(bundle.engines)}.")
    backend, _ = choose(backend, bundle if backend == "auto" else None)
    backend = runs_on(bundle.engines[name], backend)
    return runtime(backend).open_engine(bundle, name, backend, count, rows)


def batch_limits(bundle: Bundle, name: str, backend: str) -> tuple[int, int | None]:
    """The smallest and the largest batch that an engine takes on a backend; None means no limit."""
    plan = bundle.plans.get(TARGETS.get(backend, ""), {}).get(name)
    return (plan.batches[0], plan.batches[2]) if plan else (1, None)
