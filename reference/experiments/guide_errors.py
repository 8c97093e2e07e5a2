"""How far the moves of a guide from another network are from autograd's, on each runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from reference.experiments.architectures import (
    ARCHITECTURES,
    NAMES,
    SCHEME,
    Logits,
    network,
    save_folder,
)
from reference.experiments.kinks import clearance
from synfer_rt.backends.openvino import OpenVinoEngine
from synfer_rt.backends.sessions import open_session
from synfer_rt.bundle.engine_specs import EngineSpec
from synfer_rt.errors import UserError
from synfer_rt.export.build.entries import interface
from synfer_rt.export.networks.classifier import parse_classifier
from synfer_rt.export.networks.guide import LatentGuide
from synfer_rt.export.networks.guiding_classifier import ExpressionLoss, read_guiding
from synfer_rt.export.networks.guiding_onnx import GuidingOnnx
from synfer_rt.export.networks.image_processor import Preparation
from synfer_rt.export.onnx.gradient_graph import export_gradient
from synfer_rt.export.tensorrt.compile import compile_plan

IMAGE = (64, 64)
BATCHES = (1, 3)
MARGIN = 2.0
"""An image is clear if every unit is at least this many rounding errors from a kink (kinks.py)."""
MOST, AT_ONCE = 64, 4
"""Images that are tried, and how many at a time."""
STATIC = frozenset({"clean", "coefficients"})
"""Inputs that are the same for all images."""
GPU = "sm89"
"""The GPUs that TensorRT-RTX compiles for, here without one."""
RUNTIMES = ("onnxruntime-cpu", "openvino-cpu")
FORMS = ("ONNX", "saved folder")
_A, _B = 0.8, -0.6
"""The clean image is _A * latents + _B * prediction."""


class Prepared(nn.Module):
    """A network with the preparation of images [B, 3, H, W] in [-1, 1] in front of it."""

    rows: Tensor
    columns: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, original: nn.Module, preparation: Preparation) -> None:
        super().__init__()
        self.original = original
        for name, matrix in zip(("rows", "columns"), preparation.matrices(IMAGE), strict=True):
            self.register_buffer(name, torch.from_numpy(matrix))
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preparation, name))
            self.register_buffer(name, values[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        images = self.rows @ (images / 2 + 0.5) @ self.columns.T
        return self.original((images - self.mean) / self.std)


def from_onnx(name: str, folder: Path) -> tuple[nn.Module, nn.Module]:
    """The architecture `name` as PyTorch has it, and as it is read from its ONNX file."""
    made, size, file = network(name), ARCHITECTURES[name].size, folder / "network.onnx"
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    given = (torch.zeros(2, 3, size, size),)
    torch.onnx.export(made, given, file, dynamo=True, dynamic_shapes=shapes, verbose=False)
    source = parse_classifier(file, SCHEME, f"{size},rgb,imagenet")
    bilinear = Preparation((size, size), None, source.mean, source.std, Image.Resampling.BILINEAR)
    return Prepared(made, bilinear), GuidingOnnx(source, IMAGE)


def from_folder(name: str, folder: Path) -> tuple[nn.Module, nn.Module]:
    """The architecture `name` of transformers, and how it is read from its saved folder."""
    made = network(name)
    assert isinstance(made, Logits)
    save_folder(made, name, folder)
    read: Any = read_guiding(folder)[0]
    return Prepared(made, read.preparation), read


def random_inputs(batch: int, seed: int = 0) -> dict[str, Tensor]:
    """Inputs of a LatentGuide of images; what it adds to are zeros."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=draw)

    return {
        "latents": normal(3, *IMAGE),
        "prediction": normal(3, *IMAGE),
        "next_latents": torch.zeros(batch, 3, *IMAGE),
        "next_history": torch.zeros(batch, 3, 3, *IMAGE),
        "coefficients": torch.ones(4, 5),
        "clean": torch.tensor([_A, _B]),
        "target": normal(len(NAMES)).softmax(-1),
        "strength": torch.ones(batch),
    }


def part(given: Mapping[str, Tensor], rows: slice) -> dict[str, Tensor]:
    """The inputs of some of the images."""
    return {name: value if name in STATIC else value[rows] for name, value in given.items()}


def clean_images(given: Mapping[str, Tensor]) -> Tensor:
    """The predicted clean images [B, 3, H, W]."""
    return _A * given["latents"] + _B * given["prediction"]


def moves(network: nn.Module, given: Mapping[str, Tensor], kind: torch.dtype) -> np.ndarray:
    """The moves [B, 3, H, W] by the gradient that autograd computes of a network, in `kind`."""
    loss = ExpressionLoss(network, NAMES, SCHEME).to(kind)
    parts = []
    for first in range(0, len(given["latents"]), AT_ONCE):
        some = part(given, slice(first, first + AT_ONCE))
        clean = clean_images(some).to(kind).requires_grad_()
        gradient = torch.autograd.grad(loss(clean, some["target"].to(kind)), clean)[0]
        parts.append(gradient / gradient.square().mean((1, 2, 3), keepdim=True).sqrt() / -_B)
    loss.to(torch.float32)
    return torch.cat(parts).numpy()


def relative_errors(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each image [n] the largest difference relative to its largest wanted value."""
    difference, largest = (np.abs(x).max((1, 2, 3)) for x in (found - wanted, wanted))
    return difference / largest


def tried_images(original: nn.Module) -> tuple[dict[str, Tensor], np.ndarray]:
    """Inputs of random images, the clearest first, and how clear each is (kinks.clearance).

    So many that max(BATCHES) are clear, but at most MOST. How well gradients agree on an image has
    no part in the choice.
    """
    tried, distances = [], []
    while len(tried) < MOST // AT_ONCE:
        tried.append(random_inputs(AT_ONCE, len(tried)))
        distances += clearance(original, clean_images(tried[-1])).tolist()
        if sum(distance >= MARGIN for distance in distances) >= max(BATCHES):
            break
    order = np.argsort(distances)[::-1].copy()
    joined = {
        name: value if name in STATIC else torch.cat([one[name] for one in tried])[order]
        for name, value in tried[0].items()
    }
    return joined, np.array(distances)[order]


def measure(name: str, form: str, threads: int) -> dict[str, Any]:
    """The largest relative errors of the moves of clear images, and whether a plan compiles.

    Of each runtime; "float64" is the error of the network that is read, by autograd in float64,
    against the original, also in float64; "PyTorch" that of autograd itself in float32 against
    float64. "clearance" is that of the least clear of them, "tried" has clearance and error of each
    image that was tried; None and empty for a network without kinks.
    """
    with TemporaryDirectory() as directory:
        folder = Path(directory)
        original, read = (from_onnx if form == FORMS[0] else from_folder)(name, folder)
        given, distances = tried_images(original)
        clear = part(given, slice(max(BATCHES)))
        single, exact = moves(original, given, torch.float32), moves(original, clear, torch.float64)
        errors = {
            "float64": relative_errors(moves(read, clear, torch.float64), exact).max(),
            "PyTorch": relative_errors(single[: max(BATCHES)], exact).max(),
        }
        file = folder / "guide.latent.onnx"
        guide = LatentGuide(ExpressionLoss(read, NAMES, SCHEME)).requires_grad_(False).eval()
        outputs = ("guided_latents", "guided_history")
        export_gradient(guide, random_inputs(2), outputs, STATIC, file, "fp32")
        tried, kinked = np.zeros(len(distances)), bool(np.isfinite(distances).all())
        for runtime, run in _runtimes(file, threads).items():
            on_clear = [
                relative_errors(run(part(given, slice(batch))), single[:batch]).max()
                for batch in BATCHES
            ]
            errors[runtime] = max(on_clear)
            for first in range(0, len(distances), AT_ONCE):
                rows = slice(first, first + AT_ONCE)
                apart = relative_errors(run(part(given, rows)), single[rows])
                tried[rows] = np.maximum(tried[rows], apart)
        return {
            "network": name,
            "form": form,
            "errors": {kind: float(error) for kind, error in errors.items()},
            "clearance": float(distances[max(BATCHES) - 1]) if kinked else None,
            "tried": np.stack([distances, tried], 1).tolist() if kinked else [],
            "plan": _plan(file, folder),
        }


def _runtimes(file: Path, threads: int) -> dict[str, Callable[[Mapping[str, Tensor]], np.ndarray]]:
    """What each of RUNTIMES computes: the moved images, by the inputs."""
    spec = EngineSpec.from_manifest(
        "guide.latent", {**interface(file), "file": file.name, "precision": "fp32"}
    )
    session = open_session(file, "onnxruntime-cpu", threads)
    engine = OpenVinoEngine(spec, file, threads, "f32", IMAGE[0] * IMAGE[1])

    def arrays(given: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        return {tensor.name: given[tensor.name].numpy() for tensor in spec.inputs}

    return {
        "onnxruntime-cpu": lambda given: session.run(["guided_latents"], arrays(given))[0],
        "openvino-cpu": lambda given: engine.run(arrays(given))["guided_latents"],
    }


def _plan(file: Path, folder: Path) -> str:
    """What became of the plan: "compiled", or why not."""
    log, batch = folder / "log", (1, 2, 4)
    try:
        compile_plan("guide.latent", file, folder, "tensorrt-rtx", (GPU,), batch, "fp32", log)
    except UserError as error:
        return f"not compiled: {error}"
    return "compiled"
