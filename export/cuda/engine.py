"""A built engine -> the graph of it that ONNX Runtime's CUDA provider runs fast."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import IdentityEliminationPass, LiftConstantsToInitializersPass

from synfer_rt.bundle.engine_specs import DENOISERS
from synfer_rt.export.cuda.attention import fuse_attention
from synfer_rt.export.cuda.batch_norm import spell_out_batch_norm
from synfer_rt.export.cuda.chain import MICROSOFT
from synfer_rt.export.cuda.device_interface import give_device_interface
from synfer_rt.export.cuda.first_token import select_by_product
from synfer_rt.export.cuda.float16 import compute_half
from synfer_rt.export.cuda.gates import check_fusions, check_kernels
from synfer_rt.export.cuda.group_norm import fuse_group_norm
from synfer_rt.export.cuda.left_products import turn_left_products
from synfer_rt.export.cuda.lengths import count_on_device
from synfer_rt.export.cuda.packing import join_projections, split_slices
from synfer_rt.export.cuda.shapes import fix_shapes, infer_named_shapes
from synfer_rt.export.cuda.transformer import fuse_transformer
from synfer_rt.export.cuda.weights import save_by_reference
from synfer_rt.export.tensorrt.mixed_precision import spell_out_solver

OWN_ENGINES = frozenset({"conditioner", *DENOISERS, "decoder", "encoder", "feranno"})
"""The engines whose every attention and group norm must be fused.

Guides are gradients, and the other networks are the user's.
"""

_FUSIONS = (fuse_group_norm, fuse_transformer, spell_out_batch_norm, select_by_product)


def is_guide(name: str) -> bool:
    """Whether the engine `name` is a guide: gradients are smaller than float16 can hold."""
    return name.startswith("guide.")


def cuda_engine(source: Path, target: Path, name: str, precision: str | None = None) -> None:
    """Write the engine `name`, whose file is `source`, for CUDA to `target` in the same folder.

    Inputs and outputs are float32 and have the names of `source`, but for those that
    `give_device_interface` changes. `target` refers to the weights of `source` where they lie, so
    both files belong together. Raises UserError, naming the node, if something is left that ONNX
    Runtime would compute slowly or on the CPU.

    `precision`, "fp16" or "fp32", is what it computes in; None means fp32 for guides, else fp16.
    """
    half = not is_guide(name) if precision is None else precision == "fp16"
    model = ir.load(source)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    IdentityEliminationPass()(model)
    model.graph.opset_imports[MICROSOFT] = 1
    infer_named_shapes(model)
    if not is_guide(name):
        fuse_attention(model)  # takes the sizes with it that are computed inside
    count_on_device(model)
    fix_shapes(model)
    if not is_guide(name):
        for fuse in _FUSIONS:
            fuse(model)
    spell_out_solver(model.graph)
    turn_left_products(model)
    if name in OWN_ENGINES:
        check_fusions(model, name)
    if half:
        compute_half(model)
    split_slices(model)
    if not is_guide(name):
        join_projections(model)
    give_device_interface(model, name)
    check_kernels(model, name)
    save_by_reference(model, source, target)
