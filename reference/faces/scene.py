"""The scene of a photograph: head pose, gaze, camera framing, light and background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EYE_LINE = 0.335
"""Height of the eye line in the aligned frame, as a share from the top."""
EYE_DISTANCE = 0.365
"""Distance between the eye centres, as a share of the frame's width."""

_LOWEST_CHIN = 1.05
"""Greatest distance from eyes to chin before jitter, as a share of the frame below the eye line. It
is above 1 because the measured point lies under the chin."""


Color = tuple[float, float, float]


@dataclass(frozen=True)
class Pose:
    """Head angles, gaze and framing jitter.

    yaw, pitch, roll: radians. Positive yaw turns the face to the image's right (the subject's
    left); positive pitch looks down; positive roll tips the crown to the image's left. The camera
    levels the eye line, so that roll is the tilt that remains in the image.
    gaze: radians (towards the image's right, up). zoom: 1 = aligned. shift: frame shares, x right,
    y up. distance: of the camera, in decimetres.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    gaze: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    distance: float = 12.0


@dataclass(frozen=True)
class Light:
    """Key, fill and ambient light, background and exposure.

    azimuth, elevation: of the key in radians, positive to the image's right and up. key: rgb.
    fill, fill_azimuth: of the second light. ambient: 0..1. background: rgb 0..1.
    background_contrast: spread of the blotches. hardness: how dark the key's shadows are, 0..1.
    seed: drives the blotches.
    """

    azimuth: float = 0.4
    elevation: float = 0.5
    key: tuple[float, float, float] = (1.25, 1.2, 1.15)
    fill: float = 0.3
    fill_azimuth: float = -1.2
    ambient: float = 0.32
    background: tuple[float, float, float] = (0.6, 0.6, 0.6)
    background_contrast: float = 0.03
    exposure: float = 1.0
    hardness: float = 0.6
    seed: int = 0

    @property
    def key_strength(self) -> float:
        """Mean of the key's channels."""
        return float(np.mean(self.key))


def sample_pose(rng: np.random.Generator) -> Pose:
    """Aligned-crop pose: yaw sd 9 degrees, pitch sd 5, and a few percent of misalignment."""
    return Pose(
        yaw=float(np.clip(rng.normal(0, 0.157), -0.5, 0.5)),
        pitch=float(np.clip(rng.normal(0, 0.085), -0.25, 0.25)),
        roll=float(rng.normal(0, 0.03)),
        gaze=(float(rng.normal(0, 0.10)), float(np.clip(rng.normal(0, 0.06), -0.2, 0.15))),
        zoom=float(rng.normal(1, 0.025)),
        shift=(float(rng.normal(0, 0.012)), float(rng.normal(0, 0.012))),
        distance=float(rng.uniform(8, 18)),
    )


def sample_color(rng: np.random.Generator, darkest: float, lightest: float) -> Color:
    """A random colour: any hue, mostly muted, with its brightness between the bounds."""
    value, hue = rng.uniform(darkest, lightest), 2 * np.pi * rng.random()
    saturation = 0.5 * rng.beta(1.2, 4)
    swing = np.cos(hue - np.array([0.0, 2.0, 4.0]) * np.pi / 3)
    red, green, blue = np.clip(value * (1 + saturation * swing), 0, 1).tolist()
    return red, green, blue


def sample_light(rng: np.random.Generator) -> Light:
    """From soft frontal to hard side light, warm or cold, in front of any background."""
    warmth = rng.uniform(-1, 1)
    azimuth = float(np.clip(rng.normal(0, 0.65), -1.5, 1.5))
    strength = rng.uniform(0.9, 1.75)
    red, green, blue = (np.array([1 + 0.08 * warmth, 1, 1 - 0.11 * warmth]) * strength).tolist()
    return Light(
        azimuth=azimuth,
        elevation=float(rng.uniform(-0.05, 0.95)),
        key=(red, green, blue),
        fill=float(rng.uniform(0.05, 0.5)),
        fill_azimuth=float(azimuth + np.pi * rng.uniform(0.5, 1.3)),
        ambient=float(rng.uniform(0.18, 0.48)),
        background=sample_color(rng, 0.05, 0.92),
        background_contrast=float(rng.uniform(0.02, 0.16)),
        exposure=float(rng.uniform(0.85, 1.15)),
        hardness=float(rng.uniform(0.15, 0.8)),
        seed=int(rng.integers(1 << 31)),
    )


def background_image(light: Light, size: int) -> np.ndarray:
    """Blurred blotches, uint8 [size, size, 3]."""
    from PIL import Image

    rng = np.random.default_rng(light.seed)
    n = rng.integers(2, 7)
    spread = light.background_contrast
    blotches = np.asarray(light.background) + rng.normal(0, spread, (n, n, 1))
    blotches = np.clip(blotches + rng.normal(0, spread * 0.3, (n, n, 3)), 0, 1)
    image = Image.fromarray((blotches * 255).astype(np.uint8))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Head-to-camera rotation [3, 3]: yaw about y first, then pitch, then roll."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    cr, sr = np.cos(roll), np.sin(roll)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


@dataclass(frozen=True)
class Camera:
    """rotation [3, 3]; head_to_clip [4, 4]; position [3] in rotated head coordinates."""

    rotation: np.ndarray
    head_to_clip: np.ndarray
    position: np.ndarray


def align(pose: Pose, eye_centres: np.ndarray, chin: np.ndarray) -> Camera:
    """A camera that puts the eyes [2, 3] (right, left) where aligned crops have them.

    It zooms out by up to a sixth if the chin [3] would leave the frame, as alignment by mouth
    landmarks does to real crops.
    """
    tilted = rotation(pose.yaw, pose.pitch, 0.0)
    across = tilted @ (eye_centres[1] - eye_centres[0])
    level = pose.roll - np.arctan2(across[1], across[0])
    turn = rotation(0.0, 0.0, level) @ tilted
    middle = turn @ eye_centres.mean(0)
    eye_distance = float(np.linalg.norm(eye_centres[1] - eye_centres[0]))
    focal = 2 * EYE_DISTANCE * pose.zoom / eye_distance * pose.distance
    drop = focal * (middle[1] - turn[1] @ chin) / pose.distance
    focal *= float(np.clip(_LOWEST_CHIN * 2 * (1 - EYE_LINE) / drop, 5 / 6, 1))
    near, far = pose.distance - 4.0, pose.distance + 4.0
    offset = (2 * pose.shift[0], 1 - 2 * EYE_LINE + 2 * pose.shift[1])
    projection = np.array(
        [
            [focal, 0, -offset[0], 0],
            [0, focal, -offset[1], 0],
            [0, 0, -(far + near) / (far - near), -2 * far * near / (far - near)],
            [0, 0, -1, 0],
        ]
    )
    position = middle + np.array([0, 0, pose.distance])
    view = np.eye(4)
    view[:3, :3] = turn
    view[:3, 3] = -position
    return Camera(turn, projection @ view, position)
