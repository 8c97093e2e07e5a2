"""A built engine -> the graph of it that ONNX Runtime's CUDA provider runs fast."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from synfer_rt.export.cuda.attention import MICROSOFT, fuse_attention
from synfer_rt.export.cuda.device_interface import give_device_interface
from synfer_rt.export.cuda.float16 import compute_half
from synfer_rt.export.cuda.group_norm import fuse_group_norm
from synfer_rt.export.cuda.shapes import fix_shapes
from synfer_rt.export.cuda.weights import save_by_reference


def is_guide(name: str) -> bool:
    """Whether the engine `name` is a guide: gradients are smaller than float16 can hold."""
    return name.startswith("guide.")


def cuda_engine(source: Path, target: Path, name: str) -> None:
    """Write the engine `name`, whose file is `source`, for CUDA to `target` in the same folder.

    Inputs and outputs are those of `cuda_interface` (synfer_rt/bundle/cuda.py). `target` refers to
    the weights of `source` where they lie, so both files belong together. Raises UserError, naming
    the node, if something is left that ONNX Runtime would compute slowly or on the CPU.
    """
    model = ir.load(source)
    model.graph.opset_imports[MICROSOFT] = 1
    fix_shapes(model)
    if not is_guide(name):
        fuse_attention(model)
        fuse_group_norm(model)
        compute_half(model)
    give_device_interface(model, name)
    save_by_reference(model, source, target)
