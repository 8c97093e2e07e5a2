"""Memory and calls of the CUDA runtime."""

from __future__ import annotations

import pytest

from synfer_rt.backends import cuda
from synfer_rt.backends.cuda import CudaError, Pool


def test_released_memory_is_handed_out_again() -> None:
    asked: list[int] = []

    def allocate(size: int) -> int:
        asked.append(size)
        return 1000 * len(asked)

    pool = Pool(allocate, lambda pointer: None)
    one, other = pool.take(64), pool.take(64)
    assert one != other
    pool.release(64, one)
    assert pool.take(64) == one
    assert pool.take(32) not in (one, other)
    assert asked == [64, 64, 32]


def test_when_memory_runs_out_what_lies_idle_is_freed_first() -> None:
    held: dict[int, int] = {}

    def allocate(size: int) -> int:
        if sum(held.values()) + size > 100:
            raise CudaError("cudaErrorMemoryAllocation")
        pointer = max(held, default=0) + 1
        held[pointer] = size
        return pointer

    pool = Pool(allocate, held.__delitem__)
    pool.release(80, pool.take(80))
    assert pool.take(90) in held
    assert list(held.values()) == [90]
    with pytest.raises(CudaError, match="MemoryAllocation"):
        pool.take(20)


def test_a_failed_call_is_named() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    assert cuda._call((runtime.cudaError_t.cudaSuccess, 3, 4)) == (3, 4)
    assert cuda._call((runtime.cudaError_t.cudaSuccess, 3)) == 3
    with pytest.raises(CudaError, match="cudaErrorMemoryAllocation"):
        cuda._call((runtime.cudaError_t.cudaErrorMemoryAllocation, None))
