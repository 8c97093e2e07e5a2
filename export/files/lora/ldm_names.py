"""The names of a UNet's layers in Stable Diffusion's original code, which ComfyUI uses.

There the UNet is three lists: `input_blocks` (the first convolution, then one entry for each
residual block, with its transformer if it has one, or downsampler), `middle_block` and
`output_blocks`. See `openaimodel.py` of https://github.com/CompVis/stable-diffusion.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "class_embedding.linear_1": "label_emb.0.0",
    "class_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_OF_A_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def ldm_names(unet: Any) -> dict[str, str]:
    """The original names of the modules of a diffusers UNet, by their names in diffusers.

    Modules inside transformers have the same names in both.
    """
    modules = [name for name, _ in unet.named_modules()]
    names = {name: _OUTSIDE[name] for name in modules if name in _OUTSIDE}
    for own, original in _blocks(unet):
        for name in modules:
            if name == own:
                names[name] = original
            elif name.startswith(f"{own}."):
                inner = name.removeprefix(f"{own}.")
                names[name] = f"{original}.{_OF_A_RESNET.get(inner, inner)}"
    return names


def _blocks(unet: Any) -> Iterator[tuple[str, str]]:
    """Every residual block, transformer and resampler: its name and its original name."""
    entry = 0
    for i, block in enumerate(unet.down_blocks):
        for j in range(len(block.resnets)):
            entry += 1
            yield f"down_blocks.{i}.resnets.{j}", f"input_blocks.{entry}.0"
            yield f"down_blocks.{i}.attentions.{j}", f"input_blocks.{entry}.1"
        if block.downsamplers:
            entry += 1
            yield f"down_blocks.{i}.downsamplers.0.conv", f"input_blocks.{entry}.0.op"
    yield "mid_block.resnets.0", "middle_block.0"
    yield "mid_block.attentions.0", "middle_block.1"
    yield "mid_block.resnets.1", "middle_block.2"
    entry = -1
    for i, block in enumerate(unet.up_blocks):
        for j in range(len(block.resnets)):
            entry += 1
            yield f"up_blocks.{i}.resnets.{j}", f"output_blocks.{entry}.0"
            yield f"up_blocks.{i}.attentions.{j}", f"output_blocks.{entry}.1"
        place = 2 if getattr(block, "attentions", None) else 1
        if block.upsamplers:
            yield f"up_blocks.{i}.upsamplers.0.conv", f"output_blocks.{entry}.{place}.conv"
