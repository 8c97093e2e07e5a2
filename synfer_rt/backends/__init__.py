"""Runtimes that execute a bundle's engines, behind one small protocol.

A backend's name is `<runtime>-<device>`. Each runtime has a module of its own in this package,
which is imported only when it is used.
"""

from synfer_rt.backends.choice import choose, runs_on
from synfer_rt.backends.engine import Engine, Value, to_numpy
from synfer_rt.backends.opening import batch_limits, default_threads, open_engine, thread_count
from synfer_rt.backends.runtimes import (
    BACKENDS,
    TARGETS,
    BackendStatus,
    computes,
    probed,
    status,
    statuses,
)

__all__ = [
    "BACKENDS",
    "TARGETS",
    "BackendStatus",
    "Engine",
    "Value",
    "batch_limits",
    "choose",
    "computes",
    "default_threads",
    "open_engine",
    "probed",
    "runs_on",
    "status",
    "statuses",
    "thread_count",
    "to_numpy",
]
