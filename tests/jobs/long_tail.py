"""A dataset with a long tail, and augmentations of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from synfer_rt.data.datasets import Dataset
from synfer_rt.data.writers import open_output, read
from synfer_rt.jobs.augment import Augmenter, execute
from synfer_rt.jobs.augmentation import Augmentation
from synfer_rt.jobs.balance import additions, targets
from synfer_rt.records import Record
from synfer_rt.sampling.sampler import Sampler

COUNTS = {"happy": 5, "sad": 2, "fear": 1}


def write_long_tail(root: Path) -> Path:
    """COUNTS images in class folders, a broken image and one without a class."""
    draw = np.random.default_rng(3)
    for name, count in COUNTS.items():
        (root / name).mkdir()
        for i in range(count):
            pixels = draw.integers(0, 256, (40, 36, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    (root / "fear" / "broken.png").write_bytes(b"\x89PNG torn")
    Image.new("L", (9, 9)).save(root / "stray.png")
    return root


def job(dataset: Dataset, **changes: Any) -> Augmentation:
    """An augmentation that gives every class as many images as the largest has."""
    counts = dataset.counts()
    fields: dict[str, Any] = {
        "originals": dataset.items,
        "additions": additions(counts, targets(counts, "max")),
        "noise_scale": 1.0,
        "repair_steps": 0,
        "repair_strength": 0.5,
        "attempts": 2,
        "seed": 4,
    }
    return Augmentation(**fields | changes)


def decoded(png: bytes) -> np.ndarray:
    """A PNG file's pixels, int16 [H, W, 3], to be subtracted."""
    return np.asarray(Image.open(io.BytesIO(png)), np.int16)


def written(
    job: Augmentation, sampler: Sampler, out: Path, batch: int = 4, format: str = "imagefolder"
) -> list[tuple[Record, bytes]]:
    """What a run writes in `out`, read back."""
    augmenter = Augmenter(job, sampler)
    writer = open_output(out, augmenter.settings(format), resume=False)
    execute(augmenter, writer, batch)
    return list(read(out))
