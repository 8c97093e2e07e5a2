"""A second graph of an engine without a second copy of its weights.

ONNX may keep a tensor at an offset of any file beside the model. The weights of a CUDA engine lie
where the engine has them: in its `.data` or another's, or within the engine's own file.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

LEAST_BYTES = 1024
"""Smaller tensors are stored again."""


def save_by_reference(model: ir.Model, source: Path, target: Path) -> None:
    """Write `model` to `target`, beside `source`, from which its large weights come.

    A weight that `source` has inline is found by its bytes, so what is read there is right whatever
    surrounds it.
    """
    content = source.read_bytes()
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.nbytes < LEAST_BYTES or isinstance(tensor, ir.ExternalTensor):
            continue
        wanted = tensor.tobytes()
        offset = content.find(wanted)
        if offset < 0:
            continue
        value.const_value = ir.ExternalTensor(
            source.name,
            offset,
            len(wanted),
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=value.name or "",
            base_dir=source.parent,
        )
    part = target.with_name(f".{target.name}.part")
    ir.save(model, part)
    part.replace(target)
