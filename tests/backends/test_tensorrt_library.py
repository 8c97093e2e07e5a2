"""The libraries TensorRT and TensorRT-RTX: what is here, and what their bindings have."""

from __future__ import annotations

import inspect
import json
import re
from types import SimpleNamespace

import pytest

from synfer_rt.backends import TARGETS, cuda, tensorrt, tensorrt_library
from synfer_rt.errors import UserError
from tests.backends.host_gpu import CLASSES, RTX_CLASSES, HostLibrary, HostRuntime
from tests.backends.record_bindings import FILE, recorded

BINDINGS = json.loads(FILE.read_text())


@pytest.mark.skipif(cuda.problem() is None, reason="there is a GPU here")
@pytest.mark.parametrize("backend", TARGETS)
def test_without_a_gpu_it_says_what_is_missing(backend: str) -> None:
    found = tensorrt.status(backend)
    assert not found.works
    assert "installed" in found.reason or "GPU" in found.reason
    assert f"pip install {TARGETS[backend]} cuda-python" in found.remedy
    with pytest.raises(UserError, match=r"No GPU can be used: .*; choose another `backend`"):
        cuda.device()


def test_a_file_that_is_no_plan_is_refused_with_what_the_library_says() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    log = tensorrt_library.logger(trt)
    assert trt.Runtime(log).deserialize_cuda_engine(b"no plan at all" * 100) is None
    assert "deserialize" in log.said()


@pytest.mark.parametrize("library", BINDINGS)
def test_the_simulated_library_has_no_name_that_the_bindings_lack(library: str) -> None:
    """What runs on the simulated one calls nothing that TensorRT 10 and 11 or RTX have not."""
    rtx = library.startswith("tensorrt-rtx")
    names = {known: set(words.split()) for known, words in BINDINGS[library].items()}
    for simulated in RTX_CLASSES if rtx else CLASSES:
        name = simulated.__name__.replace("RtxBuilderConfig", "IBuilderConfig")
        source = inspect.getsource(simulated)
        made = set(vars(simulated)) | set(re.findall(r"\bself\.([a-z]\w*)(?=[^=\n]* = )", source))
        assert {each for each in made if not each.startswith("_")} <= names[name], name
    module = HostLibrary(HostRuntime(), with_kernels=rtx)
    for name, value in vars(module).items():
        if isinstance(value, SimpleNamespace):
            assert {each for each in vars(value) if not each.startswith("_")} <= names[name], name
    assert {"INTERNAL_ERROR", "ERROR", "VERBOSE"} <= names["ILogger"]


@pytest.mark.parametrize("module", ["tensorrt", "tensorrt_rtx"])
def test_the_recorded_bindings_are_those_of_what_is_installed(module: str) -> None:
    version = pytest.importorskip(module).__version__
    ((name, names),) = recorded(module).items()
    if name not in BINDINGS:
        pytest.skip(f"{version} has not been recorded")
    assert BINDINGS[name] == names
