"""Renders a posed head with moderngl on EGL (Mesa's llvmpipe where there is no GPU)."""

from __future__ import annotations

import os

os.environ.setdefault("LP_NUM_THREADS", "0")  # llvmpipe rasterises on the calling thread

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reference.faces import appearance, geometry, grain, rig, scene, wrinkles
from reference.faces import head as head_model
from reference.faces.appearance import Identity
from reference.faces.head import CAP, EYE, LONG_HAIR, SKIN
from reference.faces.offscreen import offscreen_context

_SHADERS = Path(__file__).parent / "shaders"
_PASSES = (("skin", ""), ("eyes_mouth", ""), ("hair", ""), ("skin", "#define BEARD\n"))
_SKIN, _EYES_MOUTH, _HAIR, _BEARDED = range(4)
_SUPERSAMPLING = 1.5
_LEAST_RASTER = 192
"""Smallest raster in pixels; smaller images are reduced from it."""
_SHADOW_SIZE = 160
"""Pixels of the key light's depth map; coarse, so that its filter softens the shadow's edge."""
_SHADOW_CENTRE = np.array([0.0, -0.3, -0.5])
_SHADOW_REACH = 1.5
"""Centre, from between the eyes, and half extent of that map in decimetres of the base mesh."""
_EXPOSURE_SKIN = 0.45
"""Mean linear reflectance of a skin that needs no exposure correction."""
_DYNAMIC = (("position", 3), ("normal", 3))
_STATIC = (("rest", 3), ("uv", 2), ("material", 1), ("occlusion", 2))
_CONVERGENCE = 0.03
"""Each eye turns in by this much, in radians."""


def _direction(azimuth: float, elevation: float) -> np.ndarray:
    """Unit vector; azimuth 0 is forward, positive to the image's right."""
    return np.array(
        [
            np.sin(azimuth) * np.cos(elevation),
            np.sin(elevation),
            np.cos(azimuth) * np.cos(elevation),
        ]
    )


def _key_view(toward: np.ndarray, posed: geometry.PosedHead) -> np.ndarray:
    """Head-to-clip matrix [4, 4] of a distant light in the direction `toward`."""
    right = np.cross([0.0, 1.0, 0.0], toward)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(toward, right), -toward]) / (_SHADOW_REACH * posed.scale)
    matrix = np.eye(4)
    matrix[:3, :3] = axes
    matrix[:3, 3] = -axes @ (posed.eye_centres.mean(0) + _SHADOW_CENTRE * posed.scale)
    return matrix


def rest_units(identity: Identity, units: dict[str, float]) -> dict[str, float]:
    """Add the identity's resting face to `units`; a closing eye drops its resting width."""
    out = dict(units)
    for name, weight in identity.rest.items():
        if name == "jawOpen":
            sides = ("jawOpen",)
        elif name == "brow-raise":
            sides = ("sculpt:brow-raise-left", "sculpt:brow-raise-right")
        else:
            sides = (f"{name}Left", f"{name}Right")
        for unit in sides:
            lid = unit.replace("Wide", "Blink")
            if lid == unit or units.get(lid, 0.0) < 0.2:
                out[unit] = out.get(unit, 0.0) + weight
    return out


def posed_units(identity: Identity, aus: rig.Aus, gaze: tuple[float, float]) -> dict[str, float]:
    """The face-unit weights of a face; its upper lids follow a lowered gaze (right, up)."""
    units = rest_units(identity, rig.face_units(aus, identity.jaw))
    if gaze[1] < 0:
        for lid in ("eyeBlinkLeft", "eyeBlinkRight"):
            units[lid] = min(1.0, units.get(lid, 0.0) - 0.5 * gaze[1])
    return units


def _lash_color(identity: Identity) -> np.ndarray:
    """Linear colour of the lash strips: dark on women, blended with the skin on others."""
    dark = 0.35 + 0.5 * (1 - identity.gender) * min(1.0, identity.age / 0.25)
    return dark * 0.3 * identity.brow_rgb**2 + (1 - dark) * 0.55 * identity.skin**2


class Renderer:
    """An offscreen context with the head uploaded; one per process."""

    def __init__(self) -> None:
        import moderngl

        self._gl = moderngl
        self._context = offscreen_context()
        self._context.enable(moderngl.DEPTH_TEST | moderngl.CULL_FACE)
        self._model = head_model.load()
        self._geometry = geometry.Geometry(self._model)
        self._wrinkles = wrinkles.WrinkleMaps()
        self._framebuffers: dict[int, Any] = {}
        self._shape_of: tuple[int, np.ndarray] | None = None
        self._upload()

    def close(self) -> None:
        """Release the context."""
        self._context.release()

    def _upload(self) -> None:
        g, context = self._geometry, self._context
        triangles = self._visible_triangles()
        material = g.material[triangles[:, 0]]
        # Draw order: skin, then eyes and mouth, then cap, then long hair.
        group = np.select([material == SKIN, material == CAP, material == LONG_HAIR], [0, 2, 3], 1)
        order = np.argsort(group, kind="stable")
        counts = np.bincount(group, minlength=4) * 3
        self._starts = np.concatenate([[0], np.cumsum(counts)]).tolist()
        index = context.buffer(np.ascontiguousarray(triangles[order], np.int32).tobytes())
        static = np.column_stack([g.rest, g.uv, g.material, g.occlusion]).astype(np.float32)
        fixed = context.buffer(static.tobytes())
        self._posed = context.buffer(reserve=len(g.rest) * 24, dynamic=True)

        header = "#version 330\n"
        vertex = header + (_SHADERS / "face.vert").read_text()
        shading = (_SHADERS / "shading.glsl").read_text()
        self._uniforms: dict[str, list[Any]] = {}
        self._arrays = []
        for name, define in _PASSES:
            fragment = header + define + shading + (_SHADERS / f"{name}.frag").read_text()
            program = context.program(vertex_shader=vertex, fragment_shader=fragment)
            layout = []
            for buffer, fields in ((self._posed, _DYNAMIC), (fixed, _STATIC)):
                present = [(n, k) for n, k in fields if n in program]
                form = " ".join(f"{k}f" if n in program else f"{4 * k}x" for n, k in fields)
                layout.append((buffer, form, *(n for n, _ in present)))
            self._arrays.append(context.vertex_array(program, layout, index))
            self._register(program)
        program = context.program(
            vertex_shader=header + (_SHADERS / "depth.vert").read_text(),
            fragment_shader=header + (_SHADERS / "depth.frag").read_text(),
        )
        self._register(program)
        self._blocker = context.vertex_array(program, [(self._posed, "3f 12x", "position")], index)
        self._key_depth = context.depth_texture((_SHADOW_SIZE, _SHADOW_SIZE))
        self._key_depth.compare_func = "<="
        self._key_depth.repeat_x = self._key_depth.repeat_y = False
        self._key_view = context.framebuffer(depth_attachment=self._key_depth)

        masks = self._model.masks
        self._masks = context.texture(masks.shape[1::-1], 2, masks.tobytes())
        self._wrinkle_map = context.texture((wrinkles.WIDTH, wrinkles.HEIGHT), 3, dtype="f4")
        self._wrinkle_map.repeat_x = self._wrinkle_map.repeat_y = False
        self._grain = context.texture((grain.SIZE, grain.SIZE), 4, grain.texture().tobytes())
        self._set(
            masks=0,
            wrinkles=1,
            grain=2,
            key_depth=3,
            wrinkle_box=(*wrinkles.X_RANGE, *wrinkles.Y_RANGE),
        )

    def _register(self, program: Any) -> None:
        for member in program:
            if isinstance(program[member], self._gl.Uniform):
                self._uniforms.setdefault(member, []).append(program[member])

    def _visible_triangles(self) -> np.ndarray:
        """Triangles [F, 3] that some sampled pose can show: the back of the head is left out."""
        g = self._geometry
        depth = g.rest[:, 2].copy()
        balls = g.material == EYE
        depth[balls] = g.unit_sphere_depth
        furthest = depth[g.triangles].max(1)
        material = g.material[g.triangles[:, 0]]
        return g.triangles[(furthest > -0.1) | (material == LONG_HAIR)]

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            if np.ndim(value):
                value = tuple(np.asarray(value, float).ravel().tolist())
            for uniform in self._uniforms.get(name, ()):
                uniform.value = value

    def _framebuffer(self, size: int) -> Any:
        if size not in self._framebuffers:
            c = self._context
            self._framebuffers[size] = c.framebuffer(
                [c.texture((size, size), 4)], c.depth_renderbuffer((size, size))
            )
        return self._framebuffers[size]

    def _vertices(self, identity: Identity) -> np.ndarray:
        if self._shape_of is None or self._shape_of[0] != id(identity):
            shaped = geometry.identity_vertices(self._model, identity.shape)
            self._identity = identity  # keeps the id from being reused
            self._shape_of = (id(identity), shaped)
        return self._shape_of[1]

    def _write_wrinkles(self, identity: Identity, aus: rig.Aus) -> None:
        aged = appearance.ageing(identity.age)
        # Deeper lines than these hide anger and disgust from a classifier of photographs.
        lines = {
            "nasolabial": 0.10 + 0.35 * aged,
            "forehead_inner": 0.2 * aged,
            "forehead_outer": 0.2 * aged,
            "crow_feet": 0.6 * aged,
            "lower_lid": 0.25 * aged,
            "lid_fold": 0.55,
        }
        strength = (0.6 + 0.6 * min(1.0, identity.age + 0.2)) * identity.wrinkle
        sides = []
        for side in (0, 1):
            gains = {n: g * strength for n, g in rig.wrinkle_gains(aus, side).items() if g > 0}
            sides.append({n: gains.get(n, 0.0) + lines.get(n, 0.0) for n in {**gains, **lines}})
        self._wrinkle_map.write(self._wrinkles.combine(*sides).tobytes())

    def render(
        self,
        identity: Identity,
        aus: rig.Aus,
        pose: scene.Pose,
        light: scene.Light,
        size: int = 128,
    ) -> np.ndarray:
        """One face, uint8 [size, size, 3] sRGB."""
        gaze_x, gaze_y = pose.gaze
        units = posed_units(identity, aus, pose.gaze)
        cap_volume = identity.hair_volume * (0.25 if identity.hair_style == 1 else 1.0)
        posed = self._geometry.pose(self._vertices(identity), units, cap_volume)
        self._posed.write(np.concatenate([posed.positions, posed.normals], 1).tobytes())
        self._write_wrinkles(identity, aus)

        camera = scene.align(pose, posed.eye_centres, posed.chin)
        # Cameras meter faces: dark skin is exposed somewhat longer.
        exposure = light.exposure * (_EXPOSURE_SKIN / np.mean(identity.skin**2)) ** 0.25
        key = _direction(light.azimuth, light.elevation)
        self._set(
            head_to_clip=camera.head_to_clip.T,
            turn=camera.rotation.T,
            camera=camera.position,
            mouth_opening=rig.mouth_opening(units),
            head_to_key=_key_view(camera.rotation.T @ key, posed).T,
            hardness=light.hardness,
            key_direction=key,
            key_color=np.asarray(light.key) * exposure,
            fill_direction=_direction(light.fill_azimuth, 0.2),
            fill_color=np.full(3, light.fill * exposure),
            sky_color=np.array([1.05, 1.05, 1.1]) * light.ambient * exposure,
            ground_color=np.array([0.7, 0.62, 0.55]) * light.ambient * exposure,
            gaze_right=_direction(gaze_x + _CONVERGENCE, gaze_y),
            gaze_left=_direction(gaze_x - _CONVERGENCE, gaze_y),
            lashes=_lash_color(identity),
            aged=appearance.ageing(identity.age),
            fringe=float(identity.fringe),
            grain_offset=((identity.seed % 97) / 97, (identity.seed % 89) / 89),
        )
        for name in (
            "skin", "hair", "hair_style", "hairline", "brow", "brow_rgb", "iris", "pupil", "lip",
            "lip_opacity", "beard", "tooth", "roughness", "blush", "eye_shadow", "cloth",
        ):  # fmt: skip
            self._set(**{name: getattr(identity, name)})
        return self._draw(identity, light, size)

    def _draw(self, identity: Identity, light: scene.Light, size: int) -> np.ndarray:
        self._key_view.use()
        self._key_view.clear(depth=1.0)
        self._blocker.render(first=0, vertices=self._starts[1])
        n = max(_LEAST_RASTER, round(_SUPERSAMPLING * size))
        target = self._framebuffer(n)
        target.use()
        target.clear(0, 0, 0, 0, depth=1.0)
        self._masks.use(0)
        self._wrinkle_map.use(1)
        self._grain.use(2)
        self._key_depth.use(3)
        start = self._starts
        skin = _BEARDED if identity.beard > 0 else _SKIN
        self._arrays[skin].render(first=0, vertices=start[1])
        self._arrays[_EYES_MOUTH].render(first=start[1], vertices=start[2] - start[1])
        if identity.hair_style:
            end = start[4] if identity.hair_style == 3 else start[3]
            self._context.disable(self._gl.CULL_FACE)
            self._arrays[_HAIR].render(first=start[2], vertices=end - start[2])
            self._context.enable(self._gl.CULL_FACE)
        # RGBX: four bands resized alike, as the empty pixels are black already.
        raster = Image.frombuffer("RGBX", (n, n), target.read(components=4), "raw", "RGBX", 0, -1)
        image = np.asarray(raster.resize((size, size), Image.Resampling.BILINEAR), np.float32)
        back = scene.background_image(light, size)
        return (image[..., :3] + (1 - image[..., 3:] / 255) * back + 0.5).astype(np.uint8)
