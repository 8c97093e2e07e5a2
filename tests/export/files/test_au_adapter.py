"""AU adapters: every format and kind of file is read by content, all else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from synfer_rt.errors import UserError
from synfer_rt.export.files.au_adapter import AUAdapter, CrossAttention, read_adapter

A, D = 5, 6
LAYERS = (
    CrossAttention(1, "down.attn2.processor", 8),
    CrossAttention(3, "up.attn2.processor", 12),
)
IP = {
    f"ip_adapter.{at.index}.to_{k}_ip.weight": torch.rand(at.width, D)
    for at in LAYERS
    for k in "kv"
}
LINEAR = {"image_proj.proj.weight": torch.rand(D, A), "image_proj.proj.bias": torch.rand(D)}
NORM = {"weight": torch.rand(D), "bias": torch.rand(D)}
SYNFER = LINEAR | IP
ENCODER = {"au_encoder.weight": torch.rand(3, 2), "au_encoder.bias": torch.rand(3)}
PROCESSORS = {f"{at.name}.au_to_{k}.weight": torch.rand(at.width, D) for at in LAYERS for k in "kv"}
LORA = {
    "unet.down.to_q.lora_A.weight": torch.rand(2, 8),
    "unet.down.to_q.lora_B.weight": torch.rand(8, 2),
}
AUS = torch.rand(4, 2, A)


def grouped() -> dict[str, dict[str, torch.Tensor]]:
    groups: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in SYNFER.items():
        group, _, rest = name.partition(".")
        groups[group][rest] = tensor
    return groups


def saved(tensors: dict[str, torch.Tensor], path: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def read(path: Path) -> AUAdapter:
    return read_adapter(path, LAYERS, D)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read(path)
    return str(error.value)


def test_a_safetensors_adapter_is_read(tmp_path: Path) -> None:
    adapter = read(saved(SYNFER, tmp_path / "au_adapter.safetensors"))
    assert (adapter.units, adapter.tokens, adapter.maximum, adapter.vocabulary) == (A, 1, 1, None)
    wanted = F.linear(AUS, *LINEAR.values())
    torch.testing.assert_close(adapter.projection(AUS), wanted[..., None, :])
    assert torch.equal(adapter.to_k[1], IP["ip_adapter.1.to_k_ip.weight"])
    assert torch.equal(adapter.to_v[3], IP["ip_adapter.3.to_v_ip.weight"])


def test_half_precision_is_widened(tmp_path: Path) -> None:
    path = saved({name: t.half() for name, t in SYNFER.items()}, tmp_path / "half.safetensors")
    assert read(path).projection(AUS).dtype == read(path).to_v[1].dtype == torch.float32


def test_a_safetensors_header_that_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "au_adapter.safetensors"
    for length in range(0, 256, 8):
        save_file(SYNFER, path, {"note": "x" * length})
        if path.read_bytes()[:1] == b"\x80":
            break
    assert path.read_bytes()[:1] == b"\x80" and read(path).units == A


@pytest.mark.parametrize("name", ["adapter.bin", "model.safetensors"])
def test_a_torch_pickle_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    torch.save(grouped(), tmp_path / name)
    assert torch.equal(read(tmp_path / name).to_v[1], IP["ip_adapter.1.to_v_ip.weight"])


@pytest.mark.parametrize(
    "wrapped",
    [
        {"state_dict": grouped(), "epoch": 3},
        {f"module.{name}": tensor for name, tensor in SYNFER.items()},
        {"model": {f"module.{name}": tensor for name, tensor in SYNFER.items()}},
    ],
)
def test_what_training_wraps_around_an_adapter_is_taken_off(tmp_path: Path, wrapped: dict) -> None:
    torch.save(wrapped, tmp_path / "last.ckpt")
    assert torch.equal(read(tmp_path / "last.ckpt").to_v[3], IP["ip_adapter.3.to_v_ip.weight"])


def test_the_names_of_ip_adapters_training_are_read(tmp_path: Path) -> None:
    names = {"image_proj.": "image_proj_model.", "ip_adapter.": "adapter_modules."}
    raw = {}
    for name, tensor in SYNFER.items():
        old = next(part for part in names if name.startswith(part))
        raw[f"module.{names[old]}{name.removeprefix(old)}"] = tensor
    torch.save(raw, tmp_path / "pytorch_model.bin")
    adapter = read(tmp_path / "pytorch_model.bin")
    assert torch.equal(adapter.to_v[3], IP["ip_adapter.3.to_v_ip.weight"])
    wanted = F.linear(AUS, *LINEAR.values())
    torch.testing.assert_close(adapter.projection(AUS), wanted[..., None, :])
    raw["module.unet.conv_in.weight"] = torch.zeros(1)
    torch.save(raw, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="whole training state with a UNet; save its image_proj"):
        read(tmp_path / "pytorch_model.bin")


def test_several_tokens_are_rows_of_the_projection(tmp_path: Path) -> None:
    wide = {
        "image_proj.proj.weight": torch.rand(4 * D, A),
        "image_proj.proj.bias": torch.rand(4 * D),
    }
    adapter = read(saved(SYNFER | wide, tmp_path / "tokens.safetensors"))
    assert adapter.tokens == 4
    wanted = F.linear(AUS, *wide.values())[..., 2 * D : 3 * D]
    torch.testing.assert_close(adapter.projection(AUS)[..., 2, :], wanted)


def test_a_norm_after_the_projection_is_applied_to_each_token(tmp_path: Path) -> None:
    norm = {f"image_proj.norm.{part}": tensor for part, tensor in NORM.items()}
    adapter = read(saved(SYNFER | norm, tmp_path / "norm.safetensors"))
    wanted = F.layer_norm(F.linear(AUS, *LINEAR.values()), (D,), NORM["weight"], NORM["bias"])
    torch.testing.assert_close(adapter.projection(AUS)[..., 0, :], wanted)


@pytest.mark.parametrize("norm", ["norm", "proj.3", None])
def test_ip_adapters_two_layer_projections_are_read(tmp_path: Path, norm: str | None) -> None:
    first, second = (torch.rand(7, A), torch.rand(7)), (torch.rand(2 * D, 7), torch.rand(2 * D))
    layers = {"proj.0": first, "proj.2": second} | ({norm: tuple(NORM.values())} if norm else {})
    file = {
        f"image_proj.{name}.{part}": tensor
        for name, tensors in layers.items()
        for part, tensor in zip(("weight", "bias"), tensors, strict=True)
    }
    adapter = read(saved(IP | file, tmp_path / "mlp.safetensors"))
    assert (adapter.units, adapter.tokens) == (A, 2)
    wanted = F.linear(F.gelu(F.linear(AUS, *first)), *second).unflatten(-1, (2, D))
    if norm:
        wanted = F.layer_norm(wanted, (D,), NORM["weight"], NORM["bias"])
    torch.testing.assert_close(adapter.projection(AUS), wanted)
    adapter.projection.activate("relu")
    wanted = F.linear(F.relu(F.linear(AUS, *first)), *second).unflatten(-1, (2, D))
    if norm:
        wanted = F.layer_norm(wanted, (D,), NORM["weight"], NORM["bias"])
    torch.testing.assert_close(adapter.projection(AUS), wanted)


def test_finefaces_token_is_the_aus_their_encoding_and_zeros(tmp_path: Path) -> None:
    adapter = read(saved(ENCODER | PROCESSORS, tmp_path / "fineface.safetensors"))
    assert (adapter.units, adapter.tokens, adapter.maximum) == (2, 1, 5)
    aus = torch.rand(3, 2)
    wanted = torch.cat([aus, F.linear(aus, *ENCODER.values()), torch.zeros(3, 1)], 1)
    torch.testing.assert_close(adapter.projection(aus)[:, 0], wanted)
    assert torch.equal(adapter.to_v[3], PROCESSORS["up.attn2.processor.au_to_v.weight"])


def test_a_directory_of_fineface_is_one_adapter_with_its_lora(tmp_path: Path) -> None:
    torch.save(ENCODER, tmp_path / "au_encoder.ckpt")
    torch.save(PROCESSORS, tmp_path / "attn_processors.ckpt")
    saved(LORA, tmp_path / "pytorch_lora_weights.safetensors")
    torch.save({"state": {0: {"exp_avg": torch.rand(2)}}, "lr": 1.0}, tmp_path / "optimizer.bin")
    saved({"unet.conv_in.weight": torch.rand(2)}, tmp_path / "model.safetensors")
    adapter = read(tmp_path)
    assert adapter.tokens == 1 and set(adapter.lora) == set(LORA)
    assert [file.name for file in adapter.files] == [
        "attn_processors.ckpt",
        "au_encoder.ckpt",
        "pytorch_lora_weights.safetensors",
    ]


def test_finefaces_twelve_units_are_disfas(tmp_path: Path) -> None:
    encoder = {"au_encoder.weight": torch.rand(4, 12), "au_encoder.bias": torch.rand(4)}
    wide = {name: torch.rand(len(t), 20) for name, t in PROCESSORS.items()}
    path = saved(encoder | wide, tmp_path / "twelve.safetensors")
    assert read_adapter(path, LAYERS, 20).vocabulary == "disfa-12"


def test_a_pickle_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"image_proj": Code()}, tmp_path / "evil.bin")
    assert "cannot be read as plain tensors" in refusal(tmp_path / "evil.bin")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("length", [4, 200, 900])
def test_a_file_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    path = saved(SYNFER, tmp_path / "short.safetensors")
    path.write_bytes(path.read_bytes()[:length])
    assert str(path) in refusal(path)


def test_an_unknown_format_is_refused_with_the_keys_found_and_expected(tmp_path: Path) -> None:
    message = refusal(saved({"tokens.weight": torch.rand(2, 2)}, tmp_path / "other.safetensors"))
    assert "it has the keys tokens.weight" in message
    assert "image_proj.proj.bias" in message and "ip_adapter.3.to_v_ip.weight" in message
    assert "au_encoder.weight" in message and "down.attn2.processor.au_to_k.weight" in message


def test_an_adapter_that_lacks_a_layer_is_refused_by_its_name(tmp_path: Path) -> None:
    short = {k: v for k, v in SYNFER.items() if k != "ip_adapter.3.to_v_ip.weight"}
    message = refusal(saved(short, tmp_path / "short.safetensors"))
    assert "missing keys are ip_adapter.3.to_v_ip.weight, unexpected keys are nothing" in message


def test_a_perceiver_is_refused_by_its_keys(tmp_path: Path) -> None:
    plus = {"image_proj.latents": torch.rand(1, 4, D), "image_proj.proj_in.weight": torch.rand(2)}
    message = refusal(saved(IP | plus, tmp_path / "plus.safetensors"))
    assert "missing keys are image_proj.proj.bias" in message and "image_proj.latents" in message


def test_fineface_without_its_encoder_is_refused(tmp_path: Path) -> None:
    message = refusal(saved(PROCESSORS, tmp_path / "attn.safetensors"))
    assert "missing keys are au_encoder.bias, au_encoder.weight" in message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ip_adapter.1.to_v_ip.weight": torch.rand(9, D)}, "[9, 6]; this UNet needs [8, 6]"),
        ({"image_proj.proj.weight": torch.rand(7, A)}, "need a multiple of 6 rows"),
        ({"image_proj.proj.bias": torch.rand(3)}, "image_proj.proj.bias [3]; this UNet needs [6]"),
    ],
)
def test_a_tensor_of_another_size_is_refused(
    tmp_path: Path, change: dict[str, torch.Tensor], reason: str
) -> None:
    assert reason in refusal(saved(SYNFER | change, tmp_path / "width.safetensors"))


def test_a_fineface_token_wider_than_the_text_is_refused(tmp_path: Path) -> None:
    wide = {"au_encoder.weight": torch.rand(5, 2), "au_encoder.bias": torch.rand(5)}
    assert "wider than" in refusal(saved(wide | PROCESSORS, tmp_path / "wide.safetensors"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "as `au_adapter`" in refusal(tmp_path / "none.safetensors")


def test_a_directory_without_an_adapter_is_refused(tmp_path: Path) -> None:
    assert "holds no file of an AU adapter" in refusal(tmp_path)


def affine(adapter: AUAdapter) -> torch.nn.Linear:
    """The one linear layer of an adapter's projection."""
    assert adapter.projection.affine is not None
    return adapter.projection.affine


OTHER_LAYERS = (CrossAttention(5, "mid.attn2.processor", 8), LAYERS[1])
OTHER = {
    f"{at.name}.au_to_{k}.weight": torch.rand(at.width, D) for at in OTHER_LAYERS for k in "kv"
}
OTHER_ENCODER = {"au_encoder.weight": torch.rand(4, 2), "au_encoder.bias": torch.rand(4)}


def save_sets(folder: Path, first: str = "{}", second: str = "sd15_{}") -> Path:
    """FineFace for LAYERS, with a LoRA, and for OTHER_LAYERS, side by side as on the Hub."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = (first, ENCODER, PROCESSORS), (second, OTHER_ENCODER, OTHER)
    for name, encoder, processors in parts:
        torch.save(encoder, folder / f"{name.format('au_encoder')}.ckpt")
        torch.save(processors, folder / f"{name.format('attn_processors')}.ckpt")
    saved(LORA, folder / f"{first.format('pytorch_lora_weights')}.safetensors")
    return folder


@pytest.mark.parametrize(
    ("first", "second"),
    [("{}", "sd15_{}"), ("{}_sd21", "{}_sd15"), ("fineface-2.1-{}", "fineface-{}"), ("{}2", "{}")],
)
def test_of_sets_side_by_side_the_one_that_fits_is_read(
    tmp_path: Path, first: str, second: str
) -> None:
    folder = save_sets(tmp_path / "hub", first, second)
    adapter = read(folder)
    assert torch.equal(adapter.to_v[1], PROCESSORS["down.attn2.processor.au_to_v.weight"])
    assert torch.equal(affine(adapter).weight[2:5], ENCODER["au_encoder.weight"])
    assert set(adapter.lora) == set(LORA) and len(adapter.files) == 3
    other = read_adapter(folder, OTHER_LAYERS, D)
    assert torch.equal(other.to_k[5], OTHER["mid.attn2.processor.au_to_k.weight"])
    assert torch.equal(affine(other).weight[2:6], OTHER_ENCODER["au_encoder.weight"])
    assert other.lora == {}, "it is of the other set"
    assert {file.name for file in other.files} == {
        f"{second.format(part)}.ckpt" for part in ("au_encoder", "attn_processors")
    }


def test_sets_with_equal_names_are_told_apart_by_their_sizes(tmp_path: Path) -> None:
    wide = {name: torch.rand(len(tensor), D + 2) for name, tensor in PROCESSORS.items()}
    for name, encoder, processors in (("", ENCODER, PROCESSORS), ("v2_", OTHER_ENCODER, wide)):
        torch.save(encoder, tmp_path / f"{name}au_encoder.ckpt")
        torch.save(processors, tmp_path / f"{name}attn_processors.ckpt")
    assert len(affine(read(tmp_path)).weight) == D
    assert torch.equal(read(tmp_path).to_k[1], PROCESSORS["down.attn2.processor.au_to_k.weight"])
    assert len(affine(read_adapter(tmp_path, LAYERS, D + 2)).weight) == D + 2


def test_an_encoder_of_all_sets_is_in_each(tmp_path: Path) -> None:
    torch.save(ENCODER, tmp_path / "au-encoder.ckpt")
    torch.save(PROCESSORS, tmp_path / "attention_processors_sd21.ckpt")
    torch.save(OTHER, tmp_path / "attention_processors_sd15.ckpt")
    for layers, label in ((LAYERS, "sd21"), (OTHER_LAYERS, "sd15")):
        files = read_adapter(tmp_path, layers, D).files
        names = {"au-encoder.ckpt", f"attention_processors_{label}.ckpt"}
        assert {file.name for file in files} == names
    (tmp_path / "au-encoder.ckpt").rename(tmp_path / "sd15_au_encoder.ckpt")
    assert "missing keys are au_encoder.bias" in refusal(tmp_path), "it is of the other set"


def test_sets_may_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    for name, encoder, processors in (("a", ENCODER, PROCESSORS), ("b", OTHER_ENCODER, OTHER)):
        (tmp_path / name).mkdir()
        torch.save(encoder, tmp_path / name / "au_encoder.ckpt")
        torch.save(processors, tmp_path / name / "attn_processors.ckpt")
    assert {file.parent.name for file in read(tmp_path).files} == {"a"}
    assert {f.parent.name for f in read_adapter(tmp_path, OTHER_LAYERS, D).files} == {"b"}


def test_sets_of_which_none_or_several_fit_are_named(tmp_path: Path) -> None:
    folder = save_sets(tmp_path / "hub")
    with pytest.raises(UserError) as error:
        read_adapter(folder, (CrossAttention(1, "else.attn2.processor", 8),), D)
    message = str(error.value)
    assert "2 AU adapters, and none of them fit" in message
    assert "sd15_attn_processors.ckpt, sd15_au_encoder.ckpt (does not fit this UNet" in message
    for name in ("ip_adapter.bin", "model.safetensors"):
        torch.save(grouped(), (tmp_path / name))
    assert "2 of them fit this checkpoint: ip_adapter.bin (fits); model.saf" in refusal(tmp_path)


def test_a_directory_with_one_adapter_of_synfers_is_read_with_its_lora(tmp_path: Path) -> None:
    torch.save(grouped(), tmp_path / "ip_adapter.bin")
    saved(LORA, tmp_path / "any_lora.safetensors")
    adapter = read(tmp_path)
    assert torch.equal(adapter.to_v[1], IP["ip_adapter.1.to_v_ip.weight"])
    assert set(adapter.lora) == set(LORA) and len(adapter.files) == 2


def test_a_lora_that_is_of_no_set_or_of_two_files_is_refused(tmp_path: Path) -> None:
    folder = save_sets(tmp_path / "hub", "sd21_{}", "sd15_{}")
    (folder / "sd21_pytorch_lora_weights.safetensors").rename(folder / "faces_lora.safetensors")
    assert "the LoRA faces_lora.safetensors is named like none of them" in refusal(folder)
    folder = tmp_path / "two"
    folder.mkdir()
    torch.save(ENCODER | PROCESSORS, folder / "fineface.ckpt")
    for name in ("a_lora", "b_lora"):
        saved(LORA, folder / f"{name}.safetensors")
    assert "in b_lora.safetensors and in another file" in refusal(folder)


def test_what_stands_beside_finefaces_layers_is_refused_by_name(tmp_path: Path) -> None:
    gates = {f"{at.name}.gamma": torch.rand(8) for at in LAYERS}
    torch.save(ENCODER, tmp_path / "au_encoder.ckpt")
    torch.save(PROCESSORS | gates, tmp_path / "attn_processors.ckpt")
    message = refusal(tmp_path)
    assert "attn_processors.ckpt has the unexpected keys down.attn2.processor.gamma" in message
    assert "beside FineFace's layers" in message


def test_settings_of_peft_beside_an_adapters_lora_are_a_file_of_it(tmp_path: Path) -> None:
    torch.save(ENCODER | PROCESSORS, tmp_path / "fineface.ckpt")
    saved({f"base_model.model.{n}": t for n, t in LORA.items()}, tmp_path / "lora.safetensors")
    (tmp_path / "adapter_config.json").write_text("{}")
    assert tmp_path / "adapter_config.json" in read(tmp_path).files
