"""The guides' engines compute what torch.autograd says, sample by sample, and compile for GPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import diffusers
import torch
from torch import Tensor, nn

from synfer_rt.errors import UserError
from synfer_rt.export.networks.guide import LatentGuide, TextGuide
from synfer_rt.export.networks.guiding_classifier import (
    Decoded,
    ExpressionLoss,
    ExpressionNet,
    NetConfig,
)
from synfer_rt.export.networks.modules import Denoiser
from synfer_rt.export.onnx.gradient_graph import export_gradient
from synfer_rt.export.tensorrt.compile import compile_plan
from synfer_rt.vocabulary import label_schemes

SCHEME = "affectnet-8"
LATENT, TOKENS, WIDTH = (4, 8, 8), 5, 16
CLEAN = torch.tensor([0.8, -0.6])


@dataclass(frozen=True)
class Guided:
    """A guide's module, its example inputs by batch size, and its engine."""

    module: nn.Module
    inputs: Callable[[int], dict[str, Tensor]]
    path: Path

    def run(self, inputs: dict[str, Tensor]) -> list[np.ndarray]:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(self.path), providers=["CPUExecutionProvider"])
        found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        return [np.asarray(value) for value in found]


def is_text(guided: Guided) -> bool:
    return isinstance(guided.module, TextGuide)


def classifier(channels: int, size: int) -> ExpressionNet:
    torch.manual_seed(channels)
    return ExpressionNet(NetConfig(channels, size, 1, (16, 16), SCHEME))


def expression_loss(network: nn.Module) -> ExpressionLoss:
    return ExpressionLoss(network, label_schemes.scheme(SCHEME), SCHEME)


def unet() -> Any:
    """Residual blocks, self- and cross-attention, embeddings of time and class."""
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        mid_block_type="UNetMidBlock2DCrossAttn",
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=6,
    )


def vae() -> Any:
    kind: Any = diffusers.AutoencoderKL  # its annotations allow one level only
    return kind(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=0.4,
        shift_factor=0.1,
        mid_block_add_attention=False,
    )


def drawn(batch: int, *shape: int) -> Tensor:
    """Random numbers of which each sample's do not depend on the batch."""
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i in range(batch)]
    )


def text_inputs(batch: int) -> dict[str, Tensor]:
    return {
        "latents": drawn(batch, *LATENT),
        "timestep": torch.tensor(300.0),
        "clean": CLEAN,
        "target": drawn(batch, 8).softmax(-1),
        "strength": 0.1 + drawn(batch).abs(),
        "text": drawn(batch, 2, TOKENS, WIDTH),
        "class_labels": drawn(batch, 2, 6),
    }


def latent_inputs(batch: int) -> dict[str, Tensor]:
    return {
        "latents": drawn(batch, *LATENT),
        "prediction": drawn(batch, *LATENT).flip(1),
        "next_latents": drawn(batch, *LATENT).flip(2),
        "next_history": drawn(batch, 3, *LATENT),
        "coefficients": torch.linspace(-1, 2, 20).view(4, 5),
        "clean": CLEAN,
        "target": drawn(batch, 8).softmax(-1),
        "strength": 0.1 + drawn(batch).abs(),
    }


def export(form: str, path: Path, precision: str = "fp32") -> Guided:
    of_latents = expression_loss(classifier(*LATENT[:2]))
    if form == "latent":
        module: nn.Module = LatentGuide(of_latents)
        inputs, outputs = latent_inputs, ("guided_latents", "guided_history")
    else:
        decoded = expression_loss(Decoded(vae(), classifier(3, 16)))
        denoiser = Denoiser(unet(), ("text", "class_labels"))
        module = TextGuide(denoiser, decoded if form == "text" else of_latents)
        inputs, outputs = text_inputs, ("guided_text",)
    module.requires_grad_(False).eval()
    static = frozenset({"timestep", "clean", "coefficients"})
    export_gradient(module, inputs(2), outputs, static, path, precision)
    return Guided(module, inputs, path)


@pytest.fixture(
    scope="module",
    params=["latent", "text-latent", "text"],
)
def guided(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Guided:
    return export(request.param, tmp_path_factory.mktemp("guide") / f"guide.{request.param}.onnx")


@pytest.mark.parametrize("batch", [1, 3])
def test_the_engine_agrees_with_autograd_at_any_batch(guided: Guided, batch: int) -> None:
    given = guided.inputs(batch)
    results = guided.module(*given.values())
    wanted = (results,) if is_text(guided) else results
    before = ("text",) if is_text(guided) else ("next_latents", "next_history")
    for found, want, name in zip(guided.run(given), wanted, before, strict=True):
        move = np.abs(found - given[name].numpy()).max()
        assert move > 0
        # Relative to what the guide adds, which is far less than what it adds it to.
        assert np.abs(found - want.numpy()).max() < 1e-3 * move


def test_a_sample_does_not_depend_on_its_batch(guided: Guided) -> None:
    for together, alone in zip(
        guided.run(guided.inputs(3)), guided.run(guided.inputs(1)), strict=True
    ):
        np.testing.assert_allclose(together[:1], alone, atol=1e-5)


def test_only_the_batch_is_free_and_no_operator_is_foreign(guided: Guided) -> None:
    model = onnx.load(guided.path)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain for entry in model.opset_import} <= {"", "ai.onnx"}
    assert [entry.version for entry in model.opset_import] == [21]
    for value in (*model.graph.input, *model.graph.output):
        shape = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        free = value.name not in ("timestep", "clean", "coefficients")
        assert shape[:1] == (["B"] if free else shape[:1])
        assert all(isinstance(size, int) and size < 127 for size in shape[free:])


def test_the_text_moves_by_the_strength_towards_the_target(guided: Guided) -> None:
    if not is_text(guided):
        pytest.skip("this form moves latents")
    given = guided.inputs(2) | {"strength": torch.tensor([0.0, 0.03])}
    (moved,) = guided.run(given)
    text = given["text"].numpy()
    np.testing.assert_array_equal(moved[:, 0], text[:, 0])  # the unconditional branch
    np.testing.assert_allclose(moved[0], text[0], atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(moved[1] - text[1], axis=-1)[1], 0.03, rtol=1e-3)
    module: Any = guided.module

    def loss(text: np.ndarray) -> float:
        rest = given["class_labels"][1:, 1]
        prediction = module.denoiser.unet(
            given["latents"][1:], 300, torch.tensor(text)[None, 1], class_labels=rest
        ).sample
        x0 = CLEAN[0] * given["latents"][1:] + CLEAN[1] * prediction
        return float(module.loss(x0, given["target"][1:]))

    with torch.no_grad():
        assert loss(moved[1]) < loss(text[1])


def test_the_latent_form_is_the_step_of_a_pushed_prediction(guided: Guided) -> None:
    if is_text(guided):
        pytest.skip("this form moves text")
    given = guided.inputs(2)
    prediction, coefficients = given["prediction"], given["coefficients"]
    history = drawn(2, 3, *LATENT).flip(3)

    def step(prediction: Tensor) -> Tensor:
        stack = torch.cat([given["latents"][:, None], prediction[:, None], history], 1)
        return torch.einsum("ij,bj...->bi...", coefficients, stack)

    plain = step(prediction)
    latents, rest = guided.run(given | {"next_latents": plain[:, 0], "next_history": plain[:, 1:]})
    x0 = (CLEAN[0] * given["latents"] + CLEAN[1] * prediction).requires_grad_()
    module: Any = guided.module
    (gradient,) = torch.autograd.grad(module.loss(x0, given["target"]), x0)
    rms = gradient.square().mean((1, 2, 3), keepdim=True).sqrt()
    push = -given["strength"].view(-1, 1, 1, 1) * gradient / rms
    wanted = step(prediction + push / CLEAN[1])
    np.testing.assert_allclose(latents, wanted[:, 0], atol=1e-4)
    np.testing.assert_allclose(rest, wanted[:, 1:], atol=1e-4)


class Strided(nn.Module):
    """A linear layer on rows that do not lie one after another, and its gradient."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.layer(x.transpose(1, 2)).square().sum(), x)[0]


class Repeats(nn.Module):
    """The same matrix for each sample, joined to what differs."""

    def forward(self, x: Tensor) -> Tensor:
        same = torch.linspace(0, 1, 12).view(4, 3)
        return torch.cat([x, same.expand(x.shape[0], 4, 3)], 2) * 2


@pytest.mark.parametrize("module", [Strided(), Repeats()])
def test_what_samples_have_in_common_takes_any_batch(tmp_path: Path, module: nn.Module) -> None:
    module.requires_grad_(False)

    def inputs(batch: int) -> dict[str, Tensor]:
        return {"x": drawn(batch, 4, 3)}

    export_gradient(module, inputs(2), ("y",), frozenset(), tmp_path / "y.onnx", "fp32")
    engine = Guided(module, inputs, tmp_path / "y.onnx")
    for batch in (1, 3):
        (found,) = engine.run(inputs(batch))
        np.testing.assert_allclose(found, module(inputs(batch)["x"]), atol=1e-5)


class MixesTheBatch(nn.Module):
    """Its layout cannot be said without the batch's size twice."""

    def forward(self, x: Tensor) -> Tensor:
        return (x @ x.T).reshape(-1).reshape(x.shape[0], x.shape[0]) * 2


def test_a_graph_that_would_fix_the_batch_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "guide.onnx"
    with pytest.raises(UserError, match="free batch"):
        export_gradient(MixesTheBatch(), {"x": drawn(2, 4)}, ("y",), frozenset(), path, "fp32")
    assert not path.exists()


def test_fp16_weights_shrink_the_file_and_change_little(guided: Guided, tmp_path: Path) -> None:
    if is_text(guided):
        pytest.skip("one form tells enough")
    half = export("latent", tmp_path / "guide.latent.onnx", "fp16")
    assert half.path.stat().st_size < guided.path.stat().st_size
    for found, wanted in zip(half.run(half.inputs(3)), guided.run(half.inputs(3)), strict=True):
        assert 0 < np.abs(found - wanted).max() < 2e-2


def compiled(path: Path, out: Path) -> dict[str, Any]:
    """The manifest's entry of its plan for batches of 1 to 8; the plan must be there."""
    pytest.importorskip("tensorrt_rtx", reason="compiling needs tensorrt-rtx")
    log, target = out / "log", "tensorrt-rtx"
    made = compile_plan(path.stem, path, out, target, ("sm89",), (1, 4, 8), "fp32", log)
    assert (out / made.entry["file"]).stat().st_size > 10_000
    return made.entry


def test_tensorrt_rtx_compiles_it_ahead_of_time(guided: Guided, tmp_path: Path) -> None:
    profiles = compiled(guided.path, tmp_path)["profiles"]
    assert profiles["latents"]["max"] == [8, *LATENT] and profiles["clean"]["min"] == [2]


@pytest.mark.slow
def test_tensorrt_rtx_compiles_weights_stored_as_fp16(tmp_path: Path) -> None:
    form = export("text-latent", tmp_path / "guide.text-latent.onnx", "fp16")
    assert compiled(form.path, tmp_path)["precision"] == "fp32"
