"""The build side: a diffusers checkpoint in, a bundle of ONNX engines out.

    from synfer_rt.export import build_engines

    bundle = build_engines("path/to/checkpoint", "my-bundle", precision="fp16")

It needs PyTorch, diffusers, transformers and onnx (`pip install '.[export]'` in a clone), but
`add_cuda_engines` needs onnx and onnx_ir alone. Nothing of the run side imports it except the
command line, for its own commands. The names below load on first use, so that importing the package
costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synfer_rt.export.api import build_engines
    from synfer_rt.export.build.entries import Built
    from synfer_rt.export.build.finished_bundle import add_cuda_engines
    from synfer_rt.export.files.lora.merge import Lora
    from synfer_rt.export.training.api import train_annotator, train_guide

__all__ = [
    "Built",
    "Lora",
    "add_cuda_engines",
    "build_engines",
    "train_annotator",
    "train_guide",
]

_HOMES = {
    "Built": "build.entries",
    "Lora": "files.lora.merge",
    "add_cuda_engines": "build.finished_bundle",
    "build_engines": "api",
    "train_annotator": "training.api",
    "train_guide": "training.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
