"""Labelled images in the role of photos: brightness is the expression."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("neutral", "happy", "sad")


def put_photos(
    root: Path,
    each: int = 12,
    classes: Sequence[str] = CLASSES,
    persons: int = 0,
    splits: Sequence[str] = (),
) -> Path:
    """`each` images of each class, with a table of labels, and of persons and splits if any."""
    draw = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    for i in range(each * len(classes)):
        shade = 40 + 170 * (i % len(classes)) // max(len(classes) - 1, 1)
        pixels = np.clip(shade + draw.integers(-20, 21, (18, 20, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{i:03d}.png")
        row = {"file_name": f"{i:03d}.png", "label": classes[i % len(classes)]}
        number = i // len(classes)
        row |= {"person": f"P{number % persons}"} if persons else {}
        row |= {"split": splits[number % len(splits)]} if splits else {}
        rows.append(row)
    with (root / "labels.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return root
