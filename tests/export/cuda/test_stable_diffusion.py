"""The CUDA engine of a denoiser with the blocks of Stable Diffusion 1.5, of few channels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import diffusers
import onnx
import torch

from synfer_rt.export.cuda.engine import cuda_engine
from synfer_rt.export.networks.modules import Denoiser
from synfer_rt.export.networks.one_branch import ConditionalDenoiser
from synfer_rt.export.onnx.forward_graph import export_onnx

MOST_NODES = 850


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["denoiser", "denoiser.conditional"])
def test_it_is_fused_in_few_nodes(tmp_path: Path, engine: str) -> None:
    """ONNX Runtime removes the transposes between channels last, and casts of weights."""
    source, target = tmp_path / f"{engine}.onnx", tmp_path / f"{engine}.cuda.onnx"
    unet: Any = diffusers.UNet2DConditionModel(
        sample_size=8,
        cross_attention_dim=16,
        attention_head_dim=8,
        block_out_channels=(64, 64, 128, 128),
    )
    given = {
        "latents": torch.randn(2, 4, 8, 8),
        "history": torch.randn(2, 3, 4, 8, 8),
        "timestep": torch.tensor(499.0),
        "guidance": torch.full((2,), 7.5),
        "coefficients": torch.randn(4, 5),
        "text": torch.randn(2, 2, 20, 16),
    }
    outputs = ("next_latents", "next_history", "prediction")
    static = frozenset({"timestep", "coefficients"})
    denoiser: Any = Denoiser(unet, ("text",))
    if engine == "denoiser.conditional":
        denoiser = ConditionalDenoiser(denoiser)
        del given["guidance"]
    export_onnx(denoiser.eval(), given, outputs, static, source, "fp16")
    cuda_engine(source, target, engine)
    graph = onnx.load(target, load_external_data=False).graph
    found = Counter(node.op_type for node in graph.node)
    assert found["MultiHeadAttention"] == 32
    assert found["GroupNorm"] + found["SkipGroupNorm"] == 61
    assert found["SkipLayerNormalization"] == 32
    assert found.total() - found["Transpose"] - found["Cast"] <= MOST_NODES
