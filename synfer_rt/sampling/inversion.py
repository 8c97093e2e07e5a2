"""Layout initialisation: photos of faces become noise, from which requests are denoised.

DDIM is deterministic, so its steps can be run backwards: an encoded image becomes the noise that
leads to it (arXiv 2010.02502, section 4.3). SynFER inverts with a neutral prompt, no action units
and no guidance (arXiv 2410.09865), then denoises with the request. The denoiser engine does both;
this module makes the matrices of the backward steps.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synfer_rt import ranges
from synfer_rt.bundle import Bundle
from synfer_rt.data.images import find_images, in_utf8, read_image
from synfer_rt.diffusion.guidance_interval import levels
from synfer_rt.diffusion.solvers import HISTORY_SLOTS, Trajectory
from synfer_rt.errors import UserError
from synfer_rt.paths import local
from synfer_rt.sampling.requests import Request
from synfer_rt.sampling.sampler import Sampler

NEUTRAL_PROMPT = "a photo of a face"
ROUNDS = 3
"""Fixed-point iterations of each step; `sample` reports how well they restore the photos."""
STRENGTH = 35 / 50
"""The part of the noise schedule that is inverted by default; 35 of 50 as in a reproduction of
SynFER."""
DISTORTED = 25.0
"""PSNR in dB through the VAE alone below which a face visibly changes; images of a model's own
kind have about 30."""
_LEAST_SIGNAL = 1e-3
"""The least factor of the image in the latents that a step starts from; it is about 0.05 at the
last timestep of most models, and 0 at zero SNR."""
_AT_ONCE = 64
"""Photos that are held in memory and inverted together."""
_KEPT = 1 << 28
"""Bytes of latents of photos that are kept for later samples."""
_ROUND_TRIPS = 8
"""Photos of which `round_trip` measures the loss."""


@dataclass(frozen=True)
class Photos:
    """Images to start from, which are cropped to `size` (H, W).

    `files` are their paths, `names` their names in UTF-8, relative to the folder that was read, and
    `sha256` the hashes of their files. `skipped` has the reasons, by name, why other files could
    not be read.
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
        """A SHA-256 of the photos in their order."""
        return hashlib.sha256("".join(self.sha256).encode()).hexdigest()

    def images(self, rows: Sequence[int]) -> np.ndarray:
        """The photos of these numbers, float32 [n, 3, H, W] in [0, 1].

        Raises UserError for one that is no longer there.
        """
        return np.stack([read_image(self.files[row], self.size) for row in rows])


def read_photos(path: str | Path, size: tuple[int, int]) -> Photos:
    """The images at `path`, a file or folder, in the order of their paths.

    Raises UserError if `path` does not exist, or has no image that can be read.
    """
    path = local(path)
    found: list[tuple[Path, str, str]] = []
    skipped: dict[str, str] = {}
    for file in find_images(path):
        name = in_utf8(file.name if file == path else file.relative_to(path).as_posix())
        try:
            content = file.read_bytes()
            read_image(content, size)  # decodes all of it, which shows whether it is whole
        except OSError as error:
            skipped[name] = f"it cannot be read ({error.strerror}); repair or remove it."
        except UserError as error:
            skipped[name] = str(error).replace("The image", "it", 1)
        else:
            found.append((file, name, hashlib.sha256(content).hexdigest()))
    if not found:
        reason = next(iter(skipped.values()))
        raise UserError(
            f"None of the {len(skipped)} files at {path} is a photo; the first: {reason}"
        )
    files, names, hashes = zip(*found, strict=True)
    return Photos(size, files, names, hashes, skipped)


def inverted(trajectory: Trajectory, prediction_type: str, rounds: int = ROUNDS) -> Trajectory:
    """The reverse of `trajectory`: from clean latents to its start, by DDIM on its timesteps.

    A step of DDIM is `lower = A * upper + B * prediction(upper, t)`. Backwards `upper` is unknown
    and on both sides; it is found by iterating `upper <- (lower - B * prediction(upper, t)) / A`
    from `upper = lower`, `rounds` times (fixed-point inversion, arXiv 2309.04907, algorithm 1); one
    round is plain DDIM inversion. Each round is one step of the result, which keeps `lower` in the
    first slot of the history. Raises UserError for fewer than one round, and for a step from which
    nothing of the image is left, such as a single step from pure noise.
    """
    rounds = ranges.whole("rounds", rounds, 1, None)
    latents, prediction, lower, *_ = np.eye(HISTORY_SLOTS + 2)
    nothing = np.zeros(HISTORY_SLOTS + 2)
    # Row 1 of every solver's matrix is the clean image, a * latents + b * prediction.
    clean = trajectory.coefficients[:, 1, :2].astype(np.float64)
    way = [*levels(trajectory, prediction_type), (1.0, 0.0)]
    matrices: list[np.ndarray] = []
    timesteps: list[float] = []
    for i in reversed(range(len(clean))):
        (signal, noise), (next_signal, next_noise) = way[i : i + 2]
        ratio = next_noise / noise
        share = next_signal - signal * ratio
        a, b = ratio + share * clean[i, 0], share * clean[i, 1]
        if abs(a) < _LEAST_SIGNAL:
            raise UserError(
                "A step from pure noise cannot be inverted to a photo; raise `steps`, or lower "
                "`layout_strength`."
            )
        for round_ in range(rounds):
            below = latents if round_ == 0 else lower
            upper = (below - b * prediction) / a
            matrices.append(np.stack([upper, below, *[nothing] * (HISTORY_SLOTS - 1)]))
            timesteps.append(float(trajectory.timesteps[i]))
    return Trajectory(
        np.array(timesteps, np.float32), np.stack(matrices).astype(np.float32), 1.0, 0.0
    )


def check_encoder(bundle: Bundle) -> None:
    """Raise UserError for a bundle without an encoder."""
    if "encoder" not in bundle.engines:
        raise UserError(
            f"{bundle.name} has no encoder for images; build the bundle again with "
            "`synfer-rt build-engines`."
        )


def invert(
    sampler: Sampler,
    images: np.ndarray,
    trajectory: Trajectory,
    *,
    prompt: str = NEUTRAL_PROMPT,
    rounds: int = ROUNDS,
) -> np.ndarray:
    """The latents float32 [N, C, h, w] at the start of `trajectory` that lead to `images`.

    `images` are float32 [N, 3, H, W] in [0, 1], N at least 1. The inversion is conditioned on
    `prompt`, without AUs or guidance. Raises UserError for a bundle without an encoder.
    """
    check_encoder(sampler.bundle)
    back = inverted(trajectory, sampler.bundle.prediction_type, rounds)
    neutral = neutral_request(sampler.bundle, prompt)
    return sampler.denoised([neutral] * len(images), sampler.encode(images)[0], back)


def neutral_request(bundle: Bundle, prompt: str = NEUTRAL_PROMPT) -> Request:
    """The request of an inversion: no AUs and no guidance; its label has no effect."""
    return Request(0, 0, bundle.classes[0], prompt, "", {}, 1.0, 1.0, None)


class PhotoStarts:
    """The latents at the start of `trajectory` that lead to photos, one for each photo.

    Each photo is inverted when it is first needed. A run that comes back to its first photos after
    more of them than are kept inverts them again.
    """

    def __init__(self, sampler: Sampler, photos: Photos, trajectory: Trajectory) -> None:
        self._sampler, self._photos, self._trajectory = sampler, photos, trajectory
        self._found: dict[int, np.ndarray] = {}

    def latents(self, rows: Sequence[int], coming: Sequence[int] = ()) -> np.ndarray:
        """The latents of the photos of these numbers, float32 [len(rows), C, h, w].

        Photos that are `coming` next are inverted together with these, as many as fill up the
        batch that the device takes at once. Raises UserError for a photo that is no longer there.
        """
        missing = sorted(set(rows) - self._found.keys())
        if missing:
            size = self._sampler.at_once(_AT_ONCE)
            next_ones = sorted(set(coming) - self._found.keys() - set(missing))
            missing += next_ones[: -len(missing) % size]
        for first in range(0, len(missing), _AT_ONCE):
            part = missing[first : first + _AT_ONCE]
            latents = invert(self._sampler, self._photos.images(part), self._trajectory)
            self._found.update(zip(part, map(np.copy, latents), strict=True))
        found = np.stack([self._found[row] for row in rows])
        self._forget({*rows, *coming}, _KEPT // found[0].nbytes)
        return found

    def _forget(self, needed: set[int], most: int) -> None:
        """Keep the latents of `most` photos, the last ones, and of those that are needed."""
        excess = len(self._found) - most
        if excess > 0:
            passed = (row for row in self._found if row not in needed)
            for row in list(itertools.islice(passed, excess)):
                del self._found[row]

    def round_trip(self) -> tuple[float, float]:
        """Mean PSNR in dB of the first photos: inverted and denoised, and through the VAE alone.

        They are denoised under the request of the inversion, so the first is below the second by
        the error of the steps.
        """
        rows = range(min(_ROUND_TRIPS, len(self._photos)))
        images = self._photos.images(rows)
        neutral = neutral_request(self._sampler.bundle)
        back = self._sampler.denoised([neutral] * len(rows), self.latents(rows), self._trajectory)
        encoded, _ = self._sampler.encode(images)
        there, alone = (psnr(self._sampler.decode(x), images) for x in (back, encoded))
        return float(there.mean()), float(alone.mean())


def psnr(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB, float64 [N], of images [N, 3, H, W] in [0, 1]."""
    error = np.square(images.astype(np.float64) - truth).mean((1, 2, 3))
    return -10 * np.log10(np.maximum(error, 1e-12))
