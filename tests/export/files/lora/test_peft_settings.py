"""PEFT's settings give each layer its factor, by the rules of PEFT's documentation."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import torch
from safetensors.torch import save_file

from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.contents import Checkpoint
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.files.lora.merge import Lora, merge_lora
from synfer_rt.export.files.lora.peft_settings import read_peft_settings
from tests.export.files.lora.test_merge import (
    Tensors,
    check,
    copied,
    matrices,
    product,
    weights,
)

LAYERS = [f"encoder.layers.{i}.self_attn.{x}_proj" for i in (0, 1) for x in "qv"]
ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"


@pytest.fixture
def sd2(sd2_checkpoint: Path) -> Checkpoint:
    return read_checkpoint(sd2_checkpoint)


def saved(folder: Path, tensors: Tensors, **settings: Any) -> Path:
    """A LoRA as PEFT saves it: the file, and its settings beside it."""
    path = folder / "adapter_model.safetensors"
    named = {f"base_model.model.{name}": t.contiguous().clone() for name, t in tensors.items()}
    save_file(named, path)
    fields = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(fields))
    return path


def merge(checkpoint: Checkpoint, path: Path, scale: float = 1.0) -> None:
    merge_lora(Lora(path, scale), checkpoint.unet, checkpoint.text_encoder)


def pair(name: str, shape: torch.Size, rank: int = 2, seed: int = 0) -> Tensors:
    down, up = matrices(shape, rank, seed)
    return {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}


def gain(tensors: Tensors, name: str) -> np.ndarray:
    return product(tensors[f"{name}.lora_B.weight"], tensors[f"{name}.lora_A.weight"])


def text_lora(checkpoint: Checkpoint, prefix: str = "", ranks: dict[str, int] | None = None):
    """A LoRA of q and v in both layers of the text encoder, and its gains, not yet scaled."""
    tensors, gains = {}, {}
    for i, name in enumerate(LAYERS):
        shape = weights(checkpoint)[f"text_encoder.{name}.weight"].shape
        one = pair(prefix + name, shape, (ranks or {}).get(name, 2), i)
        tensors |= one
        gains[name] = gain(one, prefix + name)
    return tensors, gains


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_patterns_are_regular_expressions_of_ends_of_names(
    sd2: Checkpoint, tmp_path: Path, prefix: str
) -> None:
    """`(.*\\.)?(PATTERN)$`, the first one that fits, under the names of any transformers."""
    ranks = {LAYERS[0]: 4, LAYERS[2]: 3}
    tensors, gains = text_lora(sd2, prefix, ranks)
    path = saved(
        tmp_path,
        tensors,
        lora_alpha=6,
        target_modules=["q_proj", "v_proj"],
        rank_pattern={"text_model.encoder.layers.0.self_attn.q_proj": 4, r"1\.self_attn.q_proj": 3},
        alpha_pattern={"q_proj": 8, ".*proj": 7, "1.self_attn.q_proj": 9, "proj": 5},
    )
    before = copied(sd2)
    merge(sd2, path)
    factors = dict(zip(LAYERS, (8 / 4, 7 / 2, 8 / 3, 7 / 2), strict=True))
    check(sd2, before, {f"text_encoder.{n}": factors[n] * g for n, g in gains.items()})


def test_rslora_divides_by_the_root_of_the_rank(sd2: Checkpoint, tmp_path: Path) -> None:
    tensors, gains = text_lora(sd2)
    path = saved(tmp_path, tensors, lora_alpha=6, use_rslora=True, target_modules=["q_proj"])
    before = copied(sd2)
    merge(sd2, path, 0.5)
    factor = 0.5 * 6 / math.sqrt(2)
    check(sd2, before, {f"text_encoder.{name}": factor * g for name, g in gains.items()})


def test_convolutions_biases_and_embeddings_are_merged(sd2: Checkpoint, tmp_path: Path) -> None:
    conv, bias = "down_blocks.0.resnets.0.conv1", torch.randn(16)
    before = copied(sd2)
    tensors = pair(conv, before[f"unet.{conv}.weight"].shape)
    path = saved(
        tmp_path,
        tensors | {f"{conv}.lora_B.bias": bias},
        lora_alpha=3,
        lora_bias=True,
        target_modules=[conv],
    )
    merge(sd2, path)
    wanted = before[f"unet.{conv}.bias"] + 3 / 2 * bias
    torch.testing.assert_close(weights(sd2)[f"unet.{conv}.bias"], wanted)
    before[f"unet.{conv}.bias"] = wanted
    check(sd2, before, {f"unet.{conv}": 3 / 2 * gain(tensors, conv)})

    table = "embeddings.token_embedding"
    rows, width = before[f"text_encoder.{table}.weight"].shape
    down, up = torch.randn(2, rows), torch.randn(width, 2)
    tensors = {f"{table}.lora_embedding_A": down, f"{table}.lora_embedding_B": up}
    path = saved(tmp_path, tensors, lora_alpha=4, target_modules=["token_embedding"])
    before = copied(sd2)
    merge(sd2, path)
    check(sd2, before, {f"text_encoder.{table}": 2 * (up.double() @ down.double()).numpy().T})


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_dora_is_merged_in_both_models(
    sd2: Checkpoint, tmp_path: Path, part: str, scale: float
) -> None:
    name = f"{ATTENTION}.to_q" if part == "unet" else LAYERS[3]
    before = copied(sd2)
    weight = before[f"{part}.{name}.weight"].double().numpy()
    tensors, magnitude = pair(name, torch.Size(weight.shape)), 1 + torch.rand(len(weight))
    path = saved(
        tmp_path,
        tensors | {f"{name}.lora_magnitude_vector": magnitude},
        lora_alpha=6,
        use_dora=True,
        target_modules=[name],
    )
    merge(sd2, path, scale)
    moved = weight + scale * 3 * gain(tensors, name)
    wanted = magnitude.numpy()[:, None] * moved / np.sqrt((moved**2).sum(1, keepdims=True))
    check(sd2, before, {f"{part}.{name}": wanted - weight})


def test_modules_that_are_saved_whole_replace_the_models(sd2: Checkpoint, tmp_path: Path) -> None:
    tensors, gains = text_lora(sd2)
    norm = {"weight": torch.randn(24), "bias": torch.randn(24)}
    whole = {f"final_layer_norm.{name}": tensor for name, tensor in norm.items()}
    targets = {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["final_layer_norm"]}
    path = saved(tmp_path, tensors | whole, **targets)
    before = copied(sd2)
    merge(sd2, path)
    before |= {f"text_encoder.final_layer_norm.{name}": tensor for name, tensor in norm.items()}
    check(sd2, before, {f"text_encoder.{name}": g for name, g in gains.items()})
    assert "which cannot be scaled" in refusal(sd2, path, 0.5)
    lacking = refusal(sd2, saved(tmp_path, tensors, **targets))
    assert "(1): final_layer_norm" in lacking
    assert "has the unexpected keys final_layer_norm.bias" in refusal(
        sd2, saved(tmp_path, tensors | whole)
    )


def refusal(checkpoint: Checkpoint, path: Path, scale: float = 1.0) -> str:
    before = copied(checkpoint)
    with pytest.raises(UserError) as error:
        merge(checkpoint, path, scale)
    after = weights(checkpoint)
    assert all(torch.equal(before[name], after[name]) for name in before)
    return str(error.value)


@pytest.mark.parametrize(
    ("targets", "lacking"),
    [
        ({"target_modules": ["q_proj", "v_proj"]}, 2),
        ({"target_modules": ["q_proj", "v_proj", "fc1"]}, 4),
        ({"target_modules": r".*layers\.\d\.self_attn\.[qv]_proj"}, 2),
        ({"target_modules": r"text_model\.encoder\.layers\.[01]\.self_attn\.q_proj"}, 1),
        ({"target_modules": "all-linear"}, 10),
        ({"target_modules": ["layers.0.self_attn.q_proj", "layers.7.self_attn.q_proj"]}, 1),
        ({"target_modules": ["q_proj"], "layers_to_transform": [1]}, 1),
        ({"target_modules": ["q_proj", "v_proj"], "exclude_modules": ["v_proj"]}, 1),
    ],
)
@pytest.mark.parametrize("prefix", ["", "text_model."])
@pytest.mark.parametrize("header", [False, True])
def test_settings_that_name_more_layers_than_the_file_holds_are_refused(
    sd2: Checkpoint,
    tmp_path: Path,
    targets: dict[str, Any],
    lacking: int,
    prefix: str,
    header: bool,
) -> None:
    tensors, _ = text_lora(sd2, prefix)
    first = {name: tensor for name, tensor in tensors.items() if "layers.0." in name}
    path = saved(tmp_path, first, **targets)
    if header:
        settings = {f"text_encoder.{k}": v for k, v in {"r": 2, "lora_alpha": 2, **targets}.items()}
        named = {f"text_encoder.{name}": tensor for name, tensor in first.items()}
        save_file(named, path, {"lora_adapter_metadata": json.dumps(settings)})
    message = refusal(sd2, path)
    assert "names layers of the text_encoder whose changes" in message
    assert f"({lacking}): " in message


def test_settings_that_name_what_the_file_holds_are_merged(sd2: Checkpoint, tmp_path: Path) -> None:
    tensors, gains = text_lora(sd2)
    first = {name: tensor for name, tensor in tensors.items() if "layers.0." in name}
    before = copied(sd2)
    targets = ["q_proj", "v_proj"]
    path = saved(tmp_path, first, target_modules=targets, layers_to_transform=0)
    merge(sd2, path)
    check(sd2, before, {f"text_encoder.{name}": gains[name] for name in LAYERS[:2]})


def test_a_header_that_names_a_model_of_which_there_is_nothing_is_refused(
    sd2: Checkpoint, tmp_path: Path
) -> None:
    path, name = tmp_path / "lora.safetensors", f"{ATTENTION}.to_q"
    tensors = {f"unet.{n}": t for n, t in pair(name, torch.Size((16, 16))).items()}
    settings = {"unet.r": 2, "unet.lora_alpha": 2, "unet.target_modules": [name]}
    text = {"text_encoder.r": 2, "text_encoder.target_modules": ["q_proj"]}
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(settings | text)})
    assert "(2): encoder.layers.0." in refusal(sd2, path)
    other = {"text_encoder_2.r": 2}
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(settings | other)})
    assert "settings for text_encoder_2" in refusal(sd2, path)
    save_file(tensors, path, {"lora_adapter_metadata": "{"})
    assert "not a JSON object" in refusal(sd2, path)
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(settings)})
    merge(sd2, path)


def test_settings_of_one_model_alone_have_no_prefix(sd2: Checkpoint, tmp_path: Path) -> None:
    """As a UNet's own save_lora_adapter writes them."""
    path, name = tmp_path / "lora.safetensors", f"{ATTENTION}.to_q"
    tensors = pair(name, torch.Size((16, 16)))
    settings = {"r": 2, "lora_alpha": 7, "target_modules": [name]}
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(settings)})
    before = copied(sd2)
    merge(sd2, path)
    check(sd2, before, {f"unet.{name}": 7 / 2 * gain(tensors, name)})


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"r": 3}, "it says rank 3 and its matrices have 2"),
        ({"use_dora": True}, "says use_dora True and the file no magnitude"),
        ({"bias": "all"}, "says that biases were trained"),
    ],
)
def test_settings_of_another_file_are_refused(
    sd2: Checkpoint, tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    assert reason in refusal(sd2, saved(tmp_path, text_lora(sd2)[0], **fields))


def test_bare_names_beside_settings_of_peft_take_them(sd2: Checkpoint, tmp_path: Path) -> None:
    """As a script saves get_peft_model_state_dict and the LoraConfig of a model."""
    tensors, gains = text_lora(sd2)
    path = saved(tmp_path, tensors, lora_alpha=7, target_modules=["q_proj", "v_proj"])
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    before = copied(sd2)
    merge(sd2, path)
    check(sd2, before, {f"text_encoder.{name}": 7 / 2 * g for name, g in gains.items()})


def test_names_of_diffusers_beside_settings_of_peft_do_not(sd2: Checkpoint, tmp_path: Path) -> None:
    tensors, gains = text_lora(sd2)
    path = saved(tmp_path, tensors, lora_alpha=7, target_modules=["q_proj", "v_proj"])
    save_file({f"text_encoder.{name}": t.contiguous() for name, t in tensors.items()}, path)
    before = copied(sd2)
    merge(sd2, path)
    check(sd2, before, {f"text_encoder.{name}": g for name, g in gains.items()})


def test_peft_without_its_settings_is_refused(sd2: Checkpoint, tmp_path: Path) -> None:
    path = saved(tmp_path, text_lora(sd2)[0])
    (tmp_path / "adapter_config.json").unlink()
    assert "adapter_config.json cannot be read" in refusal(sd2, path)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"peft_type": "VERA"}, "holds settings of VERA"),
        ({"peft_type": "ADALORA"}, "holds settings of ADALORA"),
        ({"init_lora_weights": "pissa"}, "'pissa', which also changes the base weights"),
        ({"init_lora_weights": "pissa_niter_4"}, "path_initial_model_for_weight_conversion"),
        ({"init_lora_weights": "olora"}, "'olora'"),
        ({"init_lora_weights": "corda"}, "'corda'"),
        ({"init_lora_weights": "loftq"}, "merge it into the weights that it was trained on"),
        ({"init_lora_weights": "lora_ga"}, "'lora_ga'"),
        ({"init_lora_weights": "of next year"}, "'of next year'"),
        ({"alora_invocation_tokens": [1]}, "the field alora_invocation_tokens"),
        ({"trainable_token_indices": [1]}, "the field trainable_token_indices"),
        ({"a_field_of_next_year": {"k": 1}}, "the field a_field_of_next_year"),
        ({"r": 0}, "a rank of 0"),
        ({"r": "8"}, "does not hold settings of a LoRA"),
        ({"lora_alpha": math.nan}, "no rank and no alpha"),
        ({"rank_pattern": ["q_proj"]}, "does not hold settings of a LoRA"),
        ({"alpha_pattern": {"(": 1}}, "does not hold settings of a LoRA"),
        ({"target_modules": 3}, "target_modules is 3"),
    ],
)
def test_what_cannot_be_merged_exactly_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError) as error:
        read_peft_settings("FILE", {"peft_type": "LORA", "r": 4, "lora_alpha": 4, **fields})
    assert reason in str(error.value) and str(error.value).startswith("FILE ")


@pytest.mark.parametrize("start", [True, False, "gaussian", "eva", "orthogonal", "mica"])
def test_initialisations_that_keep_the_base_are_read(start: Any) -> None:
    fields = {"r": 4, "lora_alpha": 4, "init_lora_weights": start, "runtime_config": {"x": 1}}
    assert read_peft_settings("FILE", fields).factor_of(["any"]) == 1
