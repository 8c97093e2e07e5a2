"""Weights that training tools saved under other names are read, or refused with what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import torch
from safetensors.torch import load_file, save_file

from synfer_rt.export.checkpoint.reading import read_checkpoint
from tests.export.tiny_checkpoint import refusal

FILES = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}


@pytest.mark.parametrize("part", FILES)
@pytest.mark.parametrize(
    "wrapped",
    ["_orig_mod.{}", "module.{}", "module._orig_mod.{}", "_fsdp_wrapped_module.{}"],
)
def test_names_of_torchs_wrappers_are_taken_off(sd: Path, part: str, wrapped: str) -> None:
    wanted = getattr(read_checkpoint(sd), part).state_dict()
    file = sd / FILES[part]
    save_file({wrapped.format(n): t for n, t in load_file(file).items()}, file, {"format": "pt"})
    found = getattr(read_checkpoint(sd), part).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_block_that_was_compiled_alone_is_read(sd: Path) -> None:
    """From a torch file, in half precision, and beside blocks of plain names."""
    file = sd / FILES["unet"]
    tensors = {
        name.replace("mid_block.", "mid_block._orig_mod.", 1): tensor.half()
        for name, tensor in load_file(file).items()
    }
    assert any("_orig_mod" in name for name in tensors)
    wanted = {name: t.half().float() for name, t in load_file(file).items()}
    file.unlink()
    torch.save(tensors, file.with_suffix(".bin"))
    found = read_checkpoint(sd).unet.state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_wrapped_weights_in_several_files_are_read(sd: Path) -> None:
    wanted = read_checkpoint(sd).unet
    (sd / FILES["unet"]).unlink()
    wanted.save_pretrained(sd / "unet", max_shard_size="100KB")
    index = sd / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = {f"_orig_mod.{n}": f for n, f in content["weight_map"].items()}
    index.write_text(json.dumps(content))
    files = sorted((sd / "unet").glob("*.safetensors"))
    assert len(files) > 1
    for file in files:
        tensors = {f"_orig_mod.{name}": tensor for name, tensor in load_file(file).items()}
        save_file(tensors, file, {"format": "pt"})
    found = read_checkpoint(sd).unet.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.state_dict().items())


def test_what_lacks_weights_under_wrapped_names_too_is_refused(sd: Path) -> None:
    file = sd / FILES["unet"]
    tensors = {f"_orig_mod.{name}": tensor for name, tensor in load_file(file).items()}
    del tensors["_orig_mod.conv_in.weight"]
    save_file(tensors, file, {"format": "pt"})
    message = refusal(sd)
    assert f"{sd / 'unet'} has missing keys" in message and "conv_in.weight" in message


@pytest.mark.parametrize(
    ("part", "layer"),
    [
        ("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"),
        ("vae", "encoder.mid_block.attentions.0.to_q"),
        ("text_encoder", "encoder.layers.0.self_attn.q_proj"),
    ],
)
@pytest.mark.parametrize("wrapper", ["", "_orig_mod."])
def test_a_model_that_was_saved_with_a_lora_loaded_is_refused_with_the_way_out(
    sd: Path, part: str, layer: str, wrapper: str
) -> None:
    file, tensors = sd / FILES[part], {}
    for name, tensor in load_file(file).items():
        if name.removeprefix("text_model.").startswith(f"{layer}."):
            before, _, end = name.rpartition(".")
            tensors[f"{before}.base_layer.{end}"] = tensor
            if tensor.ndim == 2:
                tensors[f"{before}.lora_A.default.weight"] = torch.rand(2, tensor.shape[1])
                tensors[f"{before}.lora_B.default.weight"] = torch.rand(len(tensor), 2)
        else:
            tensors[name] = tensor
    assert len(tensors) >= len(load_file(file)) + 2
    named = {f"{wrapper}{name}": tensor for name, tensor in tensors.items()}
    save_file(named, file, {"format": "pt"})
    message = refusal(sd)
    assert f"{sd / part} was saved while a LoRA was loaded" in message
    assert "unload_lora_weights() to give the LoRA as `lora`, or fuse_lora()" in message


@pytest.mark.parametrize("part", FILES)
def test_settings_of_a_lora_beside_the_weights_are_refused(sd: Path, part: str) -> None:
    """transformers saves a model with a LoRA as that LoRA alone, and loads one that it finds."""
    settings = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}
    (sd / part / "adapter_config.json").write_text(json.dumps(settings))
    assert "was saved while a LoRA was loaded (it holds adapter_config.json)" in refusal(sd)
