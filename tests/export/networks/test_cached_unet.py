"""A UNet in two parts computes what the whole UNet does, whatever of it is taken from before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import diffusers
import torch

from synfer_rt.errors import UserError
from synfer_rt.export.networks.cached_unet import (
    ReusingDenoiser,
    SplitUNet,
    StoringDenoiser,
    check_depth,
)
from synfer_rt.export.networks.modules import Denoiser
from synfer_rt.export.onnx.forward_graph import export_onnx

WIDTH, CLASSES, SHAPE = 8, 5, (3, 4, 12, 8)
ATTENTION, PLAIN = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")


def make_unet(levels: int = 2, outermost: tuple[str, str] = ATTENTION, **options: Any) -> Any:
    """Random weights; the levels below the outermost have attention."""
    torch.manual_seed(0)
    kinds = [outermost, *[ATTENTION] * (levels - 1)]
    parts = {
        "sample_size": 8,
        "block_out_channels": (8, 16, 16)[:levels],
        "down_block_types": [down for down, _ in kinds],
        "up_block_types": [up for _, up in reversed(kinds)],
        "layers_per_block": 2,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return diffusers.UNet2DConditionModel(**(parts | options)).eval()


def inputs(shape: tuple[int, ...] = SHAPE) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    draw = torch.Generator().manual_seed(1)
    text = torch.randn(shape[0], 6, WIDTH, generator=draw)
    labels = torch.randn(shape[0], CLASSES, generator=draw)
    latents = torch.randn(shape, generator=draw)
    return latents, torch.tensor(321.0), {"text": text, "class_labels": labels}


def whole(unet: Any, latents: torch.Tensor, timestep: torch.Tensor, given: dict) -> torch.Tensor:
    """diffusers' own forward pass."""
    labels = given["class_labels"] if unet.class_embedding is not None else None
    return unet(latents, timestep, given["text"], class_labels=labels).sample


PROJECTED = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": CLASSES}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"levels": 3, "layers_per_block": [1, 2, 1]},
        {"levels": 1, "mid_block_type": None},
        {"outermost": PLAIN, "mid_block_type": None},
        {"transformer_layers_per_block": 2, "use_linear_projection": True},
        PROJECTED,
        {**PROJECTED, "class_embeddings_concat": True},
        {"time_embedding_act_fn": "silu", "center_input_sample": True},
        {"resnet_time_scale_shift": "scale_shift"},
    ],
    ids=str,
)
@torch.no_grad()
def test_at_every_depth_both_ways_give_the_whole_unets_output(options: dict[str, Any]) -> None:
    unet, (latents, timestep, given) = make_unet(**options), inputs()
    wanted = whole(unet, latents, timestep, given)
    connections = 1 + sum(len(b.resnets) + bool(b.downsamplers) for b in unet.down_blocks)
    for depth in range(1, connections):
        split = SplitUNet(unet, depth)
        output, features = split(latents, timestep, given)
        torch.testing.assert_close(output, wanted, rtol=0, atol=0)
        again, kept = split(latents, timestep, given, features)
        torch.testing.assert_close(again, wanted, rtol=0, atol=0)
        assert kept is features
    with pytest.raises(UserError, match=rf"from 1 to {connections - 1}, .* got {connections}\."):
        SplitUNet(unet, connections)


@torch.no_grad()
def test_sizes_that_do_not_halve_are_upsampled_to_the_skip_connection() -> None:
    unet, (latents, timestep, given) = make_unet(3), inputs((2, 4, 7, 10))
    wanted = whole(unet, latents, timestep, given)
    for depth in range(1, 9):
        output, features = SplitUNet(unet, depth)(latents, timestep, given)
        torch.testing.assert_close(output, wanted, rtol=0, atol=0)
        again, _ = SplitUNet(unet, depth)(latents, timestep, given, features)
        torch.testing.assert_close(again, wanted, rtol=0, atol=0)


@torch.no_grad()
def test_the_features_are_what_the_nth_layer_from_the_end_takes() -> None:
    """DeepCache, figure 3: they join the N-th skip connection in front of that layer."""
    unet, (latents, timestep, given) = make_unet(3), inputs()
    last = [resnet for block in unet.up_blocks for resnet in block.resnets]
    skips = [unet.conv_in]
    for block in unet.down_blocks:
        skips += [*block.attentions, *(block.downsamplers or ())]
    seen: dict[int, torch.Tensor] = {}
    for depth, resnet in enumerate(reversed(last), 1):
        resnet.register_forward_pre_hook(
            lambda module, args, depth=depth: seen.__setitem__(depth, args[0])
        )
    whole(unet, latents, timestep, given)
    joined = dict(seen)
    for depth in range(1, len(last)):
        _, features = SplitUNet(unet, depth)(latents, timestep, given)
        channels = features.shape[1]
        torch.testing.assert_close(features, joined[depth][:, :channels], rtol=0, atol=0)
        assert joined[depth].shape[1] - channels == _channels(skips[depth - 1])


def _channels(module: Any) -> int:
    return getattr(module, "out_channels", None) or module.config.out_channels


@torch.no_grad()
def test_old_features_change_the_output_and_the_deep_part_is_not_computed() -> None:
    unet, (latents, timestep, given) = make_unet(), inputs()
    split = SplitUNet(unet, 2)
    output, features = split(latents, timestep, given)

    def fail(*_: Any) -> None:
        raise AssertionError("the deep part was computed")

    for module in (unet.mid_block, unet.down_blocks[1], unet.up_blocks[0]):
        for part in module.modules():
            part.register_forward_pre_hook(fail)
    later, _ = split(0.9 * latents, timestep - 20, given, features)
    assert (later - output).abs().max() > 1e-3
    with pytest.raises(AssertionError, match="was computed"):
        split(latents, timestep, given)


def test_an_engine_of_layers_without_attention_takes_no_text(tmp_path: Path) -> None:
    unet, (latents, timestep, _) = make_unet(outermost=PLAIN), inputs((2, 4, 8, 8))
    denoiser = Denoiser(unet, ("text",)).eval()
    draw = torch.Generator().manual_seed(2)
    given = {
        "latents": latents,
        "history": torch.randn(2, 3, 4, 8, 8, generator=draw),
        "timestep": timestep,
        "guidance": torch.tensor([1.5, 3.0]),
        "coefficients": torch.randn(4, 5, generator=draw),
        "text": torch.randn(2, 2, 6, WIDTH, generator=draw),
    }
    with torch.no_grad():
        *wanted, features = StoringDenoiser(denoiser, 3)(*given.values())
    file, static = tmp_path / "denoiser.reusing.onnx", frozenset({"timestep", "coefficients"})
    export_onnx(
        ReusingDenoiser(denoiser, 3).eval(),
        {"features": features, **given},
        ("next_latents", "next_history", "prediction"),
        static,
        file,
        "fp32",
        optional=frozenset({"text"}),
    )
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    del given["text"]
    arrays = {name: value.numpy() for name, value in {"features": features, **given}.items()}
    assert {node.name for node in session.get_inputs()} == arrays.keys()
    for found, value in zip(session.run(None, arrays), wanted, strict=True):
        torch.testing.assert_close(torch.from_numpy(np.asarray(found)), value, atol=1e-4, rtol=0)


@pytest.mark.parametrize("depth", [0, -1])
def test_a_depth_below_one_is_refused(depth: int) -> None:
    with pytest.raises(UserError, match=rf"`cache_depth` must be from 1 to 5, .* got {depth}\."):
        SplitUNet(make_unet(), depth)


def test_a_unet_that_embeds_guidance_caches_nothing() -> None:
    with pytest.raises(UserError, match=r"this UNet embeds guidance, .* leave out `cache_depth`"):
        check_depth(make_unet(time_cond_proj_dim=8), 1, free_sizes=False)
