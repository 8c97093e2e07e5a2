"""LoRAs are merged exactly as diffusers applies them; one that does not fit is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import diffusers
import peft
import torch
from safetensors.torch import load_file, save_file

from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint import Checkpoint, read_checkpoint
from synfer_rt.export.lora import Lora, merge_lora, merge_tensors, parse_lora
from tests.export.tiny_checkpoint import save_lora

Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
KOHYA = f"lora_unet_{Q.replace('.', '_')}"


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


@pytest.fixture
def injected(checkpoint: Checkpoint) -> Any:
    """The checkpoint's UNet with a random LoRA of PEFT in it, its alpha not its rank."""
    unet = copy.deepcopy(checkpoint.unet)
    torch.manual_seed(3)
    config = peft.LoraConfig(
        r=2, lora_alpha=6, target_modules=["to_q", "conv1"], init_lora_weights=False
    )
    unet.add_adapter(config)
    return unet


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
    tensors = {
        f"{KOHYA}.lora_down.weight": down,
        f"{KOHYA}.lora_up.weight": up,
        f"{KOHYA}.alpha": torch.tensor(1.0),
    }
    save_file(tensors, tmp_path / "kohya.safetensors")
    wanted = checkpoint.unet.get_submodule(Q).weight + 0.8 * (1 / 2) * up @ down
    lora = Lora(tmp_path / "kohya.safetensors", 0.8)
    merge_lora(lora, checkpoint.unet, checkpoint.text_encoder)
    torch.testing.assert_close(checkpoint.unet.get_submodule(Q).weight, wanted)


def test_a_lora_that_diffusers_saved_from_the_unet_alone_keeps_its_alpha(
    checkpoint: Checkpoint, injected: Any, tmp_path: Path
) -> None:
    injected.save_lora_adapter(tmp_path)
    merge_lora(
        Lora(tmp_path / "pytorch_lora_weights.safetensors"),
        checkpoint.unet,
        checkpoint.text_encoder,
    )
    wanted = outputs(injected, checkpoint.text_encoder)
    found = outputs(checkpoint.unet, checkpoint.text_encoder)
    assert max(difference(wanted, found)) < 1e-4


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_lora_that_peft_saved_keeps_the_alpha_of_its_config(
    checkpoint: Checkpoint, tmp_path: Path, part: str
) -> None:
    models = {"unet": checkpoint.unet, "text_encoder": checkpoint.text_encoder}
    trained = {name: copy.deepcopy(model) for name, model in models.items()}
    config = peft.LoraConfig(
        r=2,
        lora_alpha=6,
        target_modules=["to_q", "conv1"] if part == "unet" else ["q_proj"],
        init_lora_weights=False,
    )
    trained[part] = peft.get_peft_model(trained[part], config)
    trained[part].save_pretrained(tmp_path)
    before, wanted = outputs(**models), outputs(**trained)
    merge_lora(Lora(tmp_path / "adapter_model.safetensors"), **models)
    assert max(difference(wanted, before)) > 1e-2
    assert max(difference(wanted, outputs(**models))) < 1e-4


def test_a_lora_of_peft_without_its_config_is_refused(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "adapter_model.safetensors"
    for prefix in ("module.base_model.model", "base_model.model"):
        tensors = {f"{prefix}.{Q}.lora_{x}.weight": torch.rand(2, 2) for x in "AB"}
        save_file(tensors, path)
        assert "adapter_config.json cannot be read" in refusal(path, checkpoint)
    models = checkpoint.unet, checkpoint.text_encoder
    with pytest.raises(UserError, match=rf"{tmp_path.name}/adapter_config\.json cannot be read"):
        merge_tensors(tensors, *models, 1.0, tmp_path)  # an adapter that is a directory
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "NONE"}')
    assert "adapter_config.json holds no settings of a LoRA" in refusal(path, checkpoint)


def test_alphas_beside_the_matrices_count_layer_by_layer(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path, k = tmp_path / "alphas.safetensors", Q.replace("to_q", "to_k")
    down, up = torch.randn(2, 16), torch.randn(16, 2)
    tensors = {f"unet.{Q}.alpha": torch.tensor(8.0)}
    for layer in (Q, k):
        tensors |= {f"unet.{layer}.lora_A.weight": down, f"unet.{layer}.lora_B.weight": up}
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
    wanted = {
        layer: checkpoint.unet.get_submodule(layer).weight + scale * up @ down
        for layer, scale in ((Q, 4), (k, 1))
    }
    merge_lora(Lora(path), checkpoint.unet, checkpoint.text_encoder)
    for layer, weight in wanted.items():
        torch.testing.assert_close(checkpoint.unet.get_submodule(layer).weight, weight)


def test_a_dora_is_merged_with_its_magnitudes(checkpoint: Checkpoint, tmp_path: Path) -> None:
    down, up, magnitudes = torch.randn(2, 16), torch.randn(16, 2), 1 + torch.rand(16)
    file = {
        f"unet.{Q}.lora_A.weight": down,
        f"unet.{Q}.lora_B.weight": up,
        f"unet.{Q}.lora_magnitude_vector": magnitudes,
    }
    save_file(file, tmp_path / "dora.safetensors")
    moved = checkpoint.unet.get_submodule(Q).weight + up @ down
    wanted = magnitudes[:, None] * moved / moved.norm(dim=1, keepdim=True)
    merge_lora(Lora(tmp_path / "dora.safetensors"), checkpoint.unet, checkpoint.text_encoder)
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
    message = refusal(lora, checkpoint)
    assert "this checkpoint has none (Target modules" in message and len(message) < 800


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
    save_file({f"{KOHYA}.alpha": torch.rand(())}, tmp_path / "other.safetensors")
    assert f"holds {KOHYA}.alpha;" in refusal(tmp_path / "other.safetensors", checkpoint)


@pytest.mark.parametrize(
    ("layer", "names", "extra"),
    [
        (f"unet.{Q}", ("lora_A", "lora_B"), f"unet.{Q}.lora_alpha"),
        (f"unet.{Q}", ("lora_C", "lora_D"), None),
        (f"unet.{Q}", ("lora_A", "lora_B"), f"unet.{Q}.lora_B.bias"),
        (f"unet.{Q}", ("lora_A.default", "lora_B.default"), None),
        (KOHYA, ("lora_down", "lora_up"), f"{KOHYA}.dora_scale"),
        (KOHYA, ("lora_down", "lora_up"), f"{KOHYA}.lora_mid.weight"),
    ],
)
def test_nothing_of_a_lora_is_left_out_in_silence(
    checkpoint: Checkpoint,
    tmp_path: Path,
    layer: str,
    names: tuple[str, str],
    extra: str | None,
) -> None:
    shapes = (2, 16), (16, 2)
    file = {f"{layer}.{name}.weight": torch.rand(s) for name, s in zip(names, shapes, strict=True)}
    if extra is not None:
        file[extra] = torch.rand(16)
    save_file(file, tmp_path / "more.safetensors")
    message = refusal(tmp_path / "more.safetensors", checkpoint)
    assert f"it holds {extra or min(file)}" in message


def test_half_a_pair_is_refused(checkpoint: Checkpoint, lora: Path) -> None:
    tensors = load_file(lora)
    tensors.pop(next(name for name in tensors if "lora_B" in name))
    save_file(tensors, lora)
    assert "one matrix of the two" in refusal(lora, checkpoint)


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
