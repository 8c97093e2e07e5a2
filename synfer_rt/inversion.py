"""Layout initialisation: real faces as noise, from which a request is denoised anew.

DDIM is deterministic, so its steps can be run backwards: an encoded image becomes the noise that
leads to it (arXiv 2010.02502, section 4.3). SynFER inverts with a neutral prompt, no action units
and no guidance (arXiv 2410.09865), then denoises with the request. The denoiser
engine does both; here are the matrices of the way back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synfer_rt import prompts
from synfer_rt.backends import Value, to_numpy
from synfer_rt.errors import UserError
from synfer_rt.images import find_images, read_image
from synfer_rt.sampler import Request, Sampler
from synfer_rt.solvers import HISTORY_SLOTS, Trajectory

NEUTRAL_PROMPT = "a photo of a face"
ROUNDS = 3
"""How often a step is solved by default. On synfer-mini, with 12 steps at strength 0.8, the way
there and back ends at 52 dB from what the VAE alone gives back; with one round, at 32 dB.
"""


@dataclass(frozen=True)
class Photos:
    """Images to start from: `images` float32 [N, 3, H, W] in [0, 1].

    `files` and `sha256` say which they are; `skipped` holds a sentence for each file that could
    not be read.
    """

    images: np.ndarray
    files: tuple[Path, ...]
    sha256: tuple[str, ...]
    skipped: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)


def read_photos(path: str | Path, size: tuple[int, int]) -> Photos:
    """Every image at or below `path`, in the order of their paths, cropped to `size` (H, W).

    Raises UserError when there is nothing at `path`, or no image among what is there.
    """
    images, files, hashes, skipped = [], [], [], []
    for file in find_images(path):
        try:
            content = file.read_bytes()
        except OSError as error:
            skipped.append(f"{file} cannot be read ({error.strerror}); mend its permissions.")
            continue
        try:
            images.append(read_image(content, size))
        except UserError as error:
            skipped.append(str(error).replace("The image", str(file), 1))
            continue
        files.append(file)
        hashes.append(hashlib.sha256(content).hexdigest())
    if not images:
        raise UserError(
            f"None of the {len(skipped)} files at {path} is an image; the first: {skipped[0]}"
        )
    return Photos(np.stack(images), tuple(files), tuple(hashes), tuple(skipped))


def inverted(way: Trajectory, prediction_type: str, rounds: int = ROUNDS) -> Trajectory:
    """The way back of `way`: from clean latents to where `way` starts, by DDIM on its timesteps.

    A step of DDIM is `lower = A * upper + B * prediction(upper, t)`. Backwards, `upper` is wanted
    and stands on both sides; it is found by iterating `upper <- (lower - B * prediction(upper, t))
    / A` from `upper = lower`, `rounds` times (fixed-point inversion, arXiv 2309.04907, algorithm
    1); one round is DDIM inversion as usual. Each round is one step of the result, which keeps
    `lower` in the history's first slot. Raises UserError for fewer than one round.
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


def invert(
    sampler: Sampler,
    images: np.ndarray,
    way: Trajectory,
    *,
    prompt: str = NEUTRAL_PROMPT,
    rounds: int = ROUNDS,
    batch: int = 64,
) -> np.ndarray:
    """The latents float32 [N, C, h, w] at the start of `way` that lead to `images`.

    `images` are float32 [N, 3, H, W] in [0, 1]; `prompt`, without AUs or guidance, is the
    condition of the way back. Raises UserError for a bundle without an encoder and a batch below 1.
    """
    if "encoder" not in sampler.bundle.engines:
        raise UserError(
            f"{sampler.bundle.name} has no encoder to read images with; build the bundle again "
            "with `synfer-rt build-engines`."
        )
    if batch < 1:
        raise UserError(f"A batch of {batch} holds no image; write 1 or more.")
    back = inverted(way, sampler.bundle.prediction_type, rounds)
    latents, _ = sampler.encode(images)
    parts = []
    for first in range(0, len(latents), batch):
        part: Value = latents[first : first + batch]
        count = len(part)
        neutral = [Request(i, 0, "", prompt, "", {}, 1.0, 1.0, None) for i in range(count)]
        conditioning = sampler.condition(neutral)
        for step in sampler.denoise(part, conditioning, np.ones(count, np.float32), back):
            part = step
        parts.append(to_numpy(part))
    return np.concatenate(parts) if parts else latents


def edit_prompt(label: str) -> str:
    """What to ask of a face that is given: its expression, and nothing of who it is."""
    word = prompts.EXPRESSION_WORDS[label][0]
    return f"a photo of {'an' if word[0] in 'aeiou' else 'a'} {word} face"


def sweep(photos: int, labels: Sequence[str], index: int) -> tuple[int, str]:
    """The photo and the label of sample `index`: every label of one photo, then the next photo."""
    turn, label = divmod(index, len(labels))
    return turn % photos, labels[label]
