"""LoRAs are merged exactly as diffusers applies them; one that does not fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import diffusers
import torch
from safetensors.torch import load_file, save_file

from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint import Checkpoint, read_checkpoint
from synfer_rt.export.lora import Lora, merge_lora, parse_lora
from tests.export.tiny_checkpoint import save_lora

Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture
def checkpoint(plain_checkpoint: Path) -> Checkpoint:
    return read_checkpoint(plain_checkpoint)


@pytest.fixture
def lora(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    models = {"unet": checkpoint.unet, "text_encoder": checkpoint.text_encoder}
    return save_lora(tmp_path / "lora", alpha=8, **models)


def outputs(unet: Any, text_encoder: Any) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=draw)
    with torch.no_grad():
        text = text_encoder(torch.arange(40).view(2, 20)).last_hidden_state
        return [text, unet(latents, 300, text).sample]


def difference(a: list[torch.Tensor], b: list[torch.Tensor]) -> list[float]:
    return [float((x - y).abs().max()) for x, y in zip(a, b, strict=True)]


def weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return checkpoint.unet.state_dict() | checkpoint.text_encoder.state_dict()


@pytest.mark.parametrize("scale", [1.0, 0.5, -0.7])
def test_merging_equals_what_diffusers_applies_in_its_pipeline(
    checkpoint: Checkpoint, plain_checkpoint: Path, lora: Path, scale: float
) -> None:
    """With ranks, alphas from the file's metadata, convolutions and the text encoder."""
    before = outputs(checkpoint.unet, checkpoint.text_encoder)
    names = list(weights(checkpoint))
    merge_lora(Lora(lora, scale), checkpoint.unet, checkpoint.text_encoder)
    found = outputs(checkpoint.unet, checkpoint.text_encoder)
    assert list(weights(checkpoint)) == names
    pipeline: Any = diffusers.StableDiffusionPipeline.from_pretrained(
        plain_checkpoint, safety_checker=None, feature_extractor=None
    )
    pipeline.load_lora_weights(lora.parent, weight_name=lora.name, adapter_name="one")
    pipeline.set_adapters(["one"], [scale])
    wanted = outputs(pipeline.unet, pipeline.text_encoder)
    assert min(difference(wanted, before)) > 1e-2
    assert max(difference(wanted, found)) < 1e-4


def test_the_product_of_half_matrices_is_taken_in_float32(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    down, up = torch.randn(2, 16).half(), torch.randn(16, 2).half()
    path = tmp_path / "half.safetensors"
    save_file({f"unet.{Q}.lora_A.weight": down, f"unet.{Q}.lora_B.weight": up}, path)
    layer = checkpoint.unet.get_submodule(Q)
    wanted = layer.weight + up.float() @ down.float()
    merge_lora(Lora(path), checkpoint.unet, checkpoint.text_encoder)
    torch.testing.assert_close(checkpoint.unet.get_submodule(Q).weight, wanted)


def test_a_kohya_file_is_merged_with_its_alpha(checkpoint: Checkpoint, tmp_path: Path) -> None:
    down, up = torch.randn(2, 16), torch.randn(16, 2)
    name = f"lora_unet_{Q.replace('.', '_')}"
    tensors = {
        f"{name}.lora_down.weight": down,
        f"{name}.lora_up.weight": up,
        f"{name}.alpha": torch.tensor(1.0),
    }
    save_file(tensors, tmp_path / "kohya.safetensors")
    wanted = checkpoint.unet.get_submodule(Q).weight + 0.8 * (1 / 2) * up @ down
    lora = Lora(tmp_path / "kohya.safetensors", 0.8)
    merge_lora(lora, checkpoint.unet, checkpoint.text_encoder)
    torch.testing.assert_close(checkpoint.unet.get_submodule(Q).weight, wanted)


@pytest.mark.parametrize("names", [("lora_A", "lora_B"), ("lora.down", "lora.up")])
@pytest.mark.parametrize("prefix", ["", "unet."])
def test_a_torch_file_and_older_names_are_read(
    checkpoint: Checkpoint, tmp_path: Path, names: tuple[str, str], prefix: str
) -> None:
    down, up = torch.randn(2, 16), torch.randn(16, 2)
    file = {f"{prefix}{Q}.{names[0]}.weight": down, f"{prefix}{Q}.{names[1]}.weight": up}
    torch.save(file, tmp_path / "lora.bin")
    wanted = checkpoint.unet.get_submodule(Q).weight + up @ down
    merge_lora(Lora(tmp_path / "lora.bin"), checkpoint.unet, checkpoint.text_encoder)
    torch.testing.assert_close(checkpoint.unet.get_submodule(Q).weight, wanted)


def test_no_weight_is_copied_by_merging(checkpoint: Checkpoint, lora: Path) -> None:
    places = {name: tensor.data_ptr() for name, tensor in weights(checkpoint).items()}
    merge_lora(Lora(lora), checkpoint.unet, checkpoint.text_encoder)
    assert {name: tensor.data_ptr() for name, tensor in weights(checkpoint).items()} == places


def refusal(path: Path, checkpoint: Checkpoint) -> str:
    before = {name: tensor.clone() for name, tensor in weights(checkpoint).items()}
    with pytest.raises(UserError) as error:
        merge_lora(Lora(path), checkpoint.unet, checkpoint.text_encoder)
    after = weights(checkpoint)
    assert list(after) == list(before)
    assert all(torch.equal(before[name], after[name]) for name in before)
    return str(error.value)


def renamed(lora: Path, old: str, new: str) -> Path:
    save_file({name.replace(old, new): t for name, t in load_file(lora).items()}, lora)
    return lora


def test_a_lora_that_matches_nothing_is_refused(checkpoint: Checkpoint, lora: Path) -> None:
    tensors = {f"unet.{Q}9.lora_{x}.weight": torch.rand(2, 2) for x in "AB"}
    save_file(tensors, lora)
    assert "this checkpoint has none" in refusal(lora, checkpoint)


def test_a_lora_that_matches_in_part_is_refused(checkpoint: Checkpoint, lora: Path) -> None:
    message = refusal(renamed(lora, "unet.down_blocks", "unet.down"), checkpoint)
    assert "only " in message and "layers that the LoRA" in message


def test_a_lora_of_another_width_is_refused(checkpoint: Checkpoint, lora: Path) -> None:
    file = {
        f"unet.{Q}.lora_A.weight": torch.rand(2, 7),
        f"unet.{Q}.lora_B.weight": torch.rand(9, 2),
    }
    save_file(file, lora)
    assert "does not fit this checkpoint" in refusal(lora, checkpoint)


def test_a_file_that_is_no_lora_is_refused_with_its_keys(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    save_file({"conv.weight": torch.rand(2)}, tmp_path / "other.safetensors")
    message = refusal(tmp_path / "other.safetensors", checkpoint)
    assert "is no LoRA" in message and "conv.weight" in message


def test_a_missing_file_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    assert "--lora" in refusal(tmp_path / "none.safetensors", checkpoint)


def test_the_option_is_a_file_with_or_without_a_scale(tmp_path: Path) -> None:
    assert parse_lora("faces.safetensors") == Lora(Path("faces.safetensors"), 1.0)
    assert parse_lora("faces.safetensors:0.8") == Lora(Path("faces.safetensors"), 0.8)
    (tmp_path / "a:2").touch()
    assert parse_lora(str(tmp_path / "a:2")) == Lora(tmp_path / "a:2", 1.0)
    for wrong in ("faces:much", "faces:nan", "faces:inf"):
        with pytest.raises(UserError, match=r"write it as FILE or FILE:0\.8"):
            parse_lora(wrong)
