"""The sheets of images on the page of results."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reference.evaluation import action_units
from reference.evaluation.pages import sheet
from reference.pictures import save_with_palette
from reference.tasks import CLASSES
from synfer_rt.evaluation.neighbours import Nearest


def draw_samples(images: np.ndarray, classes: np.ndarray, pictures: Path) -> None:
    """A sheet of the first ten of uint8 images [n, S, S, 3] of each class, indices int64 [n]."""
    rows = [(c, list(images[classes == i][:10])) for i, c in enumerate(CLASSES)]
    sheet(rows, [], 2).save(pictures / "samples.png", optimize=True)


def draw_units(swept: np.ndarray, sided: np.ndarray, faces: int, pictures: Path) -> None:
    """Sheets of two faces' sweeps and of three faces' sides."""
    units = action_units.MAIN + action_units.FURTHER
    grid = swept.reshape(len(units), faces, -1, *swept.shape[1:])
    columns = [f"{strength:.1f}" for strength in action_units.STRENGTHS]
    rows = [(unit, [*grid[i, 0], *grid[i, 1]]) for i, unit in enumerate(units)]
    save_with_palette(sheet(rows, columns * 2, 2), pictures / "sweeps.png")
    one_sided = action_units.ONE_SIDED
    grid = sided.reshape(len(one_sided), faces, -1, *sided.shape[1:])[:, :3]
    rows = [(unit, list(np.concatenate(grid[i]))) for i, unit in enumerate(one_sided)]
    columns = list(action_units.SIDES) * grid.shape[1]
    save_with_palette(sheet(rows, columns, 2), pictures / "sides.png")


def draw_nearest(
    samples: np.ndarray, stack: np.ndarray, rows: np.ndarray, near: Nearest, pictures: Path
) -> None:
    """A sheet of the ten samples nearest to a render of `stack[rows]`, each above that render."""
    first = near.distances.argsort()[:10]
    columns = [f"{distance:.3f}" for distance in near.distances[first]]
    pairs = [("sample", samples[first]), ("nearest", [stack[i] for i in rows[near.rows[first]]])]
    page = sheet([(name, list(images)) for name, images in pairs], columns, 2)
    page.save(pictures / "nearest.png", optimize=True)
