"""Small image networks that label and judge faces, and their training on renders.

    python -m reference.classifiers --renders DIR --out DIR --network NAME

`labeller`, `second-labeller` and `au-labeller` ship in the bundle; `judge`, `au-reader` and
`attribute-reader` only measure. They differ in architecture, seed and task. The same command
resumes a training that was stopped. The networks that labelled and judged the shipped bundle are in
`reference/networks`, so that measuring needs no training.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from reference import renders
from reference.tasks import ATTRIBUTES, EXPRESSION, Task, intensities
from synfer_rt.export.training.augmentation import as_input, augment

CHECKPOINT_SECONDS = 120.0


class Residual(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a shortcut."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.shortcut = nn.Conv2d(width, out, 1, stride, bias=False)

    def forward(self, x):
        return F.relu(self.body(x) + self.shortcut(x))


def residual_network(outputs: int, width: int = 24) -> nn.Module:
    """A four-stage residual network on images [B, 3, 64, 64] in [-1, 1]; [B, outputs] logits."""
    return nn.Sequential(
        nn.Conv2d(3, width, 5, 2, 2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Residual(width, 2 * width, 2),
        Residual(2 * width, 3 * width, 2),
        Residual(3 * width, 5 * width, 2),
        nn.Conv2d(5 * width, 48, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(48 * 16, outputs),
    )


class Separable(nn.Module):
    """Depthwise 5x5 convolution, then two pointwise ones, beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 5, 1, 2, groups=width),
            nn.GroupNorm(1, width),
            nn.Conv2d(width, 2 * width, 1),
            nn.GELU(),
            nn.Conv2d(2 * width, width, 1),
        )

    def forward(self, x):
        return x + self.body(x)


def separable_network(outputs: int, width: int = 32) -> nn.Module:
    """Patches of 4 pixels and depthwise-separable blocks at three sizes (after ConvNeXt)."""

    def smaller(inputs: int, out: int) -> list[nn.Module]:
        return [nn.GroupNorm(1, inputs), nn.Conv2d(inputs, out, 2, 2), Separable(out)]

    return nn.Sequential(
        nn.Conv2d(3, width, 4, 4),
        nn.GroupNorm(1, width),
        Separable(width),
        Separable(width),
        *smaller(width, 2 * width),
        Separable(2 * width),
        *smaller(2 * width, 3 * width),
        Separable(3 * width),
        nn.GroupNorm(1, 3 * width),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(48 * width, outputs),
    )


class Dense(nn.Module):
    """Three 3x3 convolutions, each on all maps before it; then maps of half the size."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(width + i * growth),
                nn.ReLU(),
                nn.Conv2d(width + i * growth, growth, 3, 1, 1, bias=False),
            )
            for i in range(3)
        )
        self.smaller = nn.Sequential(
            nn.Conv2d(width + 3 * growth, width + growth, 1), nn.AvgPool2d(2)
        )

    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.smaller(x)


def dense_network(outputs: int, growth: int = 16) -> nn.Module:
    """Densely connected blocks at three sizes (after DenseNet), from 32 pixels down to 4."""
    widths = [growth * i for i in (1, 2, 3, 4)]
    return nn.Sequential(
        nn.Conv2d(3, growth, 4, 2, 1, bias=False),
        *(Dense(width, growth) for width in widths[:3]),
        nn.BatchNorm2d(widths[3]),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(16 * widths[3], outputs),
    )


@dataclass(frozen=True)
class Network:
    """An architecture (`shape` takes the number of outputs), its training's seed, and its task."""

    shape: Callable[[int], nn.Module]
    seed: int
    task: Task

    def build(self) -> nn.Module:
        """Untrained."""
        return self.shape(self.task.outputs)


NETWORKS = {
    "labeller": Network(residual_network, 11, EXPRESSION),
    "second-labeller": Network(dense_network, 77, EXPRESSION),
    "judge": Network(separable_network, 22, EXPRESSION),
    "au-reader": Network(partial(residual_network, width=32), 33, intensities(F.mse_loss)),
    "au-labeller": Network(
        # Its outputs are logits of intensities.
        partial(residual_network, width=20),
        66,
        intensities(F.binary_cross_entropy_with_logits),
    ),
    "attribute-reader": Network(partial(residual_network, width=32), 88, ATTRIBUTES),
}


def load(path: Path, name: str) -> nn.Module:
    """A trained network in evaluation mode."""
    file = path / f"{name}.safetensors"
    if not file.exists():
        raise SystemExit(
            f"{file} is not there; train it by python -m reference.classifiers --renders DIR "
            f"--out {path} --network {name}."
        )
    network = NETWORKS[name].build()
    network.load_state_dict(load_file(file))
    return network.eval()


@torch.no_grad()
def predict(network: nn.Module, images_u8: np.ndarray) -> np.ndarray:
    """Raw outputs [n, outputs] for uint8 images [n, 64, 64, 3]."""
    parts = [as_input(images_u8[i : i + 256]) for i in range(0, len(images_u8), 256)]
    return torch.cat([network(part) for part in parts]).numpy()


def directory_option(name: str) -> Callable:
    """`--classifiers`, the folder that `load` reads, as the parameter `name` of a command."""
    trained = Path("reference/networks")
    return click.option("--classifiers", name, type=Path, default=trained, show_default=True)


def save(network: nn.Module, directory: Path, name: str) -> None:
    """Write what `load` reads, to a temporary name and then renamed."""
    part = directory / f".{name}.part"
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, part)
    part.replace(directory / f"{name}.safetensors")


def write(path: Path, state: dict) -> None:
    """Save a training's state to a temporary name, then rename."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


@click.command()
@click.option("--renders", "directory", type=Path, required=True)
@click.option("--out", type=Path, required=True)
@click.option("--network", "name", type=click.Choice(list(NETWORKS)), required=True)
@click.option("--minutes", default=8.0, help="CPU time.")
@click.option("--batch", default=64)
def main(directory, out, name, minutes, batch):
    """Train one network and print its scores on held-out identities."""
    torch.set_num_threads(1)
    recipe = NETWORKS[name]
    task, seed = recipe.task, recipe.seed
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    data = renders.load(directory, 64)
    targets = task.targets(data.annotations)
    known = np.asarray((targets >= 0).any(1))
    train, held = (rows[known[rows]] for rows in (data.rows(False), data.rows(True)))
    network = recipe.build()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.05)
    seen, spent, state_file = 0, 0.0, out / f"{name}-training.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        seen, spent = state["seen"], state["seconds"]
        click.echo(f"{name}: resuming after {seen} images and {spent / 60:.1f} min")
    torch.manual_seed(seed + seen)
    rng, generator = np.random.default_rng((seed, seen)), torch.Generator().manual_seed(seed + seen)
    saved, started = time.time(), time.process_time() - spent
    while (elapsed := time.process_time() - started) < 60 * minutes:
        progress = elapsed / (60 * minutes)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (elapsed + 2) / 15, 2 * (1 - progress) + 0.01)
        rows = np.sort(rng.choice(train, batch, replace=False))
        flips = rng.random(batch) < 0.5
        images = as_input(data.images[rows])
        images = torch.where(torch.from_numpy(flips)[:, None, None, None], images.flip(3), images)
        outputs = network(augment(images, generator))
        target = np.where(flips[:, None], task.mirrored(targets[rows]), targets[rows])
        loss = task.loss(outputs, torch.from_numpy(target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += batch
        if time.time() - saved > CHECKPOINT_SECONDS:
            saved = time.time()
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            write(state_file, state | {"seen": seen, "seconds": time.process_time() - started})
    network.eval()
    save(network, out, name)
    state_file.unlink(missing_ok=True)
    click.echo(f"{name}: {seen} images in {minutes:.0f} min")
    for line in task.scores(predict(network, data.images[held]), targets[held]):
        click.echo(line)


if __name__ == "__main__":
    main()
