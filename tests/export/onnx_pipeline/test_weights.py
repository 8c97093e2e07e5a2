"""Weights come out of graphs of both of PyTorch's exporters, in float32 and float16."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import onnx
import torch
from torch import Tensor, nn

from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.contents import Checkpoint
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.onnx_pipeline.reading import write_checkpoint
from synfer_rt.export.onnx_pipeline.weights import parameters_of
from tests.cache_layouts import LAYOUTS, laid_out


class Block(nn.Module):
    """A layer within a list of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q = nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, n, 8] -> [B, n, 8]."""
        return self.to_q(x)


class Layers(nn.Module):
    """Every kind of layer that has parameters, each with its own values."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.conv_in = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.blocks = nn.ModuleList([Block()])
        self.layer_norm = nn.LayerNorm(8)
        self.proj = nn.Linear(8, 6)
        self.time = nn.Linear(4, 8)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=draw)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """[B, 3, h, w], [B, 4] -> [B, h w, 6]."""
        x = self.norm(self.conv_in(x)) + self.time(time)[:, :, None, None]
        tokens = x.flatten(2).transpose(1, 2)
        return self.proj(self.layer_norm(self.blocks[0](tokens)))


def exported(network: nn.Module, path: Path, dynamo: bool, opset: int = 17) -> onnx.ModelProto:
    given = (torch.randn(2, 3, 8, 8), torch.randn(2, 4))
    half = next(network.parameters()).dtype == torch.float16
    given = tuple(x.half() if half else x for x in given)
    torch.onnx.export(
        network.eval(),
        given,
        path,
        dynamo=dynamo,
        opset_version=18 if dynamo else opset,
        input_names=["x", "time"],
        verbose=False,
    )
    return onnx.load(path)


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_every_parameter_is_found_by_its_name(tmp_path: Path, dynamo: bool, half: bool):
    network = Layers().half() if half else Layers()
    found = parameters_of(exported(network, tmp_path / "model.onnx", dynamo), network)
    for name, parameter in network.named_parameters():
        np.testing.assert_array_equal(found[name], parameter.detach().numpy(), name)


def test_weights_that_are_equal_and_merged_are_found_in_both_layers(tmp_path: Path):
    network = Layers()
    for part in (network.norm, network.layer_norm):
        nn.init.ones_(part.weight)
        nn.init.zeros_(part.bias)
    found = parameters_of(exported(network, tmp_path / "model.onnx", dynamo=False), network)
    assert found.keys() == {name for name, _ in network.named_parameters()}
    np.testing.assert_array_equal(found["norm.weight"], np.ones(8))


def test_a_graph_without_names_gives_none_of_the_weights_that_it_transposed(tmp_path: Path):
    network = Layers()
    model = exported(network, tmp_path / "model.onnx", dynamo=False)
    for i, node in enumerate(model.graph.node):
        node.name = f"node_{i}"
    found = parameters_of(model, network)
    assert "conv_in.weight" in found and "blocks.0.to_q.weight" not in found


def graphs_of(read: Checkpoint, half: bool) -> dict[str, tuple[Any, ...]]:
    """Each graph: its network, the method it is traced from, inputs, and the names of its ends."""
    unet, vae, text = read.unet, read.vae, read.text_encoder
    kind = torch.float16 if half else torch.float32
    for network in (unet, vae, text):
        network.to(kind)
    if half:  # torch writes the mask of its other attention in float32
        text.set_attn_implementation("eager")

    def decode(latent_sample: Tensor) -> Tensor:
        return vae.__class__.decode(vae, latent_sample, return_dict=False)[0]

    def encode(sample: Tensor) -> Tensor:
        return vae.__class__.encode(vae, sample, return_dict=False)[0].parameters

    ids, pixels = torch.randint(0, 9, (2, 20)), torch.randn(2, 3, 16, 16, dtype=kind)
    latents = torch.randn(2, 4, 8, 8, dtype=kind)
    states = torch.randn(2, 20, unet.config.cross_attention_dim, dtype=kind)
    noisy = latents, torch.tensor(3), states
    named = ["sample", "timestep", "encoder_hidden_states"]
    return {
        "text_encoder": (text, None, (ids,), ["input_ids"], ["last_hidden_state", "pooler_output"]),
        "unet": (unet, None, noisy, named, ["out_sample"]),
        "vae_encoder": (vae, encode, (pixels,), ["sample"], ["latent_parameters"]),
        "vae_decoder": (vae, decode, (latents,), ["latent_sample"], ["sample"]),
    }


def as_optimum(checkpoint: Path, out: Path, half: bool = False, beside: bool = False) -> None:
    """The pipeline that `optimum-cli export onnx` writes of a checkpoint, by its own means.

    With `half` in float16, with `beside` with the weights in model.onnx_data.
    """
    graphs = graphs_of(read_checkpoint(checkpoint), half)
    for name in ("scheduler", "tokenizer"):
        shutil.copytree(checkpoint / name, out / name)
    shutil.copyfile(checkpoint / "model_index.json", out / "model_index.json")
    for name, (network, forward, given, inputs, outputs) in graphs.items():
        (out / name).mkdir()
        part = "vae" if name.startswith("vae") else name
        shutil.copyfile(checkpoint / part / "config.json", out / name / "config.json")
        own = network.forward
        network.forward = forward or own
        torch.onnx.export(
            network,
            given,
            out / name / "model.onnx",
            dynamo=False,
            opset_version=17,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={x: {0: "batch_size"} for x in [*inputs, *outputs] if x != "timestep"},
        )
        network.forward = own
        if beside:
            move_weights(out / name / "model.onnx")


def move_weights(path: Path) -> None:
    """Move the weights of an ONNX file into model.onnx_data, as optimum names it.

    ONNX Runtime reads no shapes there.
    """
    model = onnx.load(path)
    settings = {"location": f"{path.name}_data", "size_threshold": 128}
    onnx.save(model, path, save_as_external_data=True, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", ["plain", "sd2"])
def test_the_weights_of_a_pipeline_of_torchscript_come_back(
    request, tmp_path: Path, kind: str, half: bool, beside: bool
):
    checkpoint = request.getfixturevalue(f"{kind}_checkpoint")
    as_optimum(checkpoint, tmp_path / "pipeline", half, beside)
    write_checkpoint(tmp_path / "pipeline", tmp_path / "again")
    one, other = read_checkpoint(checkpoint), read_checkpoint(tmp_path / "again")
    for part in ("unet", "vae", "text_encoder"):
        tensors = getattr(other, part).state_dict()
        for name, tensor in getattr(one, part).state_dict().items():
            wanted = tensor.half().float() if half else tensor
            np.testing.assert_array_equal(tensors[name], wanted, name)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_beside_the_graphs_are_read_however_they_lie(
    plain_checkpoint: Path, tmp_path: Path, layout: str
):
    as_optimum(plain_checkpoint, tmp_path / "pipeline", beside=True)
    write_checkpoint(laid_out(tmp_path / "pipeline", tmp_path / "place", layout), tmp_path / "out")
    one, other = read_checkpoint(plain_checkpoint), read_checkpoint(tmp_path / "out")
    for name, tensor in one.unet.state_dict().items():
        np.testing.assert_array_equal(other.unet.state_dict()[name], tensor, name)


@pytest.mark.slow
def test_weights_that_are_not_the_graphs_are_refused(plain_checkpoint: Path, tmp_path: Path):
    as_optimum(plain_checkpoint, tmp_path / "pipeline")
    path = tmp_path / "pipeline/unet/model.onnx"
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = ""
    onnx.save(model, path)
    with pytest.raises(UserError, match=r"unet/model\.onnx has no weights by the names of"):
        write_checkpoint(tmp_path / "pipeline", tmp_path / "again")
    as_optimum(plain_checkpoint, tmp_path / "other")
    config = tmp_path / "other/unet/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"act_fn": "gelu"}))
    with pytest.raises(UserError, match=r"unet/model\.onnx computes something else"):
        write_checkpoint(tmp_path / "other", tmp_path / "another")
