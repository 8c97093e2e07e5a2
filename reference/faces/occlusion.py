"""Ambient occlusion of the head, baked per vertex for a shut and an open jaw."""

from __future__ import annotations

import numpy as np

from reference.faces import appearance, geometry
from reference.faces.head import CAP, LASHES, LONG_HAIR, TEETH, HeadModel

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


def bake(model: HeadModel, directions: int = 64, resolution: int = 384) -> np.ndarray:
    """Visibility [R, 2] in 0..1 of every render vertex: jaw shut, jaw open.

    Cosine-weighted share of `directions` (biased to the front) from which a depth map sees the
    vertex of the average adult face.
    """
    import moderngl

    context = moderngl.create_context(standalone=True, backend="egl")
    context.enable(moderngl.DEPTH_TEST)
    program = context.program(vertex_shader=_VERTEX, fragment_shader=_FRAGMENT)
    depth_map = context.framebuffer(
        [context.texture((resolution, resolution), 1, dtype="f4")],
        context.depth_renderbuffer((resolution, resolution)),
    )
    rng = np.random.default_rng(0)
    rays = rng.normal(size=(directions, 3)) + np.array([0, 0, 0.25])
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)

    body = geometry.Geometry(model)
    vertices = geometry.identity_vertices(model, appearance.average_shape())
    material = body.material[body.triangles[:, 0]]
    blockers = np.ascontiguousarray(
        body.triangles[~np.isin(material, [LASHES, CAP, LONG_HAIR])], np.int32
    )
    index = context.buffer(blockers.tobytes())
    n = len(model.source)
    visibility = np.ones((n, 2), np.float32)
    states = ({}, {"jawOpen": 0.8, "mouthUpperUpLeft": 0.3, "mouthUpperUpRight": 0.3})
    for state, weights in enumerate(states):
        posed = body.pose(vertices, weights, cap_volume=0.0)
        buffer = context.buffer(np.ascontiguousarray(posed.positions).tobytes())
        array = context.vertex_array(program, [(buffer, "3f", "position")], index)
        seen, weight = np.zeros(n), np.full(n, 1e-6)
        p, normal = posed.positions[:n], posed.normals[:n]
        for ray in rays:
            right = np.cross([0, 1, 0], ray)
            right /= np.linalg.norm(right)
            axes = np.stack([right, np.cross(ray, right), -ray])
            clip = (p + normal * 0.01 - _CENTRE) @ axes.T / _REACH
            matrix = np.eye(4)
            matrix[:3, :3] = axes / _REACH
            matrix[:3, 3] = -axes @ _CENTRE / _REACH
            program["world_to_clip"].write(np.ascontiguousarray(matrix.T, np.float32).tobytes())
            depth_map.use()
            depth_map.clear(1, 1, 1, 1, depth=1.0)
            array.render()
            raw = depth_map.read(components=1, dtype="f4")
            nearest = np.frombuffer(raw, np.float32).reshape(resolution, resolution)
            column, row = (
                np.clip(((clip[:, k] + 1) / 2 * resolution).astype(int), 0, resolution - 1)
                for k in (0, 1)
            )
            facing = np.maximum(normal @ ray, 0)
            seen += facing * ((clip[:, 2] + 1) / 2 < nearest[row, column] + 0.004)
            weight += facing
        visibility[:, state] = np.clip(0.18 + 0.92 * np.clip(seen / weight, 0, 1), 0, 1)
    teeth = model.material == TEETH
    visibility[teeth] = np.maximum(visibility[teeth], 0.5)
    context.release()
    return visibility
