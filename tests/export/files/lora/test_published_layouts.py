"""LoRAs of few-step models merge as diffusers loads them: names, ranks and alphas as published.

lcm-lora-sdv1-5, TCD-SD15-LoRA and Hyper-SD's have kohya's names for every attention, feed-forward,
residual, projection and resampling layer of the UNet, rank 64 and alpha 8 for each; with these
names and shapes for Stable Diffusion 1.5, a file is as long as the published one to the byte. The
first two are float16 with `format: pt` in the header, Hyper-SD's are float32 without metadata.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import diffusers
import torch
from safetensors.torch import save_file

from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.files.lora.merge import Lora, merge_lora
from tests.export.tiny_checkpoint import make_sd

RANK, ALPHA = 64, 8
ENDS = (
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv"),
    "upsamplers.0.conv",
)
"""The layers that the training script of LCM-LoRA changes, by the end of their names."""
FILES = {"lcm": (torch.float16, {"format": "pt"}), "hyper-sd": (torch.float32, None)}
PUBLISHED_BYTES = {"lcm": 134_621_556, "hyper-sd": 269_127_064}


def shapes(unet: Any) -> dict[str, list[int]]:
    """Every tensor of such a file for `unet`, by kohya's names."""
    found: dict[str, list[int]] = {}
    for name, layer in unet.named_modules():
        if name.endswith(tuple(f".{end}" for end in ENDS)):
            out, into, *kernel = layer.weight.shape
            key = f"lora_unet_{name.replace('.', '_')}"
            found[f"{key}.lora_down.weight"] = [RANK, into, *kernel]
            found[f"{key}.lora_up.weight"] = [out, RANK, *[1 for _ in kernel]]
            found[f"{key}.alpha"] = []
    return found


def length(kind: str, tensors: dict[str, list[int]]) -> int:
    """The bytes of a safetensors file: the header, filled up to a multiple of 8, then the data."""
    dtype, metadata = FILES[kind]
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name in sorted(tensors):
        start, end = end, end + math.prod(tensors[name]) * dtype.itemsize
        kept = {"dtype": f"F{8 * dtype.itemsize}", "shape": tensors[name]}
        header[name] = kept | {"data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"))
    return 8 + math.ceil(len(text) / 8) * 8 + end


@pytest.mark.parametrize("kind", FILES)
def test_the_layout_is_that_of_the_published_files(kind: str) -> None:
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(cross_attention_dim=768)
    assert length(kind, shapes(unet)) == PUBLISHED_BYTES[kind]


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("scale", [1.0, 0.8])
def test_it_merges_as_diffusers_fuses_it(kind: str, scale: float, tmp_path: Path) -> None:
    make_sd(tmp_path / "model", adapter=False)
    read = read_checkpoint(tmp_path / "model")
    wide = diffusers.UNet2DConditionModel(  # with every kind of layer that the file changes
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    dtype, metadata = FILES[kind]
    file, draw = shapes(wide), torch.Generator().manual_seed(3)
    assert all(any(f"{end.replace('.', '_')}.alpha" in name for name in file) for end in ENDS)
    tensors = {
        name: (0.05 * torch.randn(shape, generator=draw) if shape else torch.tensor(float(ALPHA)))
        for name, shape in file.items()
    }
    path = tmp_path / "pytorch_lora_weights.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, path, metadata)

    before = {name: tensor.clone() for name, tensor in wide.state_dict().items()}
    pipeline: Any = diffusers.StableDiffusionPipeline.from_pretrained(
        tmp_path / "model", unet=wide, safety_checker=None, feature_extractor=None
    )
    pipeline.load_lora_weights(path)
    pipeline.fuse_lora(lora_scale=scale)
    pipeline.unload_lora_weights()
    wanted = {name: tensor.clone() for name, tensor in wide.state_dict().items()}
    changed = [name for name in before if not torch.equal(before[name], wanted[name])]
    assert len(changed) == len(file) // 3
    wide.load_state_dict(before)
    merge_lora(Lora(path, scale), wide, read.text_encoder)
    for name, tensor in wide.state_dict().items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-5, atol=1e-6)
