"""Ambient occlusion of the head, baked per vertex for a shut and an open jaw."""

from __future__ import annotations

from typing import Any

import numpy as np

from reference.faces.appearance import average_shape
from reference.faces.geometry import Geometry, identity_vertices
from reference.faces.head import CAP, LASHES, LONG_HAIR, TEETH, HeadModel
from reference.faces.offscreen import offscreen_context

_VERTEX = """#version 330
in vec3 position; uniform mat4 world_to_clip;
void main() { gl_Position = world_to_clip * vec4(position, 1.0); }
"""
_FRAGMENT = """#version 330
out vec4 depth;
void main() { depth = vec4(gl_FragCoord.z, 0.0, 0.0, 1.0); }
"""
_CENTRE = np.array([0.0, 7.0, 0.6])
_REACH = 2.2
"""Half extent in decimetres of the orthographic depth maps."""
_STATES: tuple[dict[str, float], ...] = (
    {},
    {"jawOpen": 0.8, "mouthUpperUpLeft": 0.3, "mouthUpperUpRight": 0.3},
)
"""Face units with the jaw shut and open."""


class _DepthMaps:
    """Orthographic depth maps of the head without hair and lashes, seen from any direction."""

    def __init__(self, body: Geometry, resolution: int) -> None:
        import moderngl

        self._context = offscreen_context()
        self._context.enable(moderngl.DEPTH_TEST)
        self._program = self._context.program(vertex_shader=_VERTEX, fragment_shader=_FRAGMENT)
        size = (resolution, resolution)
        self._map = self._context.framebuffer(
            [self._context.texture(size, 1, dtype="f4")], self._context.depth_renderbuffer(size)
        )
        self._resolution = resolution
        material = body.material[body.triangles[:, 0]]
        blockers = body.triangles[~np.isin(material, [LASHES, CAP, LONG_HAIR])]
        self._index = self._context.buffer(np.ascontiguousarray(blockers, np.int32).tobytes())

    def show(self, positions: np.ndarray) -> None:
        """Draw the vertices [R, 3] at these positions from now on."""
        buffer = self._context.buffer(np.ascontiguousarray(positions).tobytes())
        content = [(buffer, "3f", "position")]
        self._array = self._context.vertex_array(self._program, content, self._index)

    def sees(self, ray: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Which of `points` [n, 3] nothing hides from the direction `ray` [3]; bool [n]."""
        right = np.cross([0, 1, 0], ray)
        right /= np.linalg.norm(right)
        axes = np.stack([right, np.cross(ray, right), -ray])
        clip = (points - _CENTRE) @ axes.T / _REACH
        matrix = np.eye(4)
        matrix[:3, :3] = axes / _REACH
        matrix[:3, 3] = -axes @ _CENTRE / _REACH
        uniform: Any = self._program["world_to_clip"]
        uniform.write(np.ascontiguousarray(matrix.T, np.float32).tobytes())
        self._map.use()
        self._map.clear(1, 1, 1, 1, depth=1.0)
        self._array.render()
        raw = self._map.read(components=1, dtype="f4")
        nearest = np.frombuffer(raw, np.float32).reshape(self._resolution, self._resolution)
        column, row = (
            np.clip(((clip[:, k] + 1) / 2 * self._resolution).astype(int), 0, self._resolution - 1)
            for k in (0, 1)
        )
        return (clip[:, 2] + 1) / 2 < nearest[row, column] + 0.004

    def close(self) -> None:
        """Free the context."""
        self._context.release()


def bake(model: HeadModel, directions: int = 64, resolution: int = 384) -> np.ndarray:
    """Visibility [R, 2] in 0..1 of every render vertex, with the jaw shut and open.

    It is the cosine-weighted share of `directions` (biased to the front) from which a depth map
    sees the vertex of the average adult face.
    """
    body = Geometry(model)
    maps = _DepthMaps(body, resolution)
    rng = np.random.default_rng(0)
    rays = rng.normal(size=(directions, 3)) + np.array([0, 0, 0.25])
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    vertices = identity_vertices(model, average_shape())
    n = len(model.source)
    visibility = np.ones((n, 2), np.float32)
    for state, weights in enumerate(_STATES):
        posed = body.pose(vertices, weights, cap_volume=0.0)
        maps.show(posed.positions)
        seen, weight = np.zeros(n), np.full(n, 1e-6)
        p, normal = posed.positions[:n], posed.normals[:n]
        for ray in rays:
            facing = np.maximum(normal @ ray, 0)
            seen += facing * maps.sees(ray, p + normal * 0.01)
            weight += facing
        visibility[:, state] = np.clip(0.18 + 0.92 * np.clip(seen / weight, 0, 1), 0, 1)
    maps.close()
    teeth = model.material == TEETH
    visibility[teeth] = np.maximum(visibility[teeth], 0.5)
    return visibility
