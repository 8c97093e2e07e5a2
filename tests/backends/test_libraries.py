"""Libraries that were not found are named, with the command that brings them."""

from __future__ import annotations

import pytest

from synfer_rt.backends import libraries
from synfer_rt.backends.libraries import missing

NOT_FOUND = "cannot open shared object file: No such file or directory"
CUDA = "run `pip install 'onnxruntime-gpu[cuda,cudnn]'`"


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_has_driver", lambda: True)


def said(*files: str) -> str:
    return "\n".join(f"Failed to load {file}: {file}: {NOT_FOUND}" for file in files)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (["libcublasLt.so.13"], "cuBLAS (libcublasLt.so.13)"),
        (["libcudnn.so"], "cuDNN (libcudnn.so)"),
        (
            ["libcudnn.so.9", "libcurand.so.10"],
            "cuDNN (libcudnn.so.9) and cuRAND (libcurand.so.10)",
        ),
        (
            ["libcurand.so.10", "libcublas.so.13", "libcublasLt.so.13", "libcudart.so.13"],
            "cuBLAS (libcublas.so.13, libcublasLt.so.13), CUDA's runtime (libcudart.so.13) and "
            "cuRAND (libcurand.so.10)",
        ),
    ],
)
def test_libraries_of_cuda_are_named_with_their_files(files: list[str], reason: str) -> None:
    assert missing(said(*files, *files)) == (f"{reason} cannot be found", CUDA)


def test_tensorrt_is_wanted_in_the_version_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_cuda_version", lambda: "12")
    found = missing(said("libnvinfer.so.10", "libnvonnxparser.so.10"))
    assert found == (
        "TensorRT (libnvinfer.so.10, libnvonnxparser.so.10) cannot be found",
        "run `pip install 'tensorrt-cu12<11'`",
    )
    both = missing(said("libnvinfer.so.10", "libcudnn.so.9"))
    assert both is not None
    assert both[1] == "run `pip install 'onnxruntime-gpu[cuda,cudnn]' 'tensorrt-cu12<11'`"


def test_no_package_brings_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = missing(said("libcuda.so.1"))
    assert alone == ("NVIDIA's driver (libcuda.so.1) cannot be found", "install NVIDIA's driver")
    monkeypatch.setattr(libraries, "_has_driver", lambda: False)
    assert missing(said("libcublas.so.13")) == (
        "NVIDIA's driver (libcuda.so.1) and cuBLAS (libcublas.so.13) cannot be found",
        f"install NVIDIA's driver and {CUDA}",
    )


@pytest.mark.parametrize("text", ["", "all is well", said("libfoo.so.1"), "libcudnn.so.9 is old"])
def test_other_words_name_no_library(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_has_driver", lambda: False)
    assert missing(text) is None
