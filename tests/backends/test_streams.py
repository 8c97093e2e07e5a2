"""A call on the CPU, divided among streams: the same values, whatever the number of threads."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from synfer_rt import backends
from synfer_rt.backends import onnxruntime_cpu, open_engine, streams
from synfer_rt.backends.parity import inputs
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.bundle.engine_specs import TensorSpec

CPUS = ("onnxruntime-cpu", "openvino-cpu")
ENGINES = ("conditioner", "denoiser", "decoder", "encoder", "classifier.residual", "feranno")
TENSORS = (TensorSpec("x", "float32", ("B", 2)), TensorSpec("step", "float32", ()))
SMALL, LARGE = 256, 4096


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return open_bundle()


@pytest.fixture(params=CPUS)
def cpu(request: pytest.FixtureRequest) -> str:
    found = backends.status(request.param)
    if not found.works:
        pytest.skip(found.reason)
    return request.param


@pytest.mark.parametrize("rows", [2, 5, 9, 16, 17])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_streams_compute_every_row_once_in_equal_parts(rows: int, count: int) -> None:
    given = {"x": np.arange(2 * rows).reshape(rows, 2), "step": np.float32(3)}
    parts = streams.parts(given, TENSORS, count)
    assert len(parts) == count
    assert {len(part["x"]) for part in parts} == {-(-rows // count)}
    assert all(part["step"] == 3 for part in parts)
    whole = streams.joined([{"y": -part["x"]} for part in parts], rows)
    np.testing.assert_array_equal(whole["y"], -given["x"])


def test_what_is_joined_is_the_callers_to_keep() -> None:
    outputs = [{"y": np.zeros(2)}, {"y": np.zeros(2)}]
    for several in (outputs, outputs[:1]):
        joined = streams.joined(several, 2 * len(several))["y"]
        assert not any(np.shares_memory(joined, part["y"]) for part in several)


@pytest.mark.parametrize(
    ("rows", "threads", "positions", "count"),
    [
        (16, 2, SMALL, 2),
        (16, 3, SMALL, 3),  # parts of 6, 18 rows in all
        (16, 7, SMALL, 1),  # parts of 3, a quarter of them for nothing
        (16, 12, SMALL, 6),  # two threads each
        (16, 16, SMALL, 8),  # not one row each
        (3, 2, SMALL, 1),
        (1, 2, SMALL, 1),
        (16, 1, SMALL, 1),
        (16, 2, LARGE, 1),
    ],
)
def test_there_are_as_many_streams_as_keep_busy(
    rows: int, threads: int, positions: int, count: int
) -> None:
    assert streams.most(rows, threads, positions) == count


def test_inputs_that_do_not_agree_are_left_to_the_runtime() -> None:
    given = {"x": np.zeros((4, 2)), "y": np.zeros((1, 2))}
    tensors = (TENSORS[0], TensorSpec("y", "float32", ("B", 2)))
    assert streams.rows_of(given, tensors) == 1


@pytest.mark.parametrize("name", ENGINES)
def test_no_value_depends_on_the_number_of_threads(shipped: Bundle, cpu: str, name: str) -> None:
    given = inputs(shipped, name, 8)
    wanted = open_engine(shipped, name, cpu, threads=1).run(given)
    for threads in (2, 3, 4):
        found = open_engine(shipped, name, cpu, threads, rows=8).run(given)
        assert list(found) == list(wanted)
        for output in wanted:
            np.testing.assert_array_equal(found[output], wanted[output])


def test_threads_may_call_one_engine_at_once(shipped: Bundle, cpu: str) -> None:
    engine = open_engine(shipped, "classifier.residual", cpu, threads=2, rows=4)
    given = [inputs(shipped, "classifier.residual", rows) for rows in (4, 4, 1)]
    given[1] = {"images": given[1]["images"][::-1]}
    wanted = [engine.run(arrays)["probabilities"] for arrays in given]
    found: list[list[np.ndarray]] = [[] for _ in given]

    def call(i: int) -> None:
        found[i] = [engine.run(given[i])["probabilities"] for _ in range(8)]

    callers = [threading.Thread(target=call, args=(i,)) for i in range(len(given))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for results, right in zip(found, wanted, strict=True):
        assert len(results) == 8
        for result in results:
            np.testing.assert_array_equal(result, right)


def test_a_session_is_opened_for_the_rows_to_come(
    shipped: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []

    def opening(file: Path, backend: str, threads: int) -> object:
        opened.append(threads)
        return open_session(file, backend, threads)

    open_session = onnxruntime_cpu.open_session
    monkeypatch.setattr(onnxruntime_cpu, "open_session", opening)
    engine = open_engine(shipped, "classifier.residual", CPUS[0], threads=2, rows=16)
    assert opened == [1]
    engine.run(inputs(shipped, "classifier.residual", 16))
    assert opened == [1]
    engine.run(inputs(shipped, "classifier.residual", 1))  # alone, it gets both threads
    assert opened == [1, 2]
