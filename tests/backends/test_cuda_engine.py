"""CUDA engines without a GPU: options, values, what is said where they run otherwise."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx_ir", reason="CUDA engines are made by synfer-rt[export]")

from synfer_rt.backends import computes, cuda_engine, open_engine
from synfer_rt.backends.cuda_engine import CudaEngine, OrtBuffer
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.backends.runtimes import BackendStatus
from synfer_rt.backends.sessions import cuda_engine_options, open_session
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError
from tests import tiny_bundle as tiny
from tests.cuda_bundles import CPU, with_cuda_engines

GPU = "onnxruntime-cuda"


@pytest.fixture(scope="module")
def cuda_bundle(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_cuda_engines(tiny_bundle, tmp_path_factory.mktemp("cuda") / "bundle")


def buffers(engine: CudaEngine, size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Buffers for a batch of a classifier, the images drawn."""
    images = np.random.default_rng(0).random((size, 3, *tiny.IMAGE), np.float32)
    given = engine.allocate(images.shape, "float32")
    given.fill(images)
    return {"images": given}, {"probabilities": engine.allocate((size, 8), "float32")}


def test_only_guides_may_round_products_to_tf32() -> None:
    options = {name: cuda_engine_options(name, graphs=True) for name in ("denoiser", "guide.text")}
    assert options["denoiser"]["use_tf32"] == "0" and options["guide.text"]["use_tf32"] == "1"
    for given in options.values():
        assert given["prefer_nhwc"] == given["enable_cuda_graph"] == "1"
        assert given["cudnn_conv_algo_search"] == "HEURISTIC"
        assert given["user_compute_stream"] == "2"  # cudaStreamPerThread in driver_types.h
    assert cuda_engine_options("denoiser", graphs=False)["enable_cuda_graph"] == "0"


def test_an_engine_that_refuses_graphs_runs_without_and_says_so(
    cuda_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    def refusing(file: Path, backend: str, threads: int, options: Mapping[str, str]) -> Any:
        asked.append(options["enable_cuda_graph"])
        if asked[-1] == "1":
            raise RuntimeError(
                "/source/call.cc:1 CUDA failure 900: a wait ; GPU=0 ; hostname=here ;\nmore"
            )
        return open_session(file, CPU, threads)

    monkeypatch.setattr(cuda_engine, "open_session", refusing)
    with caplog.at_level(logging.INFO):
        engine = CudaEngine(cuda_bundle, "classifier.small", CPU, 1, "cuda")
    assert asked == ["1", "0"]
    assert caplog.messages == [
        "classifier.small runs without CUDA graphs, so slower (CUDA failure 900: a wait)."
    ]
    images = np.random.default_rng(0).random((2, 3, *tiny.IMAGE), np.float32)
    wanted = open_engine(cuda_bundle, "classifier.small", CPU, 1).run({"images": images})
    found = engine.run({"images": images})
    np.testing.assert_array_equal(found["probabilities"], wanted["probabilities"])


def test_an_engine_whose_capture_fails_runs_without_graphs(
    cuda_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = CudaEngine(cuda_bundle, "classifier.small", CPU, 1, "cpu")
    engine._graphs = True
    run, made = cuda_engine._Call.run, list[bool]()

    def failing(self: Any, wait: bool) -> None:
        made.append(engine._graphs)
        if engine._graphs:
            raise RuntimeError("operation not permitted when stream is capturing")
        run(self, wait)

    monkeypatch.setattr(cuda_engine._Call, "run", failing)
    given, outputs = buffers(engine, 2)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            engine.enqueue(given, outputs, wait=True)
    assert made == [True, False, False] and len(caplog.messages) == 1
    wanted = engine.run({"images": given["images"].numpy()})["probabilities"]
    np.testing.assert_array_equal(outputs["probabilities"].numpy(), wanted)


def test_a_graph_is_captured_when_its_memory_is_there(
    cuda_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = CudaEngine(cuda_bundle, "classifier.small", CPU, 1, "cpu")
    engine._graphs = True
    run, graphs = engine._session.run_with_iobinding, list[str]()

    def recording(binding: Any, options: Any) -> None:
        graphs.append(options.get_run_config_entry("gpu_graph_id"))
        run(binding, options)

    monkeypatch.setattr(engine._session, "run_with_iobinding", recording)
    for size in (2, 3):
        given, outputs = buffers(engine, size)
        for _ in range(2):
            engine.enqueue(given, outputs, wait=True)
    assert graphs == ["-1", "1", "1", "-1", "2", "2"]


def test_a_failure_without_graphs_is_told_with_its_remedy(
    cuda_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Any, wait: bool) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(cuda_engine._Call, "run", failing)
    engine = CudaEngine(cuda_bundle, "classifier.small", CPU, 1, "cpu")
    with pytest.raises(UserError, match=r"small failed .*\(out of memory\).*smaller `batch`"):
        engine.enqueue(*buffers(engine, 2))


def test_a_part_of_a_buffer_is_computed_where_it_lies(cuda_bundle: Bundle) -> None:
    engine = CudaEngine(cuda_bundle, "classifier.small", CPU, 1, "cpu")
    given, _ = buffers(engine, 5)
    outputs = {"probabilities": engine.allocate((2, 8), "float32")}
    whole = engine.run({"images": given["images"].numpy()})["probabilities"]
    for first in (0, 2, 3):
        engine.enqueue({"images": given["images"].rows(first, 2)}, outputs, wait=True)
        np.testing.assert_allclose(
            outputs["probabilities"].numpy(), whole[first : first + 2], rtol=1e-6
        )


def test_a_buffer_takes_only_arrays_that_fit() -> None:
    buffer = OrtBuffer((2, 3), "float32", "cpu")
    for wrong in (np.zeros((3, 2), np.float32), np.zeros((2, 3), np.float64), np.float32(0)):
        with pytest.raises(ValueError, match=r"does not fit float32 \[2, 3\]"):
            buffer.fill(np.asarray(wrong))
    for first, count in ((-1, 1), (1, 2), (0, 3)):
        with pytest.raises(ValueError, match="of 2"):
            buffer.rows(first, count)


def test_the_precision_is_that_of_the_cuda_engine(tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle = with_cuda_engines(tiny_bundle, tmp_path / "whole")
    assert computes(tiny_bundle, GPU)[0] == "fp32"
    assert computes(bundle, GPU)[0] == bundle.cuda["denoiser"].precision == "fp32"
    assert computes(tiny.add_cuda_engines(bundle, "fp16"), GPU)[0] == "fp16"
    assert computes(bundle, CPU)[0] == "fp32"


def test_missing_cuda_engines_are_told(
    tiny_bundle: Bundle,
    cuda_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(
        "synfer_rt.backends.choice.status", lambda name: BackendStatus(name, True, "works", "")
    )
    some = with_cuda_engines(tiny_bundle, tmp_path / "some", without=("encoder", "decoder"))
    with caplog.at_level(logging.INFO):
        LoadedEngines(cuda_bundle, GPU)
        LoadedEngines(some, CPU)
        assert caplog.messages == []
        LoadedEngines(some, GPU)
    (said,) = caplog.messages
    assert "no CUDA engine for decoder, encoder, so it runs slower" in said
    assert "`synfer-rt build-engines --target cuda`" in said
    some = with_cuda_engines(tiny_bundle, tmp_path / "most", without=("classifier.small",))
    with caplog.at_level(logging.INFO):
        LoadedEngines(some, GPU)
    assert (
        "no CUDA engine for classifier.small, which runs slower, outside CUDA graphs"
        in caplog.messages[1]
    )


def test_an_engine_without_a_cuda_engine_takes_buffers_but_no_graphs(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Mapping[str, str]]] = []

    def opening(file: Path, backend: str, threads: int, options: Mapping[str, str]) -> Any:
        asked.append((file.name, options))
        return open_session(file, CPU, threads)

    monkeypatch.setattr(cuda_engine, "open_session", opening)
    engine = CudaEngine(tiny_bundle, "classifier.small", CPU, 1, "cuda")
    ((file, options),) = asked
    assert file == tiny_bundle.engines["classifier.small"].file
    assert options.get("enable_cuda_graph", "0") == "0" and options["use_tf32"] == "0"
    assert options["user_compute_stream"] == "2"  # the others' stream
    assert not engine._graphs
