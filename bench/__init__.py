"""The benchmark: throughput, time per stage and memory, alone and against other systems.

    from synfer_rt.bench import bench

    result = bench(batch=[1, 64], repeats=1)

`estimate` says beforehand how long `bench` would take. Both load on first use, so that importing
the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synfer_rt.bench.benchmark import bench, estimate

__all__ = ["bench", "estimate"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from synfer_rt.bench import benchmark

    return getattr(benchmark, name)
