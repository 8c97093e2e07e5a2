"""What a backend must compute before it is said to work, and how its results are compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import parser

from synfer_rt.backends import driver, probed, probes, runtimes, status
from synfer_rt.backends.driver import Gpu
from synfer_rt.backends.probes import EPSILON, GROUPS, HEADS, Probe
from synfer_rt.backends.runtimes import BackendStatus
from synfer_rt.export.onnx.probe_graphs import probe_graphs

PLAIN = {probe.name: probe for probe in probes.plain()}
FUSED = {probe.name: probe for probe in probes.fused()}
CPU = "onnxruntime-cpu"


def on_cpu(file: Path | bytes, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    content = file.read_bytes() if isinstance(file, Path) else file
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(inputs))[0])


def test_the_files_are_what_the_script_makes() -> None:
    made = probe_graphs()
    there = {file.name: file.read_bytes() for file in probes.FOLDER.iterdir()}
    assert there == made
    assert {probe.file.name for probe in (PLAIN | FUSED).values()} == set(made)


def test_the_expected_results_are_those_of_torch() -> None:
    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(array))

    def heads(array: np.ndarray) -> torch.Tensor:
        return tensor(array).unflatten(-1, (HEADS, -1)).transpose(1, 2)

    image = tensor(PLAIN["convolution"].inputs["image"])
    scale, bias = map(tensor, probes.scale_and_bias())
    normalised = torch.nn.functional.group_norm(image, GROUPS, scale, bias, EPSILON)
    given = PLAIN["attention"].inputs
    query, key, value = (heads(given[name]) for name in ("query", "key", "value"))
    attended = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    wanted = {
        "convolution": torch.nn.functional.conv2d(image, tensor(probes.kernel()), padding=1),
        "group normalisation": normalised,
        "attention": attended.transpose(1, 2).flatten(2),
        "fused group normalisation": torch.nn.functional.silu(normalised),
    }
    wanted["fused attention"] = wanted["attention"]
    for name, probe in (PLAIN | FUSED).items():
        np.testing.assert_allclose(probe.expected, wanted[name].numpy(), atol=1e-5)


@pytest.mark.parametrize("backend", [CPU, "openvino-cpu"])
def test_the_backends_of_cpus_compute_them(backend: str) -> None:
    if not status(backend).works:
        pytest.skip(status(backend).reason)
    assert probed(backend).works


def test_the_fused_attention_computes_it_too() -> None:
    probe = FUSED["fused attention"]
    assert probe.holds(on_cpu(probe.file, probe.inputs))


def test_the_fused_normalisation_computes_it_too() -> None:
    """ONNX Runtime has no such kernel for CPUs, so a function after its definition replaces it."""
    probe = FUSED["fused group normalisation"]
    model = onnx.load(probe.file)
    (node,) = [node for node in model.graph.node if node.op_type == "GroupNorm"]
    given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    assert given == {
        "activation": 1,
        "channels_last": 1,
        "groups": GROUPS,
        "epsilon": pytest.approx(EPSILON),
    }
    node.domain = "tests"
    del node.attribute[:]
    model.functions.append(
        parser.parse_function(f"""
<domain: "tests", opset_import: ["" : 21]>
GroupNorm (last, scale, bias) => (activated) {{
  wide = Cast <to = 1> (last)
  first = Transpose <perm = [0, 3, 1, 2]> (wide)
  normalised = GroupNormalization <num_groups = {GROUPS}, epsilon = {EPSILON}> (first, scale, bias)
  share = Sigmoid (normalised)
  silu = Mul (normalised, share)
  back = Transpose <perm = [0, 2, 3, 1]> (silu)
  activated = Cast <to = 10> (back)
}}""")
    )
    model.opset_import.append(onnx.helper.make_opsetid("tests", 1))
    assert probe.holds(on_cpu(model.SerializeToString(), probe.inputs))


@pytest.mark.parametrize("probe", (PLAIN | FUSED).values(), ids=list(PLAIN | FUSED))
def test_other_results_are_noticed(probe: Probe) -> None:
    right = probe.expected.astype(np.float32)
    assert probe.holds(right)
    assert not probe.holds(np.zeros_like(right))
    assert not probe.holds(right * 1.05)
    assert not probe.holds(np.roll(right, 1))
    assert not probe.holds(right[:1])
    damaged = right.copy()
    damaged.flat[-1] = np.nan
    assert not probe.holds(damaged)


class Runtime:
    """A backend's module: it loads, or not, and computes with `run`."""

    def __init__(self, found: BackendStatus, run: probes.Run, noise: str = "") -> None:
        self._found, self._run, self._noise = found, run, noise

    def status(self, backend: str) -> BackendStatus:
        print(self._noise)
        return self._found

    def run_file(self, file: Path, inputs: Mapping[str, np.ndarray], backend: str) -> np.ndarray:
        print(self._noise)
        return self._run(file, inputs)


def tried(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> BackendStatus:
    monkeypatch.setattr(runtimes, "runtime", lambda backend: runtime)
    for ask in (runtimes.status, runtimes.probed):
        ask.cache_clear()
    try:
        return runtimes.status("onnxruntime-cuda")
    finally:
        for ask in (runtimes.status, runtimes.probed):
            ask.cache_clear()


LOADS = BackendStatus("onnxruntime-cuda", True, "works", "")


def test_a_provider_that_loads_and_computes_nothing_does_not_work(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def nothing(file: Path, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.zeros_like(next(iter(inputs.values())))

    found = tried(Runtime(LOADS, nothing, "noise"), monkeypatch)
    assert not found.works
    everything = ", ".join([*PLAIN, *FUSED])
    assert found.reason == f"{everything}: wrong values"
    assert "driver" in found.remedy
    assert capfd.readouterr() == ("", "")


def test_a_library_that_only_a_convolution_asks_for_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without_cudnn(file: Path, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        if file.stem == "convolution":
            raise RuntimeError(
                "Non-zero status code returned while running Conv node. Name:'' Status Message: "
                "cuDNN is unavailable or disabled for CUDA Execution Provider: dlopen failed for "
                "libcudnn.so: libcudnn.so: cannot open shared object file: No such file"
            )
        by_file = {probe.file: probe.expected for probe in (PLAIN | FUSED).values()}
        return by_file[file]

    monkeypatch.setattr("synfer_rt.backends.libraries._has_driver", lambda: True)
    found = tried(Runtime(LOADS, without_cudnn), monkeypatch)
    assert not found.works
    assert found.reason == "convolution: cuDNN (libcudnn.so) cannot be found"
    assert found.remedy == "run `pip install 'onnxruntime-gpu[cuda,cudnn]'`"


def test_what_a_provider_prints_when_it_does_not_load_becomes_the_reason(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    refused = BackendStatus("onnxruntime-cuda", False, "it does not load", "pip")
    noise = (
        "[E:onnxruntime:Default] Failed to load library /x/libonnxruntime_providers_cuda.so with "
        "error: libcublasLt.so.13: cannot open shared object file: No such file or directory"
    )
    monkeypatch.setattr("synfer_rt.backends.libraries._has_driver", lambda: True)
    found = tried(Runtime(refused, on_cpu, noise), monkeypatch)
    assert found.reason == "cuBLAS (libcublasLt.so.13) cannot be found"
    assert found.remedy == "run `pip install 'onnxruntime-gpu[cuda,cudnn]'`"
    assert capfd.readouterr() == ("", "")
    assert tried(Runtime(refused, on_cpu, "other noise"), monkeypatch) == refused


def test_a_gpu_without_code_in_the_runtime_gets_the_backends_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = BackendStatus("onnxruntime-cuda", False, "no kernel image is available", "pip")
    monkeypatch.setattr(driver, "gpu", lambda: Gpu("NVIDIA B200", "sm100", "13.0"))
    found = tried(Runtime(refused, on_cpu), monkeypatch)
    assert found.reason == "it has no code for NVIDIA B200 (sm100)"
    assert found.remedy == "use tensorrt-cuda"
    monkeypatch.setattr(driver, "gpu", lambda: Gpu("NVIDIA H200", "sm90", "13.0"))
    assert tried(Runtime(refused, on_cpu), monkeypatch) == refused
