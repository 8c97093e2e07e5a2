"""A checkpoint is read with all that it says of itself; a wrong one is refused in a sentence."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import torch
from safetensors.torch import load_file, save_file

from synfer_rt.bundle.sizes import Sizes
from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.files.lora.merge import Lora
from tests.export.tiny_checkpoint import (
    change,
    make_sd2,
    refusal,
    save_adapter,
    save_fineface,
    save_lora,
)


def add(path: Path, *names: str) -> None:
    """More weights in a file."""
    save_file(load_file(path) | {name: torch.rand(2) for name in names}, path, {"format": "pt"})


def test_the_schedule_is_the_schedulers_own(mini_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(mini_checkpoint)
    assert checkpoint.prediction_type == "v_prediction"
    assert checkpoint.schedule["rescale_zero_terminal_snr"] is True
    assert checkpoint.schedule["timestep_spacing"] == "trailing"
    assert checkpoint.schedule["steps_offset"] == 0
    assert checkpoint.schedule["beta_schedule"] == "linear"


def test_without_an_adapter_there_are_no_aus(plain_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(plain_checkpoint)
    assert checkpoint.adapter is None and checkpoint.units == 0


@pytest.mark.parametrize("name", ["au_adapter.bin", "au_adapter.ckpt"])
def test_an_adapter_may_be_a_torch_file(sd: Path, name: str) -> None:
    torch.save(load_file(sd / "au_adapter.safetensors"), sd / name)
    (sd / "au_adapter.safetensors").unlink()
    checkpoint = read_checkpoint(sd)
    assert checkpoint.units == 41 and sd / name in checkpoint.weight_files


def test_an_adapter_may_be_a_directory(tmp_path: Path) -> None:
    make_sd2(tmp_path / "sd2")
    save_fineface(read_checkpoint(tmp_path / "sd2").unet, tmp_path / "sd2" / "au_adapter")
    assert read_checkpoint(tmp_path / "sd2").settings.au_vocabulary == "disfa-12"


def test_an_adapter_given_apart_is_used(plain_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_adapter(read_checkpoint(plain_checkpoint).unet, path)
    checkpoint = read_checkpoint(plain_checkpoint, path)
    assert checkpoint.units == 41 and path in checkpoint.weight_files


def test_stable_diffusion_2_is_read_without_its_safety_checker(tmp_path: Path) -> None:
    make_sd2(tmp_path / "sd2")
    checkpoint = read_checkpoint(tmp_path / "sd2")
    assert checkpoint.prediction_type == "v_prediction"
    assert checkpoint.unet.config.use_linear_projection
    assert checkpoint.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.heads == 2
    assert checkpoint.unet.mid_block.attentions[0].transformer_blocks[0].attn2.heads == 4
    assert checkpoint.text_encoder.config.hidden_act == "gelu"
    assert checkpoint.tokenizer.pad_token == "!"


def test_a_lora_is_merged_at_its_scale_and_is_a_source(
    plain_checkpoint: Path, tmp_path: Path
) -> None:
    path = save_lora(tmp_path, unet=read_checkpoint(plain_checkpoint).unet)
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    once, twice, never = (
        read_checkpoint(plain_checkpoint, loras=loras).unet.get_submodule(name).weight
        for loras in ([Lora(path, 2.0)], [Lora(path), Lora(path)], [])
    )
    torch.testing.assert_close(once, twice)
    assert not torch.equal(once, never)
    assert path in read_checkpoint(plain_checkpoint, loras=[Lora(path)]).weight_files
    settings = tmp_path / "adapter_config.json"  # of PEFT, with alphas: other ones, other engines
    settings.write_text("{}")
    assert settings in read_checkpoint(plain_checkpoint, loras=[Lora(path)]).weight_files


def test_the_lora_of_an_adapter_keeps_the_alpha_of_its_header(tmp_path: Path) -> None:
    make_sd2(tmp_path / "sd2")
    plain = read_checkpoint(tmp_path / "sd2").unet
    save_fineface(plain, tmp_path / "fineface")
    path = save_lora(tmp_path / "fineface", alpha=6, unet=plain)
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    down, up = (load_file(path)[f"unet.{name}.lora_{x}.weight"] for x in "AB")
    merged = read_checkpoint(tmp_path / "sd2", tmp_path / "fineface").unet
    wanted = plain.get_submodule(name).weight + 6 / 2 * up @ down
    torch.testing.assert_close(merged.get_submodule(name).weight, wanted)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("kind", ["bin", "fp16.safetensors", "fp16.bin", "bf16.safetensors"])
def test_torch_files_and_half_precision_variants_are_read(sd: Path, part: str, kind: str) -> None:
    path = next((sd / part).glob("*.safetensors"))
    before = getattr(read_checkpoint(sd), part).state_dict()
    tensors = load_file(path)
    path.unlink()
    if "16" in kind:
        half = torch.bfloat16 if "bf16" in kind else torch.float16
        tensors = {name: tensor.to(half) for name, tensor in tensors.items()}
    if kind.endswith("bin"):
        stem = "pytorch_model" if part == "text_encoder" else path.stem
        torch.save(tensors, path.parent / f"{stem}.{kind}")
    else:
        save_file(tensors, path.with_suffix(f".{kind}"), {"format": "pt"})
    checkpoint = read_checkpoint(sd)
    for name, tensor in getattr(checkpoint, part).state_dict().items():
        off = 1e-2 if "bf16" in kind else 1e-3
        torch.testing.assert_close(tensor, before[name], atol=off, rtol=off)
    assert {file.parent.name for file in checkpoint.weight_files} > {"unet", "vae"}


def test_full_precision_is_preferred_and_other_variants_are_left_alone(sd: Path) -> None:
    path = sd / "unet" / "diffusion_pytorch_model.safetensors"
    for name in ("fp16", "non_ema"):
        path.with_suffix(f".{name}.safetensors").write_bytes(b"never read")
    files = [file for file in read_checkpoint(sd).weight_files if file.parent.name == "unet"]
    assert files == [path]


def test_other_variants_alone_are_refused_by_name(sd: Path) -> None:
    path = sd / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".non_ema.safetensors"))
    assert "has only the variants non_ema of its weights; rename" in refusal(sd)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("mid_block.nonsense.weight", "remove them, or correct its config.json"),
        ("mid_block.attn2.processor.to_k_ip.weight", "an AU adapter belongs in au_adapter."),
        ("mid_block.attn2.processor.au_to_k.weight", "an AU adapter belongs in au_adapter."),
        ("mid_block.attn2.to_q.lora_A.weight", "a LoRA in a file for `lora`"),
    ],
)
def test_weights_without_a_place_in_the_unet_are_refused(sd: Path, name: str, remedy: str) -> None:
    add(sd / "unet" / "diffusion_pytorch_model.safetensors", name)
    message = refusal(sd)
    assert (
        f"unexpected keys for its UNet2DConditionModel (1), such as {name};" in message
        and remedy in message
    )


def test_a_whole_clip_may_stand_in_for_the_text_encoder(sd: Path) -> None:
    path = sd / "text_encoder" / "model.safetensors"
    add(path, "vision_model.post_layernorm.weight", "text_projection.weight", "logit_scale")
    read_checkpoint(sd)
    add(path, "text_model.encoder.layers.9.mlp.fc1.weight")
    assert "unexpected keys for its CLIPTextModel (1), such as encoder.layers.9" in refusal(sd)


def test_a_pickle_with_code_in_it_is_not_run(sd: Path, tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    path = sd / "unet" / "diffusion_pytorch_model.safetensors"
    path.unlink()
    torch.save({"conv_in.weight": Code()}, path.with_suffix(".bin"))
    assert "unet cannot be loaded" in refusal(sd)
    assert not (tmp_path / "ran").exists()


def test_code_beside_a_tokenizer_is_not_run(
    sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    code = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
    (sd / "tokenizer" / "own.py").write_text(code)
    config = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
    (sd / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(config))
    assert "holds no tokenizer" in refusal(sd)
    assert not (tmp_path / "ran").exists()


def test_attention_of_the_first_vaes_is_read(sd: Path) -> None:
    path = sd / "vae" / "diffusion_pytorch_model.safetensors"
    before = read_checkpoint(sd).vae.state_dict()
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(path)
    for new, old in names.items():
        tensors = {name.replace(f".{new}.", f".{old}."): t for name, t in tensors.items()}
    assert any(".proj_attn." in name for name in tensors)
    save_file(tensors, path, {"format": "pt"})
    after = read_checkpoint(sd).vae.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_resolution_sets_the_latents_and_leaves_layouts_behind(mini_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(mini_checkpoint, resolution=(24, 32))
    assert checkpoint.latent_shape == (4, 12, 16) and checkpoint.image_size == (24, 32)
    assert checkpoint.layouts is None and checkpoint.settings.defaults["layout"] == "none"
    checkpoint = read_checkpoint(mini_checkpoint, resolution=(16, 16))
    assert checkpoint.layouts is not None and checkpoint.settings.defaults["layout"] == "bank"


def test_a_resolution_that_does_not_fit_is_refused_with_the_nearest(sd_checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"multiples of 4; the nearest is 20x4\."):
        read_checkpoint(sd_checkpoint, resolution=(21, 1))


def test_sizes_are_multiples_of_what_the_unet_halves(sd_checkpoint: Path) -> None:
    sizes = read_checkpoint(sd_checkpoint, sizes=(8, 24)).sizes
    assert sizes == Sizes(8, 24, 4) and read_checkpoint(sd_checkpoint).sizes is None


@pytest.mark.parametrize(
    ("sizes", "remedy"),
    [
        ((7, 24), r"different multiples of 4; write `sizes=\(8, 24\)`"),
        ((16, 17), r"write `sizes=\(16, 20\)`"),
        ((1, 2), r"write `sizes=\(4, 8\)`"),
        ((20, 32), "are 16x16, not of 20 to 32 pixels in steps of 4; widen `sizes`"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    sd_checkpoint: Path, sizes: tuple[int, int], remedy: str
) -> None:
    with pytest.raises(UserError, match=remedy):
        read_checkpoint(sd_checkpoint, sizes=sizes)


def test_the_first_diffusers_wrong_sample_size_is_put_right(sd: Path) -> None:
    change(sd / "unet" / "config.json", _diffusers_version="0.6.0", sample_size=32)
    assert read_checkpoint(sd).latent_shape == (4, 64, 64)
    change(sd / "unet" / "config.json", _diffusers_version="0.20.0")
    assert read_checkpoint(sd).latent_shape == (4, 32, 32)


def test_text_encoder_keys_of_older_transformers_are_read(sd: Path) -> None:
    path = sd / "text_encoder" / "model.safetensors"
    before = read_checkpoint(sd).text_encoder.state_dict()
    tensors = load_file(path)
    renamed = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in tensors.items()}
    renamed["text_model.embeddings.position_ids"] = torch.arange(20)[None]
    save_file(renamed, path, {"format": "pt"})
    after = read_checkpoint(sd).text_encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_missing_weight_is_refused_not_drawn_at_random(sd: Path, part: str) -> None:
    path = next((sd / part).glob("*.safetensors"))
    tensors = load_file(path)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, path, {"format": "pt"})
    assert re.search(r"has missing keys of its \w+ \(1\)", refusal(sd))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_cut_short_are_refused(sd: Path, part: str) -> None:
    path = next((sd / part).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:1000])
    assert f"{part} cannot be loaded" in refusal(sd)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_config_that_is_none_is_refused_without_asking_the_network(sd: Path, part: str) -> None:
    (sd / part / "config.json").write_text("[]")
    with pytest.raises(UserError, match=rf"{part}/config\.json does not hold a JSON object"):
        read_checkpoint(sd)


def test_a_directory_of_another_kind_is_refused(tmp_path: Path) -> None:
    assert "model_index.json cannot be read" in refusal(tmp_path)
    message = refusal(tmp_path / "nowhere")
    assert "There is no directory" in message and "hf download" in message
    (tmp_path / "sd.safetensors").touch()
    assert "from_single_file(" in refusal(tmp_path / "sd.safetensors")


@pytest.mark.parametrize("entry", [None, "UNet2DConditionModel", {"class": "UNet"}, ["diffusers"]])
def test_an_index_that_names_no_class_is_refused(sd: Path, entry: Any) -> None:
    change(sd / "model_index.json", unet=entry)
    assert "model_index.json names no class of unet" in refusal(sd)


def test_another_pipeline_is_refused_by_its_classes(sd: Path) -> None:
    change(sd / "model_index.json", unet=["diffusers", "FluxTransformer2DModel"])
    assert "FluxTransformer2DModel as unet" in refusal(sd)


def test_a_missing_part_is_refused(sd: Path) -> None:
    shutil.rmtree(sd / "vae")
    assert "no vae/" in refusal(sd)
