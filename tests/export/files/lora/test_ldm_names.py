"""Layers of Stable Diffusion 1.5 and 2.1 under the names of the original code."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import diffusers
import torch

from synfer_rt.export.files.lora.ldm_names import ldm_names

# The keys of v1-5-pruned-emaonly.ckpt, without model.diffusion_model., by those of diffusers.
SD15 = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_2": "time_embed.2",
    "down_blocks.0.resnets.0.conv1": "input_blocks.1.0.in_layers.2",
    "down_blocks.0.attentions.0.proj_in": "input_blocks.1.1.proj_in",
    "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k": (
        "input_blocks.2.1.transformer_blocks.0.attn2.to_k"
    ),
    "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
    "down_blocks.1.resnets.0.conv_shortcut": "input_blocks.4.0.skip_connection",
    "down_blocks.2.attentions.1.transformer_blocks.0.ff.net.0.proj": (
        "input_blocks.8.1.transformer_blocks.0.ff.net.0.proj"
    ),
    "down_blocks.3.resnets.1.time_emb_proj": "input_blocks.11.0.emb_layers.1",
    "mid_block.resnets.1.conv2": "middle_block.2.out_layers.3",
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0": (
        "middle_block.1.transformer_blocks.0.attn1.to_out.0"
    ),
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.1.conv",
    "up_blocks.1.attentions.0.norm": "output_blocks.3.1.norm",
    "up_blocks.1.upsamplers.0.conv": "output_blocks.5.2.conv",
    "up_blocks.2.resnets.2.norm2": "output_blocks.8.0.out_layers.0",
    "up_blocks.3.attentions.2.proj_out": "output_blocks.11.1.proj_out",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def test_names_are_those_of_the_published_checkpoint() -> None:
    with torch.device("meta"):  # its default sizes are those of Stable Diffusion 1
        unet = diffusers.UNet2DConditionModel()
    names = ldm_names(unet)
    assert {own: names[own] for own in SD15} == SD15
    with_weights = [n for n, m in unet.named_modules() if getattr(m, "weight", None) is not None]
    assert len({names[name] for name in with_weights}) == len(with_weights) == 391
