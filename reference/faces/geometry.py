"""From identity weights and face-unit weights to positions and normals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from reference.faces.head import CAP, EYE, LONG_HAIR, HeadModel

_REST_EYE_DISTANCE = 0.6155
"""Distance in decimetres between the eye centres of the base mesh."""
_REST_CHIN = (0.0, 6.17, 1.30)
"""Near the lowest point of the base mesh's chin, in decimetres."""


@dataclass(frozen=True)
class PosedHead:
    """positions, normals: [R + 2E, 3] float32; eye_centres: [2, 3] right, left; chin: [3] its
    lowest point; scale: 1 = base."""

    positions: np.ndarray
    normals: np.ndarray
    eye_centres: np.ndarray
    chin: np.ndarray
    scale: float


def identity_vertices(model: HeadModel, shape: dict[str, float]) -> np.ndarray:
    """Rest positions [S, 3] of an identity given as target name -> weight."""
    weights = np.zeros(len(model.targets), np.float32)
    for name, weight in shape.items():
        weights[model.target_index[name]] += weight
    used = np.flatnonzero(weights)
    return model.base + np.tensordot(weights[used], model.targets[used], 1)


def _sphere(segments: int = 24, rings: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Unit sphere [n, 3] with its pole forward, and its triangles."""
    polar = np.linspace(0, np.pi, rings)[:, None]
    around = np.linspace(0, 2 * np.pi, segments, endpoint=False)[None]
    x, y = np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around)
    points = np.stack([x, y, np.cos(polar) + 0 * around], -1).reshape(-1, 3)
    ring, column = (a.ravel() for a in np.mgrid[: rings - 1, :segments])
    following = (column + 1) % segments
    a, b = ring * segments + column, ring * segments + following
    c, d = b + segments, a + segments
    triangles = np.concatenate([np.stack([a, c, b], 1), np.stack([a, d, c], 1)])
    return points.astype(np.float32), triangles


class Geometry:
    """Poses a head model with two eyeballs added after its render vertices.

    triangles: [F, 3] int32; rest: [R + 2E, 3] rest-pose coordinates for painting (an eye's x is
    its side, -1 right and 1 left); uv, material, occlusion follow the same order.
    unit_sphere_depth: [2E], how far forward a vertex of the eyeballs lies, -1..1.
    """

    def __init__(self, model: HeadModel) -> None:
        self.model = model
        self._sphere, sphere_triangles = _sphere()
        n, e = len(model.source), len(self._sphere)
        self.triangles = np.concatenate(
            [model.triangles, sphere_triangles + n, sphere_triangles + n + e]
        ).astype(np.int32)
        sides = np.repeat([[-1.0, 0, 0], [1.0, 0, 0]], e, axis=0)
        self.rest = np.concatenate([model.base[model.source], sides]).astype(np.float32)
        self.uv = np.concatenate([model.uv, np.zeros((2 * e, 2))]).astype(np.float32)
        self.material = np.concatenate([model.material, np.full(2 * e, EYE)])
        self.occlusion = np.concatenate(
            [model.occlusion, np.tile(self._eye_occlusion(), (2, 2))]
        ).astype(np.float32)
        self.unit_sphere_depth = np.tile(self._sphere[:, 2], 2)
        self._units = model.units.reshape(len(model.units), -1)
        self._cap = model.material == CAP
        away = np.linalg.norm(model.base[: model.n_skin] - _REST_CHIN, axis=1)
        self._chin = int(away.argmin())
        rest = self.rest[:n][self._cap]
        # The cap thickens towards the crown and the back, and is thin at the front hairline.
        self._cap_profile = np.clip((rest[:, 1] - 7.6) * 1.2 + 0.5 - rest[:, 2], 0.1, 1)[:, None]
        # The strips of long hair leave slits: hair behind the face must reach further out than hair
        # beside it, which must hang close to the neck.
        self._long = model.material == LONG_HAIR
        long = self.rest[:n][self._long]
        beside = np.clip((long[:, 2] + 0.35) / 0.15, 0, 1)
        close = 0.16 * np.clip((6.95 - long[:, 1]) / 0.4, 0, 1)
        self._spread = long[:, 0] * (0.6 * (1 - beside) - close * beside)
        # Normals are computed on source vertices so that uv seams and the hair cap do not show.
        faces = model.source[model.triangles]
        self._faces = faces[model.material[model.triangles[:, 0]] != CAP]
        k = len(self._faces)
        ones = np.ones(3 * k, np.float32)
        columns = np.tile(np.arange(k), 3)
        self._gather = sp.csr_matrix(
            (ones, (self._faces.T.ravel(), columns)), shape=(model.n_skin, k)
        )

    def _eye_occlusion(self) -> np.ndarray:
        """The lids' shadow on an eyeball [E, 1]: dark at the rim and under the upper lid."""
        y, z = self._sphere[:, 1:2], self._sphere[:, 2:3]
        shade = 0.62 + 0.6 * np.clip(z, -0.2, 0.6) - 0.3 * np.clip(y, 0, 1)
        return np.clip(shade, 0.3, 1)

    def _normals(self, v: np.ndarray) -> np.ndarray:
        a, b, c = (v[self._faces[:, k]] for k in range(3))
        summed = self._gather @ np.cross(b - a, c - a).astype(np.float32)
        return summed / (np.linalg.norm(summed, axis=1, keepdims=True) + 1e-12)

    def pose(self, vertices: np.ndarray, weights: dict[str, float], cap_volume: float) -> PosedHead:
        """Pose identity `vertices` [S, 3] by unit `weights`; the hair cap stands off the scalp
        by up to `cap_volume` decimetres."""
        model = self.model
        skin, eyes = vertices[: model.n_skin], vertices[model.n_skin :]
        eyes = eyes.reshape(2, model.n_eye, 3)
        centres = eyes.mean(1)
        radii = np.linalg.norm(eyes - centres[:, None], axis=2).mean(1)
        scale = float(np.linalg.norm(centres[1] - centres[0]) / _REST_EYE_DISTANCE)
        if weights:
            index = [model.unit_index[name] for name in weights]
            amount = np.fromiter(weights.values(), np.float32)
            skin = skin + (amount @ self._units[index]).reshape(-1, 3) * scale
        normals = self._normals(skin)[model.source]
        positions = skin[model.source]
        lift = (cap_volume * self._cap_profile + 0.012) * scale
        positions[self._long, 0] += self._spread * scale
        positions[self._cap] += normals[self._cap] * lift
        balls = (self._sphere * radii[:, None, None] + centres[:, None]).reshape(-1, 3)
        return PosedHead(
            np.concatenate([positions, balls]).astype(np.float32),
            np.concatenate([normals, self._sphere, self._sphere]).astype(np.float32),
            centres,
            skin[self._chin],
            scale,
        )
