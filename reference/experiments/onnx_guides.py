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
from typing import Any

import click
import numpy as np
import torch

from reference.evaluation import pages
from reference.evaluation.pages import table
from reference.experiments import setting as settings
from reference.experiments import steering
from reference.experiments.architectures import ARCHITECTURES
from reference.experiments.guide_errors import (
    AT_ONCE,
    BATCHES,
    FORMS,
    GPU,
    IMAGE,
    MARGIN,
    MOST,
    RUNTIMES,
    measure,
)
from reference.experiments.setting import Setting
from synfer_rt.export.build.hashes import EXPORT, code_hash
from synfer_rt.export.training import cache

GATE = 1e-5
_DECIDING = ("lifting/*.py", "networks/gui*.py", "networks/image_p*.py", "onnx/*_*.py")
"""The code that decides the moves."""
_OWN = ("architectures", "guide_errors", "kinks")
"""Modules beside this one that decide the rows, too."""


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
        f"- *clearance*: random images are tried, {AT_ONCE} at a time and up to {MOST}, until "
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
