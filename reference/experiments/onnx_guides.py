"""Guides from other people's networks: whether their moves are autograd's, and whether they steer.

    python -m reference.experiments.onnx_guides --renders DIR

Each architecture becomes a guide as an ONNX file and, if transformers has it, as a saved folder.
The guide moves images themselves, so that its gradient is that of the network and its preparation
of images alone. Every row is kept in `--work`; with `--network` one row after the other can be
made by commands of its own. The last command writes the page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from reference.evaluation import pages
from reference.evaluation.pages import table
from reference.experiments import setting as settings
from reference.experiments import steering
from reference.experiments.architectures import (
    ARCHITECTURES,
    NAMES,
    SCHEME,
    Logits,
    network,
    save_folder,
)
from reference.experiments.setting import Setting
from synfer_rt.backends.openvino import OpenVinoEngine
from synfer_rt.backends.sessions import open_session
from synfer_rt.bundle.engine_specs import EngineSpec
from synfer_rt.errors import UserError
from synfer_rt.export.build.entries import interface
from synfer_rt.export.build.hashes import EXPORT, code_hash
from synfer_rt.export.networks.classifier import parse_classifier
from synfer_rt.export.networks.guide import LatentGuide
from synfer_rt.export.networks.guiding_classifier import ExpressionLoss, read_guiding
from synfer_rt.export.networks.guiding_onnx import GuidingOnnx
from synfer_rt.export.networks.image_processor import Preparation
from synfer_rt.export.onnx.gradient_graph import export_gradient
from synfer_rt.export.tensorrt.compile import compile_plan
from synfer_rt.export.training import cache

GATE = 1e-5
IMAGE = (64, 64)
BATCHES = (1, 3)
NOISE, BEND = 2e-6, 1e-6
"""An image is clear if its gradient is nearly linear over relative changes of the pixels by NOISE:
what is in the middle between two is off by at most BEND."""
_MOST, _AT_ONCE = 32, 4
GPU = "sm89"
"""The GPUs that TensorRT-RTX compiles for, here without one."""
RUNTIMES = ("onnxruntime-cpu", "openvino-cpu")
FORMS = ("ONNX", "saved folder")
_DECIDING = ("lifting/*.py", "networks/gui*.py", "networks/image_p*.py", "onnx/*_*.py")
"""The code that decides the moves."""
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


def moves(
    original: nn.Module, given: Mapping[str, Tensor], kind: torch.dtype, change: float = 0
) -> np.ndarray:
    """The moves [B, 3, H, W] by the gradient of the original network, computed in `kind`.

    `change` is the relative size of a random change of the images.
    """
    loss = ExpressionLoss(original, NAMES, SCHEME).to(kind)
    clean = (_A * given["latents"] + _B * given["prediction"]).to(kind)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1), dtype=kind)
    clean = (clean * (1 + change * noise)).requires_grad_()
    gradient = torch.autograd.grad(loss(clean, given["target"].to(kind)), clean)[0]
    loss.to(torch.float32)
    return (gradient / gradient.square().mean((1, 2, 3), keepdim=True).sqrt() / -_B).numpy()


def relative_errors(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each image [n] the largest difference relative to its largest wanted value."""
    difference, largest = (np.abs(x).max((1, 2, 3)) for x in (found - wanted, wanted))
    return difference / largest


def clear_images(original: nn.Module) -> tuple[dict[str, Tensor], np.ndarray, float]:
    """Inputs of max(BATCHES) images, their moves by autograd, and how far these are from float64.

    At a kink, such as that of ReLU at 0, a gradient has two values, and rounding decides between
    them. So images with a kink nearby are left out: NOISE and BEND say what is near, and autograd
    in float32 must agree with float64 to half of GATE. If too few are clear, those follow on which
    they agree best.
    """
    tried: list[tuple[bool, float, np.ndarray, dict[str, Tensor]]] = []
    for seed in range(_MOST // _AT_ONCE):
        given = random_inputs(_AT_ONCE, seed)
        found = moves(original, given, torch.float32)
        exact, more, less = (
            moves(original, given, torch.float64, change) for change in (0, NOISE, -NOISE)
        )
        rounding, bend = (relative_errors(x, exact) for x in (found, (more + less) / 2))
        unclear = (bend >= BEND) | (rounding >= GATE / 2)
        for i in range(_AT_ONCE):
            one = {k: v[i : i + 1] for k, v in given.items()}
            tried.append((bool(unclear[i]), float(rounding[i]), found[i], one))
        if sum(not one[0] for one in tried) >= max(BATCHES):
            break
    tried.sort(key=lambda one: one[:2])
    _, errors, wanted, inputs = zip(*tried[: max(BATCHES)], strict=True)
    static = {k: random_inputs(1)[k] for k in ("clean", "coefficients")}
    joined = {k: torch.cat([one[k] for one in inputs]) for k in inputs[0]}
    return joined | static, np.stack(wanted), max(errors)


def measure(name: str, form: str, threads: int) -> dict[str, Any]:
    """The largest relative error of the moves on each runtime, and whether a plan compiles.

    "PyTorch" is the error of autograd itself in float32, against float64.
    """
    with TemporaryDirectory() as directory:
        folder = Path(directory)
        original, read = (from_onnx if form == FORMS[0] else from_folder)(name, folder)
        file = folder / "guide.latent.onnx"
        guide = LatentGuide(ExpressionLoss(read, NAMES, SCHEME)).requires_grad_(False).eval()
        outputs, static = ("guided_latents", "guided_history"), frozenset({"clean", "coefficients"})
        export_gradient(guide, random_inputs(2), outputs, static, file, "fp32")
        spec = EngineSpec.from_manifest(
            "guide.latent", {**interface(file), "file": file.name, "precision": "fp32"}
        )
        session = open_session(file, "onnxruntime-cpu", threads)
        engine = OpenVinoEngine(spec, file, threads, "f32", IMAGE[0] * IMAGE[1])
        given, wanted, rounding = clear_images(original)
        errors: dict[str, float] = dict.fromkeys(RUNTIMES, 0.0)
        for batch in BATCHES:
            arrays = {
                tensor.name: given[tensor.name][: None if tensor.name in static else batch].numpy()
                for tensor in spec.inputs
            }
            found = {
                "onnxruntime-cpu": session.run(outputs[:1], arrays)[0],
                "openvino-cpu": engine.run(arrays)[outputs[0]],
            }
            for runtime in RUNTIMES:
                apart = relative_errors(found[runtime], wanted[:batch])
                errors[runtime] = max(errors[runtime], float(apart.max()))
        errors["PyTorch"] = rounding
        return {"network": name, "form": form, "errors": errors, "plan": _plan(file, folder)}


def _plan(file: Path, folder: Path) -> str:
    """What became of the plan: "compiled", or why not."""
    log, batch = folder / "log", (1, 2, 4)
    try:
        compile_plan("guide.latent", file, folder, "tensorrt-rtx", (GPU,), batch, "fp32", log)
    except UserError as error:
        return f"not compiled: {error}"
    return "compiled"


def rows_of(names: Sequence[str], setting: Setting) -> list[dict[str, Any]]:
    """The rows of these architectures; those that `work` has are not made again."""
    files = (file for pattern in _DECIDING for file in EXPORT.glob(pattern))
    code = code_hash(*sorted(file.relative_to(EXPORT).as_posix() for file in files))
    folder = setting.work / f"onnx-guides-{cache.key(code, torch.__version__, NOISE)}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in names:
        for form in FORMS if ARCHITECTURES[name].kind else FORMS[:1]:
            file = folder / f"{name} {form}.json"
            if not file.exists():
                row = measure(name, form, setting.threads)
                file.write_text(json.dumps(row))
                click.echo(f"{name}, {form}: {row['errors']}, {row['plan']}")
            rows.append(json.loads(file.read_text()))
    return rows


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The part of the page about errors."""
    errors = [row["errors"][runtime] for row in rows for runtime in RUNTIMES]
    held, compiled = sum(error <= GATE for error in errors), [r["plan"] for r in rows]
    cells = [
        [
            row["network"],
            ARCHITECTURES[row["network"]].note,
            str(ARCHITECTURES[row["network"]].size),
            row["form"],
            *(f"{row['errors'][kind]:.1e}" for kind in (*RUNTIMES, "PyTorch")),
            row["plan"],
        ]
        for row in rows
    ]
    return [
        "Each network has random weights and the eight classes of AffectNet. It is built as a "
        "guide from an ONNX file (`torch.onnx.export`), or from a folder that `transformers` "
        "saved, with the image processor of its kind. The guide moves images of "
        f"{IMAGE[0]}x{IMAGE[1]} pixels, which it resizes and normalises for the network; nothing "
        "else is in the graph, neither a UNet nor a decoder.",
        "",
        "- *error*: the largest difference from the move that `torch.autograd` computes with the "
        "original network, relative to the largest move of the image, in batches of "
        f"{' and '.join(map(str, BATCHES))}; all in float32. The gate is {GATE:g}.",
        f"- *images*: {max(BATCHES)} random ones whose gradient has no kink nearby: it is linear "
        f"over changes of the pixels by {NOISE:g}, and autograd in float32 differs from float64 by "
        f"at most {GATE / 2:g}. At a kink, such as that of ReLU at 0, a gradient has two values, "
        "and rounding decides between them. Networks of ReLU take small images here, in which "
        f"fewer units can be near one. If of {_MOST} images too few are so, those follow on which "
        "float32 and float64 agree best.",
        "- *PyTorch*: the same of autograd in float32 against float64 on these images, which is "
        "what rounding alone makes.",
        f"- *tensorrt-rtx*: whether a plan in float32 compiles for {GPU}. Plans need a GPU to "
        "run; none has been run here.",
        "- *pixels*: the height and width of the network's input.",
        "",
        *table(
            [
                *("network", "architecture", "pixels", "from"),
                *(f"error on {runtime}" for runtime in RUNTIMES),
                *("PyTorch", "tensorrt-rtx"),
            ],
            cells,
        ),
        "",
        f"{held} of {len(errors)} errors are within the gate; {compiled.count('compiled')} of "
        f"{len(compiled)} plans compile. {_beyond(rows)}",
    ]


def _beyond(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which guides are beyond the gate; empty if none are."""
    names = [
        f"{row['network']} ({row['form']})"
        for row in rows
        if max(row["errors"][runtime] for runtime in RUNTIMES) > GATE
    ]
    if not names:
        return ""
    return (
        f"Beyond the gate: {', '.join(names)}. On images with a kink nearby, autograd in float32 "
        "differs from float64 by as much as that."
    )


def draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A figure of the errors, a row for each guide."""
    figure, axes = pages.figure(7, 0.3 * len(rows) + 1)
    at = np.arange(len(rows))[::-1]
    for kind, marker in zip((*RUNTIMES, "PyTorch"), "ox|", strict=True):
        axes.plot([row["errors"][kind] for row in rows], at, marker, label=kind)
    axes.axvline(GATE, color="grey", ls=":", label="gate")
    axes.set_yticks(at, [f"{row['network']}, {row['form']}" for row in rows])
    axes.set(xscale="log", xlabel="largest relative error of the move")
    axes.legend(fontsize=8)
    return figure


@click.command()
@settings.options
@click.option(
    "--network", "names", type=click.Choice(list(ARCHITECTURES)), multiple=True, help="Only these."
)
@click.option("--images", default=256, show_default=True, help="Samples of each kind.")
def main(setting: Setting, names, images):
    """Errors of guides from other people's networks, and whether one steers."""
    rows = rows_of(names or list(ARCHITECTURES), setting)
    if names:
        return
    steered = steering.measure(setting, images)
    body = [*lines(rows), "", "## Whether it steers", "", *steering.lines(steered)]
    results = {"rows": rows, "steering": steered}
    setting.report("onnx_guides", "Guides from ONNX networks", results, body, draw(rows))


if __name__ == "__main__":
    main()
