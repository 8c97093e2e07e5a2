"""Guides from other people's networks: whether their moves are autograd's, and whether they steer.

    python -m reference.experiments.onnx_guides --renders DIR

Each architecture becomes a guide as an ONNX file and, if transformers has it, as a saved folder.
The guide moves images themselves, so that its gradient is that of the network and its preparation
of images alone. Every row is kept in `--work`; with `--network` one row after the other can be
made by commands of its own. The last command writes the page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
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
from reference.experiments.kinks import clearance
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
MARGIN = 2.0
"""An image is clear if every unit is at least this many rounding errors from a kink (kinks.py)."""
_MOST, _AT_ONCE = 64, 4
STATIC = frozenset({"clean", "coefficients"})
"""Inputs that are the same for all images."""
GPU = "sm89"
"""The GPUs that TensorRT-RTX compiles for, here without one."""
RUNTIMES = ("onnxruntime-cpu", "openvino-cpu")
FORMS = ("ONNX", "saved folder")
_DECIDING = ("lifting/*.py", "networks/gui*.py", "networks/image_p*.py", "onnx/*_*.py")
"""The code that decides the moves."""
_OWN = ("architectures", "kinks")
"""Modules beside this one that decide the rows, too."""
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
    for first in range(0, len(given["latents"]), _AT_ONCE):
        some = part(given, slice(first, first + _AT_ONCE))
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

    So many that max(BATCHES) are clear, but at most _MOST. How well gradients agree on an image has
    no part in the choice.
    """
    tried, distances = [], []
    while len(tried) < _MOST // _AT_ONCE:
        tried.append(random_inputs(_AT_ONCE, len(tried)))
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
            for first in range(0, len(distances), _AT_ONCE):
                rows = slice(first, first + _AT_ONCE)
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


def rows_of(names: Sequence[str], setting: Setting) -> list[dict[str, Any]]:
    """The rows of these architectures; those that `work` has are not made again."""
    files = (file for pattern in _DECIDING for file in EXPORT.glob(pattern))
    code = code_hash(*sorted(file.relative_to(EXPORT).as_posix() for file in files))
    own = [Path(__file__).with_name(f"{name}.py").read_text() for name in _OWN]
    folder = setting.work / f"onnx-guides-{cache.key(code, torch.__version__, MARGIN, own)}"
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
    kinds = (*RUNTIMES, "float64", "PyTorch")
    cells = [
        [
            row["network"],
            ARCHITECTURES[row["network"]].note,
            str(ARCHITECTURES[row["network"]].size),
            row["form"],
            *(f"{row['errors'][kind]:.1e}" for kind in kinds),
            "no kinks" if row["clearance"] is None else f"{row['clearance']:.1f}",
            row["plan"],
        ]
        for row in rows
    ]
    return [
        "Each network has random weights and the eight classes of AffectNet. It is built as a "
        "guide from an ONNX file (`torch.onnx.export`), or from a folder that `transformers` "
        "saved, with the image processor of its kind. `transformers` has no class of MobileNetV3 "
        "and none of the network of two streams, so these have no row of a saved folder. The guide "
        f"moves images of {IMAGE[0]}x{IMAGE[1]} pixels, which it resizes and normalises for the "
        "network; nothing else is in the graph, neither a UNet nor a decoder.",
        "",
        "- *error*: the largest difference from the move that `torch.autograd` computes with the "
        "original network, relative to the largest move of the image, in batches of "
        f"{' and '.join(map(str, BATCHES))}; all in float32. The gate is {GATE:g}.",
        "- *float64*: the same of autograd with the network that was read, both in float64, where "
        "rounding has no part. What is left are constants of a file, and steps of `transformers`, "
        "that are in float32 all the same.",
        "- *PyTorch*: autograd in float32 against float64, both with the original network, which "
        "is what rounding alone makes.",
        f"- *clearance*: random images are tried, {_AT_ONCE} at a time and up to {_MOST}, until "
        f"{max(BATCHES)} are clear, and the {max(BATCHES)} clearest are taken. An image is clear "
        f"if every unit is at least {MARGIN:g} rounding errors away from the kinks of its "
        "activation. At a kink, such as that of ReLU at 0, a gradient has two values, and rounding "
        "decides between them. The distance is computed in float64, and the rounding error is the "
        "largest of PyTorch's float32 in the same layer. How well gradients agree has no part in "
        "the choice. The column has the least clear image that was taken.",
        f"- *tensorrt-rtx*: whether a plan in float32 compiles for {GPU}. Plans need a GPU to "
        "run; none has been run here.",
        "- *pixels*: the height and width of the network's input. Networks of ReLU take small "
        "images, in which fewer units can be near a kink.",
        "",
        *table(
            [
                *("network", "architecture", "pixels", "from"),
                *(f"error on {runtime}" for runtime in RUNTIMES),
                *("float64", "PyTorch", "clearance", "tensorrt-rtx"),
            ],
            cells,
        ),
        "",
        f"{held} of {len(errors)} errors are within the gate; {compiled.count('compiled')} of "
        f"{len(compiled)} plans compile.{_beyond(rows)}",
        "",
        _kinks(rows),
    ]


def _beyond(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which guides are beyond the gate; empty if none are."""
    names = [
        f"{row['network']} ({row['form']})"
        for row in rows
        if max(row["errors"][runtime] for runtime in RUNTIMES) > GATE
    ]
    return f" Beyond the gate: {', '.join(names)}." if names else ""


def _tried(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Clearance and error of every image that was tried with a network that has kinks, [n, 2]."""
    return np.concatenate([np.reshape(row["tried"], (-1, 2)) for row in rows])


def _kinks(rows: Sequence[Mapping[str, Any]]) -> str:
    """How errors depend on the clearance of images."""
    distances, errors = _tried(rows).T
    clear, beyond = distances >= MARGIN, errors > GATE
    said = (
        f"Of {len(errors)} images that were tried with networks that have kinks, {clear.sum()} are "
        f"clear, of which {(clear & beyond).sum()} are beyond the gate on a runtime."
    )
    if not (others := beyond & ~clear).any():
        return said
    return (
        f"{said} Of the {(~clear).sum()} others, {others.sum()} are, with errors up to "
        f"{errors[others].max():.1e}, and each of these has a unit within "
        f"{distances[others].max():.2f} rounding errors of a kink. There the network has no single "
        "gradient, and computations in float32 need not agree."
    )


def draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A figure of the errors, a row for each guide, and of errors against clearance."""
    figure, (axes, right) = pages.figure(11, 0.3 * len(rows) + 1, columns=2)
    at = np.arange(len(rows))[::-1]
    for kind, marker in zip((*RUNTIMES, "PyTorch"), "ox|", strict=True):
        axes.plot([row["errors"][kind] for row in rows], at, marker, label=kind)
    axes.axvline(GATE, color="grey", ls=":", label="gate")
    axes.set_yticks(at, [f"{row['network']}, {row['form']}" for row in rows])
    axes.set(xscale="log", xlabel="largest relative error of the move, clear images")
    axes.legend(fontsize=8)
    for name in dict.fromkeys(row["network"] for row in rows):
        found = _tried([row for row in rows if row["network"] == name])
        if len(found):
            right.plot(*found.T, ".", label=name)
    right.axhline(GATE, color="grey", ls=":", label="gate")
    right.axvline(MARGIN, color="grey", ls="--", label="clear")
    right.set(xscale="log", yscale="log", ylabel="relative error of the move")
    right.set_xlabel("distance of the unit nearest to a kink, in rounding errors")
    right.legend(fontsize=8)
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
