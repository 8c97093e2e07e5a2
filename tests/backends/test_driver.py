"""The GPU that the driver shows, and the backends for it."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from synfer_rt.backends import driver
from synfer_rt.backends.driver import RTX_CAPABILITIES, Gpu


class Library:
    """libcuda of a machine with these GPUs."""

    def __init__(self, capability: tuple[int, int], fails: str = "") -> None:
        self._values: dict[int, int] = dict(zip((75, 76), capability, strict=True))
        self._fails = fails

    def cuInit(self, flags: int) -> int:
        return 100 if self._fails == "cuInit" else 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = 1
        return 0

    def cuDeviceGet(self, device: Any, number: int) -> int:
        return 101 if self._fails == "cuDeviceGet" else 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        ctypes.memmove(name, b"NVIDIA Card\0", 12)
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = self._values[attribute]
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 13020
        return 0


@pytest.mark.parametrize(
    ("capability", "backends"),
    [
        ((9, 0), ("onnxruntime-cuda", "tensorrt-cuda")),
        ((8, 9), ("tensorrt-rtx-cuda", "onnxruntime-cuda", "tensorrt-cuda")),
        ((12, 1), ("tensorrt-rtx-cuda", "onnxruntime-cuda", "tensorrt-cuda")),
        ((8, 7), ("onnxruntime-cuda", "tensorrt-cuda")),
        ((7, 0), ("tensorrt-cuda",)),
        ((7, 2), ("tensorrt-cuda",)),
        ((10, 0), ("tensorrt-cuda",)),
        ((10, 3), ("tensorrt-cuda",)),
        ((11, 0), ("tensorrt-cuda",)),
    ],
)
def test_a_gpu_is_told_with_the_backends_for_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], backends: tuple[str, ...]
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library(capability))
    found = driver.gpu()
    assert found == Gpu("NVIDIA Card", "sm{}{}".format(*capability), "13.2")
    assert found is not None and found.backends == backends
    for backend in ("tensorrt-rtx-cuda", "onnxruntime-cuda", "tensorrt-cuda"):
        assert (driver.obstacle(backend) is None) == (backend in backends)
    assert driver.obstacle("onnxruntime-cpu") is None


@pytest.mark.parametrize("fails", ["cuInit", "cuDeviceGet"])
def test_a_driver_that_fails_shows_none(monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library((8, 9), fails))
    assert driver.gpu() is None


def test_a_library_without_the_functions_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert driver.gpu() is None


def test_tensorrt_rtx_knows_the_gpus_that_are_said_to_be_its() -> None:
    library = pytest.importorskip("tensorrt_rtx")
    known = [name.lower() for name in library.ComputeCapability.__members__ if name[:2] == "SM"]
    assert sorted(known) == sorted(RTX_CAPABILITIES)
