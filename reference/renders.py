"""The rendered, fully annotated faces as arrays: one image stack and its annotations."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from synfer_rt.export.training.faces import Faces

HELD_OUT_SHARE = 16
"""One identity in this many is never trained on."""


@dataclass(frozen=True)
class Renders:
    """`images` uint8 [N, S, S, 3] (memory-mapped) and `annotations`, arrays of N rows each.

    The annotations are those that `reference.faces.dataset` writes: label, au, eye_closure,
    identity, age, gender, ancestry, pose, light, hair_style, hair_color, beard, background.
    `key` names the shards that they come from, for what is cached of them.
    """

    images: np.ndarray
    annotations: dict[str, np.ndarray]
    key: str

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, held_out: bool) -> np.ndarray:
        """Row numbers of the held-out identities, or of all the others."""
        chosen = self.annotations["identity"] % HELD_OUT_SHARE == 0
        return np.flatnonzero(chosen if held_out else ~chosen)

    def labelled(self) -> np.ndarray:
        """Row numbers of the held-out identities' images that show a class."""
        rows = self.rows(held_out=True)
        return rows[self.annotations["label"][rows] >= 0]

    def halves(self, rows: np.ndarray) -> np.ndarray:
        """Which held-out rows [n] are in the first of two parts, bool [n]; no person is in both."""
        return self.annotations["identity"][rows] // HELD_OUT_SHARE % 2 == 0

    def faces(self, scheme: str) -> Faces:
        """The images that show a class of `scheme`, those of held-out identities apart."""
        truth = self.annotations["label"].astype(np.int64)
        train, held = (rows[truth[rows] >= 0] for rows in (self.rows(False), self.rows(True)))
        return Faces(
            lambda numbers: self.images[numbers],
            truth,
            [str(number) for number in range(len(self))],
            train,
            held,
            self.halves(held),
            "persons",
            self.key,
            scheme,
        )


def load(directory: Path, size: int) -> Renders:
    """Read the shards of `directory` as one stack of `size` pixels, cached beside them.

    The shards hold larger images; they are reduced by averaging whole blocks of pixels.
    """
    shards = sorted(directory.glob("[0-9]*.npz"))
    if not shards:
        raise SystemExit(f"{directory} has no shards; run python -m reference.faces.dataset first.")
    facts = [(shard.name, shard.stat().st_size, shard.stat().st_mtime_ns) for shard in shards]
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
    stack = directory / f"images-{size}-{key}.npy"
    parts: dict[str, list[np.ndarray]] = {}
    images = []
    cached = stack.exists()
    for shard in track(shards, "reading renders", disable=cached):
        with np.load(shard) as arrays:
            for name in arrays.files:
                if name == "images":
                    if not cached:
                        images.append(reduce_blocks(arrays[name], size))
                elif not name.endswith("_names") and arrays[name].ndim:
                    parts.setdefault(name, []).append(arrays[name])
    if not cached:
        part = stack.with_suffix(f".{os.getpid()}.part.npy")
        np.save(part, np.concatenate(images))
        part.replace(stack)
    table = {name: np.concatenate(values) for name, values in parts.items()}
    return Renders(np.load(stack, mmap_mode="r"), table, key)


def reduce_blocks(images: np.ndarray, size: int) -> np.ndarray:
    """Average blocks of uint8 images [n, S, S, 3] down to [n, size, size, 3]; S = k * size."""
    n, full = images.shape[:2]
    k = full // size
    if k * size != full:
        raise ValueError(f"{full} pixels do not divide into {size}")
    blocks = images.reshape(n, size, k, size, k, 3).astype(np.uint16)
    return ((blocks.sum((2, 4)) + k * k // 2) // (k * k)).astype(np.uint8)
