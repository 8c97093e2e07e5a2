"""What really ran each engine is told: backends, files, and the nodes by execution provider."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from synfer_rt.backends import open_engine, status
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.backends.placement import Placement, described, nodes_by_provider, placement
from synfer_rt.bundle import Bundle
from synfer_rt.jobs.warnings import warn_of_the_cpu

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def test_nodes_are_those_of_the_optimized_graph(tiny_bundle: Bundle) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    file = tiny_bundle.path / tiny_bundle.engines["decoder"].file
    counts = nodes_by_provider(onnxruntime.InferenceSession(file, options, providers=[CPU]))
    assert list(counts) == [CPU] and counts[CPU] > 1


def test_parts_of_one_provider_add_up() -> None:
    def part(provider: str, nodes: int) -> Any:
        return SimpleNamespace(ep_name=provider, get_nodes=lambda: [None] * nodes)

    parts = [part(CUDA, 3), part(CPU, 1), part(CUDA, 4), part(CPU, 1)]
    session = SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)
    assert nodes_by_provider(session) == {CUDA: 7, CPU: 2}


def test_only_what_another_provider_left_to_the_cpu_has_fallen() -> None:
    assert Placement("onnxruntime-cuda", "a.onnx", {CUDA: 7, CPU: 2}).fallen == 2
    assert Placement("onnxruntime-cuda", "a.onnx", {CUDA: 7}).fallen == 0
    assert Placement("onnxruntime-cpu", "a.onnx", {CPU: 7}).fallen == 0
    assert Placement("tensorrt-cuda", "a.plan").fallen == 0


def test_a_run_is_described_by_backends_and_sums() -> None:
    placed = [
        Placement("onnxruntime-cuda", "a.cuda.onnx", {CUDA: 400}),
        Placement("onnxruntime-cuda", "b.onnx", {CUDA: 20, CPU: 3}),
    ]
    assert described(placed) == f"onnxruntime-cuda (420 nodes on {CUDA}, 3 nodes on {CPU})"
    assert described([Placement("openvino-cpu", "a.onnx")] * 2) == "openvino-cpu"
    both = [Placement("openvino-cpu", "a.onnx"), Placement("onnxruntime-cpu", "b.onnx")]
    assert described(both) == "openvino-cpu, onnxruntime-cpu"


@pytest.mark.parametrize("backend", ["onnxruntime-cpu", "openvino-cpu"])
def test_an_engine_tells_its_backend_and_file(tiny_bundle: Bundle, backend: str) -> None:
    if not status(backend).works:
        pytest.skip(status(backend).reason)
    found = placement(open_engine(tiny_bundle, "decoder", backend, 1))
    assert found.settings() == {"backend": backend, "file": "decoder.onnx"}


class Divided:
    """An engine of which a part runs on the CPU."""

    backend = "onnxruntime-cuda"

    def __init__(self, bundle: Bundle, nodes: Mapping[str, int]) -> None:
        self.spec = bundle.engines["denoiser"]
        self._nodes = nodes

    def placement(self) -> Placement:
        return Placement(self.backend, "denoiser.onnx", self._nodes)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {}

    def run_on_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {}


def test_nodes_on_the_cpu_are_warned_of(
    tiny_bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    engines = LoadedEngines(tiny_bundle, "onnxruntime-cpu", threads=1)
    engines.load(["decoder"])
    engines.backend = "onnxruntime-cuda"
    engines._loaded["denoiser"] = Divided(tiny_bundle, {CUDA: 399})
    warn_of_the_cpu(engines)
    assert not caplog.records
    engines._loaded["denoiser"] = Divided(tiny_bundle, {CUDA: 1450, CPU: 146})
    warn_of_the_cpu(engines)
    (record,) = caplog.records
    assert "leaves 146 of 1596 nodes of denoiser to the CPU" in record.message
    assert "--target cuda" in record.message
