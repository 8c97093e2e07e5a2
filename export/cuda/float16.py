"""Engines that compute in float16 on CUDA, with their weights as they are stored."""

from __future__ import annotations

import onnx_ir as ir

from synfer_rt.export.cuda.weights import LEAST_BYTES
from synfer_rt.export.tensorrt.mixed_precision import halve

FUSED = {
    "AveragePool": (0,),
    "BiasAdd": None,
    "BiasSplitGelu": None,
    "GlobalAveragePool": (0,),
    "GroupNorm": (0,),
    "LayerNormalization": None,
    "MultiHeadAttention": None,
    "QuickGelu": None,
    "SkipGroupNorm": (0, 3, 4),
    "SkipLayerNormalization": None,
}
"""ONNX Runtime's kernels that read and write float16 and sum in float32.

GroupNorm takes its scale and its bias in float32.
"""


def compute_half(model: ir.Model) -> None:
    """Let `model` compute in float16 from its first to its last product, in place.

    Vectors are stored as float16. A matrix that is stored as float32 is cast in the graph, which
    the runtime does once, when it loads the engine.
    """
    halve(model, FUSED, lambda tensor: tensor.nbytes < LEAST_BYTES or len(tensor.shape) < 2)
