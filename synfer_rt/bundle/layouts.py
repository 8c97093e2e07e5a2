"""Layouts: the neutral faces, kept as latents, that a sample can start from instead of noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from synfer_rt.bundle.files import remedy
from synfer_rt.errors import UserError


@dataclass(frozen=True)
class Layouts:
    """Start faces: `latents` float32 [N, C, h, w], and the words that describe them, str [N]."""

    latents: np.ndarray
    age: np.ndarray
    gender: np.ndarray
    ancestry: np.ndarray

    def __len__(self) -> int:
        return len(self.latents)

    def alike(self, age: str, gender: str, ancestry: str) -> Sequence[int]:
        """The rows of the faces that these words describe; all rows if none is so."""
        return self._rows.get((age, gender, ancestry)) or range(len(self))

    @cached_property
    def _rows(self) -> Mapping[tuple[str, ...], Sequence[int]]:
        rows: dict[tuple[str, ...], list[int]] = {}
        words = (self.age.tolist(), self.gender.tolist(), self.ancestry.tolist())
        for row, described in enumerate(zip(*words, strict=True)):
            rows.setdefault(described, []).append(row)
        return rows


def read_layouts(directory: Path, name: str, shape: tuple[int, int, int, int]) -> Layouts:
    """Read the layout bank `name`, an .npz file, of the bundle in `directory`.

    `shape` is [N, C, h, w] of its latents. Raises UserError for a damaged file and for latents of
    another shape. Pickled arrays are never loaded.
    """
    file = directory / name
    try:
        with np.load(file, allow_pickle=False) as arrays:
            words = [arrays[key].astype(str) for key in ("age", "gender", "ancestry")]
            layouts = Layouts(arrays["latents"].astype(np.float32), *words)
    except Exception as error:  # zipfile, zlib and numpy raise their own kinds
        raise UserError(f"{file} is not a layout bank ({error}); {remedy(directory)}.") from None
    if layouts.latents.shape != shape or any(len(w) != len(layouts) for w in words):
        found = layouts.latents.shape
        raise UserError(f"{file} holds {found} instead of {shape}; {remedy(directory)}.")
    return layouts
