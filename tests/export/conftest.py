"""The tiny Stable Diffusion checkpoints and their bundles, each made once a run."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from synfer_rt.bundle import Bundle, open_bundle
from tests.conftest import Once, built

Run = Callable[..., dict[str, np.ndarray]]


@pytest.fixture(scope="session", autouse=True)
def one_registry() -> Iterator[None]:
    """The exporter lists its functions, which takes a second, once instead of for every engine."""
    registration = pytest.importorskip("torch.onnx._internal.exporter._registration")
    with pytest.MonkeyPatch.context() as patch:
        listed = functools.cache(registration.ONNXRegistry.from_torchlib)
        patch.setattr(registration.ONNXRegistry, "from_torchlib", staticmethod(listed))
        yield


@pytest.fixture(scope="session")
def sd_checkpoint(once: Once) -> Path:
    from tests.export.tiny_checkpoint import make_sd

    return once("checkpoints/sd", make_sd)


@pytest.fixture(scope="session")
def plain_checkpoint(once: Once) -> Path:
    """Without an adapter."""
    from tests.export.tiny_checkpoint import make_sd

    return once("checkpoints/plain", lambda out: make_sd(out, adapter=False))


@pytest.fixture(scope="session")
def sd2_checkpoint(once: Once) -> Path:
    """Of Stable Diffusion 2.1's kind, with two layers of text encoder."""
    from tests.export.tiny_checkpoint import make_sd2

    return once("checkpoints/sd2", make_sd2)


@pytest.fixture
def mini(mini_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(mini_checkpoint, tmp_path / "mini"))


@pytest.fixture
def sd(sd_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sd_checkpoint, tmp_path / "sd"))


@pytest.fixture(scope="session")
def sd_bundle(sd_checkpoint: Path, once: Once) -> Bundle:
    return open_bundle(once("bundles/sd", lambda out: built(sd_checkpoint, out)))


@pytest.fixture(scope="session")
def plain_bundle(plain_checkpoint: Path, once: Once) -> Bundle:
    return open_bundle(once("bundles/plain", lambda out: built(plain_checkpoint, out)))


@pytest.fixture(scope="session")
def engine() -> Callable[[Bundle, str], Run]:
    """An engine of a bundle as a function of its inputs by name, to its outputs by name."""
    import onnxruntime

    def opened(bundle: Bundle, name: str) -> Run:
        path = bundle.path / bundle.engines[name].file
        runtime = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [output.name for output in runtime.get_outputs()]
        return lambda **inputs: {
            name: np.asarray(value)
            for name, value in zip(names, runtime.run(None, inputs), strict=True)
        }

    return opened
