"""Each kind of LoRA file changes each layer by its formula; what would be left out is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import torch
from safetensors.torch import load_file, save_file

from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.contents import Checkpoint
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.files.lora.merge import Lora, merge_lora, parse_lora
from tests.export.tiny_checkpoint import save_lora

Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
KOHYA = f"lora_unet_{Q.replace('.', '_')}"
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def checkpoint(plain_checkpoint: Path) -> Checkpoint:
    return read_checkpoint(plain_checkpoint)


def weights(checkpoint: Checkpoint) -> Tensors:
    """All weights by `part.name`; the text encoder's without transformers' former prefix."""
    text = checkpoint.text_encoder.named_parameters()
    return {f"unet.{n}": t.detach() for n, t in checkpoint.unet.named_parameters()} | {
        f"text_encoder.{n.removeprefix('text_model.')}": t.detach() for n, t in text
    }


def matrices(shape: torch.Size, rank: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """down and up of a linear layer or a convolution."""
    draw = torch.Generator().manual_seed(seed)
    out, into, *kernel = shape
    down = torch.randn(rank, into, *kernel, generator=draw)
    return down, torch.randn(out, rank, *[1 for _ in kernel], generator=draw)


def product(up: torch.Tensor, down: torch.Tensor) -> np.ndarray:
    """Σ_r up[o, r] · down[r, i, k, l]."""
    u, d = up.double().numpy(), down.double().numpy()
    return np.einsum("or,r...->o...", u.reshape(u.shape[:2]), d)


def merge(
    checkpoint: Checkpoint, path: Path, tensors: Tensors, header: Any = None, scale: float = 1.0
) -> None:
    given = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    save_file(given, path, header and {"lora_adapter_metadata": json.dumps(header)})
    merge_lora(Lora(path, scale), checkpoint.unet, checkpoint.text_encoder)


def check(checkpoint: Checkpoint, before: Tensors, changes: dict[str, np.ndarray]) -> None:
    """Each layer of `changes` (by part.name, without `.weight`) gained its own; no other did."""
    for name, tensor in weights(checkpoint).items():
        gain = changes.get(name.removesuffix(".weight"), 0)
        wanted = before[name].double().numpy() + gain
        np.testing.assert_allclose(tensor.numpy(), wanted, rtol=1e-6, atol=1e-6, err_msg=name)


def copied(checkpoint: Checkpoint) -> Tensors:
    return {name: tensor.clone() for name, tensor in weights(checkpoint).items()}


def kohya(name: str) -> str:
    part, _, layer = name.partition(".")
    prefix = "lora_unet_" if part == "unet" else "lora_te_text_model_"
    return prefix + layer.replace(".", "_")


def test_other_kinds_of_lycoris_are_merged_at_their_scale(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """LoHa, LoKr (whole factors have no alpha / rank), DoRA, differences of weights and norms."""
    before, k, v = copied(checkpoint), Q.replace("to_q", "to_k"), Q.replace("to_q", "to_v")
    out, text = Q.replace("to_q", "to_out.0"), "text_encoder.final_layer_norm"
    loha = {f"hada_w{i}_{x}": torch.rand(2, 16) for i in "12" for x in "ab"}
    loha |= {name: tensor.T for name, tensor in loha.items() if name.endswith("_a")}
    lokr = {"lokr_w1": torch.rand(2, 4), "lokr_w2": torch.rand(8, 4)}
    down, up = matrices(torch.Size((16, 16)), 2)
    dora = {"lora_down.weight": down, "lora_up.weight": up, "dora_scale": 1 + torch.rand(16, 1)}
    whole = {"diff": torch.randn(16, 16), "diff_b": torch.randn(16)}
    norm = {"w_norm": torch.randn(16), "b_norm": torch.randn(16)}
    alpha = {"alpha": torch.tensor(3.0)}
    parts = {Q: loha | alpha, k: lokr | alpha, v: dora | alpha, out: whole}
    file = {f"{kohya(f'unet.{n}')}.{x}": t for n, own in parts.items() for x, t in own.items()}
    file |= {f"{kohya(text)}.{name}": tensor for name, tensor in norm.items()}
    merge(checkpoint, tmp_path / "lycoris.safetensors", file, scale=0.5)

    a1, b1, a2, b2 = (loha[f"hada_w{i}_{x}"].double().numpy() for i in "12" for x in "ab")
    moved = before[f"unet.{v}.weight"].double().numpy() + 3 / 2 * product(up, down)
    aim = dora["dora_scale"].numpy() * moved / np.sqrt((moved**2).sum(1, keepdims=True))
    changes = {
        f"unet.{Q}": 0.5 * 3 / 2 * (a1 @ b1) * (a2 @ b2),
        f"unet.{k}": 0.5 * np.kron(lokr["lokr_w1"].numpy(), lokr["lokr_w2"].numpy()),
        f"unet.{v}": 0.5 * (aim - before[f"unet.{v}.weight"].double().numpy()),
        f"unet.{out}": 0.5 * whole["diff"].double().numpy(),
        f"unet.{out}.bias": 0.5 * whole["diff_b"].double().numpy(),
        text: 0.5 * norm["w_norm"].double().numpy(),
        f"{text}.bias": 0.5 * norm["b_norm"].double().numpy(),
    }
    check(checkpoint, before, changes)


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [(1.0, torch.float32), (0.5, torch.float16), (-0.7, torch.bfloat16), (0.0, torch.float32)],
)
def test_the_change_is_scaled_and_computed_above_the_files_precision(
    checkpoint: Checkpoint, tmp_path: Path, scale: float, dtype: torch.dtype
) -> None:
    down, up = (tensor.to(dtype) for tensor in matrices(torch.Size((16, 16)), 3))
    before = copied(checkpoint)
    file = {f"{KOHYA}.lora_down.weight": down, f"{KOHYA}.lora_up.weight": up}
    file[f"{KOHYA}.alpha"] = torch.tensor(2.0, dtype=dtype)
    merge(checkpoint, tmp_path / "half.safetensors", file, scale=scale)
    check(checkpoint, before, {f"unet.{Q}": scale * 2 / 3 * product(up, down)})


@pytest.mark.parametrize("second", [False, True], ids=["1x1 as matrix", "matrix as 1x1"])
def test_a_matrix_and_a_convolution_of_one_pixel_are_one(
    plain_checkpoint: Path, sd2_checkpoint: Path, tmp_path: Path, second: bool
) -> None:
    """The projection around a transformer is a convolution in version 1 and linear in 2."""
    checkpoint = read_checkpoint(sd2_checkpoint if second else plain_checkpoint)
    name = "down_blocks.0.attentions.0.proj_in"
    before = copied(checkpoint)
    down, up = matrices(torch.Size((16, 16, 1, 1) if second else (16, 16)), 2)
    assert before[f"unet.{name}.weight"].ndim == (2 if second else 4)
    file = {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    merge(checkpoint, tmp_path / "other.safetensors", file)
    gain = product(up, down).reshape(before[f"unet.{name}.weight"].shape)
    check(checkpoint, before, {f"unet.{name}": gain})


def test_alphas_in_the_header_of_diffusers_count(checkpoint: Checkpoint, tmp_path: Path) -> None:
    models = {"unet": checkpoint.unet, "text_encoder": checkpoint.text_encoder}
    path, before = save_lora(tmp_path, alpha=6, **models), copied(checkpoint)
    file = load_file(path)
    merge_lora(Lora(path), **models)
    names = [name.removesuffix(".lora_A.weight") for name in file if "lora_A" in name]
    changes = {
        n: 3 * product(file[f"{n}.lora_B.weight"], file[f"{n}.lora_A.weight"]) for n in names
    }
    assert {name.partition(".")[0] for name in changes} == models.keys()
    check(checkpoint, before, {n.replace(".text_model", ""): gain for n, gain in changes.items()})


@pytest.mark.parametrize("prefix", ["", "unet."])
def test_a_torch_file_is_read_with_its_alphas(
    checkpoint: Checkpoint, tmp_path: Path, prefix: str
) -> None:
    down, up = matrices(torch.Size((16, 16)), 2)
    before, name = copied(checkpoint), f"{prefix}{Q}"
    content = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up, f"{name}.alpha": 5}
    torch.save({"state_dict": content, "epoch": 3}, tmp_path / "lora.bin")
    merge_lora(Lora(tmp_path / "lora.bin"), checkpoint.unet, checkpoint.text_encoder)
    check(checkpoint, before, {f"unet.{Q}": 5 / 2 * product(up, down)})


def test_no_weight_moves_and_no_random_number_is_used(
    plain_checkpoint: Path, tmp_path: Path
) -> None:
    merged = []
    for seed in (1, 2):
        checkpoint = read_checkpoint(plain_checkpoint)
        parts = {"unet": checkpoint.unet, "text_encoder": checkpoint.text_encoder}
        if seed == 1:
            save_lora(tmp_path, alpha=6, **parts)
        places = {name: tensor.data_ptr() for name, tensor in weights(checkpoint).items()}
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        merge_lora(Lora(tmp_path / "pytorch_lora_weights.safetensors"), **parts)
        assert torch.equal(state, torch.get_rng_state())
        assert {n: tensor.data_ptr() for n, tensor in weights(checkpoint).items()} == places
        merged.append(weights(checkpoint))
    assert all(torch.equal(merged[0][name], merged[1][name]) for name in merged[0])


def refusal(checkpoint: Checkpoint, path: Path, tensors: Tensors, header: Any = None) -> str:
    before = copied(checkpoint)
    with pytest.raises(UserError) as error:
        merge(checkpoint, path, tensors, header)
    after = weights(checkpoint)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert len(str(error.value)) < 800
    return str(error.value)


def pair(key: str, out: int = 16, into: int = 16, rank: int = 2) -> Tensors:
    return {
        f"{key}.lora_A.weight": torch.rand(rank, into),
        f"{key}.lora_B.weight": torch.rand(out, rank),
    }


def test_layers_without_a_place_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    message = refusal(checkpoint, path, pair(f"unet.{Q}9"))
    assert f"does not have (1 of 1): unet.{Q}9; give one" in message
    message = refusal(checkpoint, path, pair(f"unet.{Q}") | pair("unet.mid_block.proj"))
    assert "does not have (1 of 2): unet.mid_block.proj; give one" in message
    message = refusal(checkpoint, path, pair("text_encoder.text_projection"))
    assert "text_encoder.text_projection" in message


@pytest.mark.parametrize(
    ("down", "up"), [((2, 7), (9, 2)), ((2, 16), (16, 3)), ((2, 16, 3, 3), (16, 2, 1, 1))]
)
def test_a_lora_of_another_width_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, down: tuple[int, ...], up: tuple[int, ...]
) -> None:
    file = {
        f"{KOHYA}.lora_down.weight": torch.rand(down),
        f"{KOHYA}.lora_up.weight": torch.rand(up),
    }
    message = refusal(checkpoint, tmp_path / "wide.safetensors", file)
    assert "does not fit this checkpoint" in message and Q in message


@pytest.mark.parametrize(
    "extra", ["lora_alpha", "lora_C.weight", "weight", "bias", "hada_w1_a", "lora_A.default.weight"]
)
def test_nothing_of_a_lora_is_left_out_in_silence(
    checkpoint: Checkpoint, tmp_path: Path, extra: str
) -> None:
    file = pair(f"unet.{Q}") | {f"unet.{Q}.{extra}": torch.rand(16)}
    message = refusal(checkpoint, tmp_path / "more.safetensors", file)
    assert f"has the unexpected keys unet.{Q}.{extra};" in message


def test_what_is_no_lora_is_refused_with_its_keys(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    assert "is not a LoRA" in refusal(checkpoint, path, {"conv.weight": torch.rand(2)})
    whole = {f"unet.{name}": tensor for name, tensor in checkpoint.unet.state_dict().items()}
    assert "has the unexpected keys unet.conv_in.bias, unet.conv_in.weight and" in refusal(
        checkpoint, path, whole
    )
    message = refusal(checkpoint, path, {f"{KOHYA}.alpha": torch.rand(())})
    assert f"has the unexpected keys {KOHYA}.alpha;" in message


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", "Stable Diffusion XL"),
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_A.weight", "another kind"),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "another kind"),
        (f"{KOHYA}.oft_blocks", "OFT"),
        (f"{KOHYA}.a1.weight", "GLoRA"),
        (f"{KOHYA}.on_input", "IA3"),
        (f"base_model.model.{Q}.vera_lambda_b", "VeRA"),
        (f"base_model.model.{Q}.lora_E", "AdaLoRA"),
        ("emb_params", "textual inversion"),
    ],
)
def test_other_kinds_are_refused_by_name(
    checkpoint: Checkpoint, tmp_path: Path, name: str, kind: str
) -> None:
    file = pair(f"unet.{Q}") | {name: torch.rand(2, 2)}
    message = refusal(checkpoint, tmp_path / "kind.safetensors", file)
    assert kind in message and name.removeprefix("base_model.model.") in message


def test_spoilt_files_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path, good = tmp_path / "lora.safetensors", pair(f"unet.{Q}")
    half = {name: tensor for name, tensor in good.items() if "lora_A" in name}
    assert f"only one of the two matrices of {Q}" in refusal(checkpoint, path, half)
    twice = good | {f"{KOHYA}.lora_down.weight": torch.rand(2, 16)}
    assert "twice, as" in refusal(checkpoint, path, twice)
    spoilt = good | {f"unet.{Q}.lora_A.weight": torch.full((2, 16), torch.nan)}
    assert "not finite" in refusal(checkpoint, path, spoilt)
    alphas = good | {f"unet.{Q}.alpha": torch.rand(2)}
    assert "an alpha is one number" in refusal(checkpoint, path, alphas)


def test_a_missing_file_and_a_directory_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", "There is no LoRA"), (tmp_path, "is a directory")):
        with pytest.raises(UserError, match=reason):
            merge_lora(Lora(path), checkpoint.unet, checkpoint.text_encoder)


def test_the_option_is_a_file_with_or_without_a_scale(tmp_path: Path) -> None:
    assert parse_lora("faces.safetensors") == Lora(Path("faces.safetensors"), 1.0)
    assert parse_lora("faces.safetensors:0.8") == Lora(Path("faces.safetensors"), 0.8)
    (tmp_path / "a:2").touch()
    assert parse_lora(str(tmp_path / "a:2")) == Lora(tmp_path / "a:2", 1.0)
    for wrong in ("faces:much", "faces:nan", "faces:inf"):
        with pytest.raises(UserError, match=r"write FILE or FILE:0\.8"):
            parse_lora(wrong)
