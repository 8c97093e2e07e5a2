"""Every layer of both models is found under each name that programs give it in LoRA files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import torch

from synfer_rt.export.checkpoint.contents import Checkpoint
from synfer_rt.export.checkpoint.reading import read_checkpoint
from tests.export.files.lora.test_merge import (
    Q,
    check,
    copied,
    kohya,
    matrices,
    merge,
    product,
)


def matrix_layers(checkpoint: Checkpoint) -> list[str]:
    """Every linear layer and convolution, by part.name."""
    models = {"unet": checkpoint.unet, "text_encoder": checkpoint.text_encoder}
    return [
        f"{part}.{name.removeprefix('text_model.')}"
        for part, model in models.items()
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))
    ]


def diffusers_old(name: str) -> str:
    return name.replace("text_encoder.", "text_encoder.text_model.")


NAMES: dict[str, tuple[Callable[[str], str], str, str]] = {
    "kohya": (kohya, ".lora_down.weight", ".lora_up.weight"),
    "kohya, te1": (
        lambda name: kohya(name).replace("lora_te_", "lora_te1_"),
        ".lora_down.weight",
        ".lora_up.weight",
    ),
    "diffusers": (lambda name: name, ".lora_A.weight", ".lora_B.weight"),
    "diffusers, text_model": (diffusers_old, ".lora_A.weight", ".lora_B.weight"),
    "diffusers, older": (diffusers_old, ".lora.down.weight", ".lora.up.weight"),
    "diffusers, linear": (
        diffusers_old,
        ".lora_linear_layer.down.weight",
        ".lora_linear_layer.up.weight",
    ),
    "comfy": (
        lambda name: name.replace("unet.", "diffusion_model.", 1).replace(
            "text_encoder.", "text_encoders.clip_l.transformer.text_model.", 1
        ),
        ".lora_A.weight",
        ".lora_B.weight",
    ),
    "wrapped": (
        lambda name: f"module.{name.replace('.', '._orig_mod.', 1)}",
        ".lora_A.weight",
        ".lora_B.weight",
    ),
}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("second", [False, True], ids=["sd1", "sd2"])
def test_every_layer_has_a_place_under_every_kind_of_name(
    plain_checkpoint: Path, sd2_checkpoint: Path, tmp_path: Path, names: str, second: bool
) -> None:
    """Projections, feed-forward, residual blocks, time embedding, first and last convolution."""
    checkpoint = read_checkpoint(sd2_checkpoint if second else plain_checkpoint)
    called, down_end, up_end = NAMES[names]
    before, file, changes = copied(checkpoint), {}, {}
    for i, name in enumerate(matrix_layers(checkpoint)):
        rank, alpha = 1 + i % 3, (1.0, 2.5, None)[i % 3]
        down, up = matrices(before[f"{name}.weight"].shape, rank, i)
        key = called(name)
        file |= {f"{key}{down_end}": down, f"{key}{up_end}": up}
        if alpha is not None:
            file[f"{key}.alpha"] = torch.tensor([alpha] if i % 2 else alpha)
        changes[name] = (1 if alpha is None else alpha / rank) * product(up, down)
    assert len(changes) > 25
    merge(checkpoint, tmp_path / "lora.safetensors", file)
    check(checkpoint, before, changes)


def test_processors_of_attention_are_layers(plain_checkpoint: Path, tmp_path: Path) -> None:
    """The names of diffusers while a LoRA was an attention processor."""
    checkpoint = read_checkpoint(plain_checkpoint)
    before, file, changes = copied(checkpoint), {}, {}
    of_unet = {x: f"unet.{Q.replace('to_q', x)}" for x in ("to_q", "to_k", "to_v", "to_out.0")}
    of_text = {
        x: f"text_encoder.encoder.layers.0.self_attn.{y}"
        for x, y in {"to_q": "q_proj", "to_v": "v_proj", "to_out": "out_proj"}.items()
    }
    for i, (old, name) in enumerate([*of_unet.items(), *of_text.items()]):
        down, up = matrices(before[f"{name}.weight"].shape, 2, i)
        place = name.rpartition(".to_" if i < 4 else ".")[0]
        middle = ".processor" if i < 4 else ""
        key = f"{place}{middle}.{old.removesuffix('.0')}_lora"
        file |= {f"{key}.down.weight": down, f"{key}.up.weight": up}
        file[f"{key}.alpha"] = torch.tensor(3)
        changes[name] = 3 / 2 * product(up, down)
    merge(checkpoint, tmp_path / "old.safetensors", file)
    check(checkpoint, before, changes)


ORIGINAL = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "down_blocks.0.resnets.0.time_emb_proj": "input_blocks.1.0.emb_layers.1",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v": (
        "input_blocks.1.1.transformer_blocks.0.attn2.to_v"
    ),
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0.conv_shortcut": "input_blocks.3.0.skip_connection",
    "mid_block.attentions.0.proj_out": "middle_block.1.proj_out",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.1.conv",
    "up_blocks.1.attentions.1.transformer_blocks.0.ff.net.0.proj": (
        "output_blocks.3.1.transformer_blocks.0.ff.net.0.proj"
    ),
    "conv_out": "out.2",
}


@pytest.mark.parametrize("dotted", [True, False], ids=["comfy", "kohya"])
def test_names_of_the_original_code_are_read(
    sd2_checkpoint: Path, tmp_path: Path, dotted: bool
) -> None:
    """Of a UNet of two levels with one block each; wider ones are in test_ldm_names.py."""
    checkpoint = read_checkpoint(sd2_checkpoint)
    before, file, changes = copied(checkpoint), {}, {}
    for i, (name, original) in enumerate(ORIGINAL.items()):
        down, up = matrices(before[f"unet.{name}.weight"].shape, 2, i)
        key = f"lora_unet_{original.replace('.', '_')}"
        key = f"diffusion_model.{original}" if dotted else key
        file |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
        file[f"{key}.alpha"] = torch.tensor(float(i))
        changes[f"unet.{name}"] = i / 2 * product(up, down)
    merge(checkpoint, tmp_path / "original.safetensors", file)
    check(checkpoint, before, changes)
