"""Layout initialisation: real faces as noise, from which a request is denoised anew.

DDIM is deterministic, so its steps can be run backwards: an encoded image becomes the noise that
leads to it (arXiv 2010.02502, section 4.3). SynFER inverts with a neutral prompt, no action units
and no guidance (arXiv 2410.09865), then denoises with the request. The denoiser
engine does both; here are the matrices of the way back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synfer_rt.bundle import Bundle
from synfer_rt.data.images import find_images, in_utf8, read_image
from synfer_rt.diffusion.solvers import HISTORY_SLOTS, Trajectory
from synfer_rt.errors import UserError
from synfer_rt.paths import local
from synfer_rt.sampling.requests import Request
from synfer_rt.sampling.sampler import Sampler

NEUTRAL_PROMPT = "a photo of a face"
ROUNDS = 3
"""How often a step is solved; `sample --layout-from` prints how well photos come back."""
STRENGTH = 35 / 50
"""The part of the noise schedule that is inverted by default, as SynFER is reproduced: 35 of 50."""
DISTORTED = 25.0
"""Below so many dB through the VAE alone a face is visibly another; models make theirs at 30."""
_LEAST_SIGNAL = 1e-3
"""Of an image in the noise that one step starts from; models have 0.05, those of zero SNR 0."""
_AT_ONCE = 64
"""Photos held in memory at once."""
_ROUND_TRIPS = 8
"""So many photos are brought back to see how well it goes."""


@dataclass(frozen=True)
class Photos:
    """Images to start from, cropped to `size` (H, W).

    `files` are where they are and `names` what they are called, in UTF-8; `sha256` says which they
    are. `skipped` holds the reason for each file, by name, that could not be read.
    """

    size: tuple[int, int]
    files: tuple[Path, ...]
    names: tuple[str, ...]
    sha256: tuple[str, ...]
    skipped: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def digest(self) -> str:
        """The SHA-256 of the photos and their order."""
        return hashlib.sha256("".join(self.sha256).encode()).hexdigest()

    def images(self, rows: Sequence[int]) -> np.ndarray:
        """These photos float32 [n, 3, H, W] in [0, 1]. Raises UserError for one that is gone."""
        return np.stack([read_image(self.files[row], self.size) for row in rows])


def read_photos(path: str | Path, size: tuple[int, int]) -> Photos:
    """Every image at or below `path`, in the order of their paths.

    Raises UserError when there is nothing at `path`, or no image among what is there.
    """
    path = local(path)
    found: list[tuple[Path, str, str]] = []
    skipped: dict[str, str] = {}
    for file in find_images(path):
        name = in_utf8(file.name if file == path else file.relative_to(path).as_posix())
        try:
            content = file.read_bytes()
            read_image(content, size)  # the whole of it, to know that it can be
        except OSError as error:
            skipped[name] = f"it cannot be read ({error.strerror}); mend it, or leave it out."
        except UserError as error:
            skipped[name] = str(error).replace("The image", "it", 1)
        else:
            found.append((file, name, hashlib.sha256(content).hexdigest()))
    if not found:
        reason = next(iter(skipped.values()))
        raise UserError(f"None of the {len(skipped)} files at {path} is a photo; of one: {reason}")
    files, names, hashes = zip(*found, strict=True)
    return Photos(size, files, names, hashes, skipped)


def inverted(way: Trajectory, prediction_type: str, rounds: int = ROUNDS) -> Trajectory:
    """The way back of `way`: from clean latents to where `way` starts, by DDIM on its timesteps.

    A step of DDIM is `lower = A * upper + B * prediction(upper, t)`. Backwards, `upper` is wanted
    and stands on both sides; it is found by iterating `upper <- (lower - B * prediction(upper, t))
    / A` from `upper = lower`, `rounds` times (fixed-point inversion, arXiv 2309.04907, algorithm
    1); one round is DDIM inversion as usual. Each round is one step of the result, which keeps
    `lower` in the history's first slot. Raises UserError for fewer than one round, and where `way`
    is a single step from noise alone: nothing of the image is left to go back to.
    """
    if rounds < 1:
        raise UserError(f"{rounds} rounds invert nothing; write 1 or more.")
    latents, prediction, lower, *_ = np.eye(HISTORY_SLOTS + 2)
    nothing = np.zeros(HISTORY_SLOTS + 2)
    # Row 1 of every solver's matrix is the clean image, a * latents + b * prediction.
    clean = way.coefficients[:, 1, :2].astype(np.float64)
    levels = [_level(a, b, prediction_type) for a, b in clean] + [(1.0, 0.0)]
    matrices, timesteps = [], []
    for i in reversed(range(len(clean))):
        (signal, noise), (next_signal, next_noise) = levels[i : i + 2]
        ratio = next_noise / noise
        share = next_signal - signal * ratio
        a, b = ratio + share * clean[i, 0], share * clean[i, 1]
        if abs(a) < _LEAST_SIGNAL:
            raise UserError(
                "No photo leads to the noise that one step at full strength starts from; use more "
                "--steps, or a lower --layout-strength."
            )
        for round_ in range(rounds):
            below = latents if round_ == 0 else lower
            upper = (below - b * prediction) / a
            matrices.append(np.stack([upper, below, *[nothing] * (HISTORY_SLOTS - 1)]))
            timesteps.append(way.timesteps[i])
    return Trajectory(
        np.array(timesteps, np.float32), np.stack(matrices).astype(np.float32), 1.0, 0.0
    )


def _level(a: float, b: float, prediction_type: str) -> tuple[float, float]:
    """Signal and noise of a timestep from its clean image's coefficients."""
    return (1 / a, -b / a) if prediction_type == "epsilon" else (a, -b)


def check_encoder(bundle: Bundle) -> None:
    """Raise UserError for a bundle that cannot read images."""
    if "encoder" not in bundle.engines:
        raise UserError(
            f"{bundle.name} has no encoder to read images with; build the bundle again with "
            "`synfer-rt build-engines`."
        )


def invert(
    sampler: Sampler,
    images: np.ndarray,
    way: Trajectory,
    *,
    prompt: str = NEUTRAL_PROMPT,
    rounds: int = ROUNDS,
) -> np.ndarray:
    """The latents float32 [N, C, h, w] at the start of `way` that lead to `images`.

    `images` are float32 [N, 3, H, W] in [0, 1], N at least 1; `prompt`, without AUs or guidance,
    is the condition of the way back. Raises UserError for a bundle without an encoder.
    """
    check_encoder(sampler.bundle)
    back = inverted(way, sampler.bundle.prediction_type, rounds)
    neutral = neutral_request(sampler.bundle, prompt)
    return sampler.denoised([neutral] * len(images), sampler.encode(images)[0], back)


def neutral_request(bundle: Bundle, prompt: str = NEUTRAL_PROMPT) -> Request:
    """What inversion asks for: no action units, no guidance; nobody looks at its label."""
    return Request(0, 0, bundle.classes[0], prompt, "", {}, 1.0, 1.0, None)


class PhotoStarts:
    """Where samples begin that show the faces of photos: the latents at the start of `way`.

    Each photo is inverted once, when it is first needed.
    """

    def __init__(self, sampler: Sampler, photos: Photos, way: Trajectory) -> None:
        self._sampler, self._photos, self._way = sampler, photos, way
        self._found: dict[int, np.ndarray] = {}

    def latents(self, rows: Sequence[int], coming: Sequence[int] = ()) -> np.ndarray:
        """Those of these photos, float32 [len(rows), C, h, w]. Raises UserError for one gone.

        Photos that are `coming` next are inverted with these as far as the device takes them at
        once.
        """
        missing = sorted(set(rows) - self._found.keys())
        if missing:
            size = self._sampler.at_once(_AT_ONCE)
            next_ones = sorted(set(coming) - self._found.keys() - set(missing))
            missing += next_ones[: -len(missing) % size]
        for first in range(0, len(missing), _AT_ONCE):
            part = missing[first : first + _AT_ONCE]
            inverted = invert(self._sampler, self._photos.images(part), self._way)
            self._found.update(zip(part, inverted, strict=True))
        return np.stack([self._found[row] for row in rows])

    def round_trip(self) -> tuple[float, float]:
        """Mean PSNR in dB of the first photos: inverted and denoised, and through the VAE alone.

        Denoised as they were inverted, they come back but for what the VAE loses and for the steps'
        error.
        """
        rows = range(min(_ROUND_TRIPS, len(self._photos)))
        images = self._photos.images(rows)
        neutral = neutral_request(self._sampler.bundle)
        back = self._sampler.denoised([neutral] * len(rows), self.latents(rows), self._way)
        encoded, _ = self._sampler.encode(images)
        there, alone = (psnr(self._sampler.decode(x), images) for x in (back, encoded))
        return float(there.mean()), float(alone.mean())


def psnr(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB, float64 [N], of images [N, 3, H, W] in [0, 1]."""
    error = np.square(images.astype(np.float64) - truth).mean((1, 2, 3))
    return -10 * np.log10(np.maximum(error, 1e-12))
