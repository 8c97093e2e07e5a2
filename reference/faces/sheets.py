"""Labelled contact sheets: expressions by identity, and every action unit on one face.

``python -m reference.faces.sheets --out DIR``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from reference.faces import appearance, expressions, film, rig, scene
from reference.faces.render import Renderer

_COMBINATIONS = ((6, 12), (6, 12, 25), (1, 4), (1, 2, 5), (4, 7), (9, 10, 25), (20, 25), (4, 5, 25))
_BAR = 13
"""Height of a label in pixels."""


def _sheet(cells: list[tuple[str, np.ndarray]], columns: int, path: Path) -> None:
    from PIL import Image, ImageDraw

    size = cells[0][1].shape[0]
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * size, rows * (size + _BAR)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (label, image) in enumerate(cells):
        x, y = i % columns * size, i // columns * (size + _BAR)
        sheet.paste(Image.fromarray(image), (x, y + _BAR))
        draw.text((x + 3, y), label, fill="black")
    sheet.save(path)


def expression_sheet(path: Path, *, people: int = 8, size: int = 128, seed: int = 0) -> None:
    """A row for each person, a column for each class; all but the person is drawn anew."""
    renderer, rng = Renderer(), np.random.default_rng(seed)
    cells = []
    for _ in range(people):
        identity = appearance.sample_identity(rng)
        for label in expressions.CLASSES:
            aus = expressions.sample_expression(rng, label)
            pose, light = scene.sample_pose(rng), scene.sample_light(rng)
            rendered = renderer.render(identity, aus, pose, light, size)
            cells.append((label, film.develop(rendered, film.sample_film(rng))))
    _sheet(cells, len(expressions.CLASSES), path)


def au_sheet(path: Path, *, size: int = 128, seed: int = 3, gender: float = 0.3) -> None:
    """Every action unit at full intensity, its left side alone, and common combinations."""
    renderer, rng = Renderer(), np.random.default_rng(seed)
    identity = appearance.sample_identity(
        rng, age=0.42, gender=gender, ancestry=np.array([0.1, 0.2, 0.7])
    )
    shown: list[tuple[str, rig.Aus]] = [("neutral", {})]
    shown += [(f"AU{n}", rig.symmetric({n: 1.0})) for n in rig.ACTION_UNITS]
    shown += [(f"L{n}", {n: (1.0, 0.0)}) for n in sorted(rig.ONE_SIDED)]
    for numbers in _COMBINATIONS:
        shown.append(("+".join(map(str, numbers)), rig.symmetric(dict.fromkeys(numbers, 1.0))))
    pose, light = scene.Pose(), scene.Light()
    cells = [(label, renderer.render(identity, aus, pose, light, size)) for label, aus in shown]
    _sheet(cells, 8, path)


def main(out: Path, size: int = 128, seed: int = 0) -> None:
    """Write both sheets to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    expression_sheet(out / "expressions.png", size=size, seed=seed)
    au_sheet(out / "aus.png", size=size)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Contact sheets of the reference faces.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    main(args.out, args.size, args.seed)
