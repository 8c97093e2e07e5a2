"""Variations of a real image, by semantic augmentation (Li et al., arXiv 2411.17254).

The image is encoded, a point near its posterior's mean is drawn, and the decoded point shows the
same meaning anew. A few diffusion steps at the class's prompt and action units can repair what the
noise has spoilt. The vote of the bundle's annotators checks each variation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synfer_rt.bundle import FERANNO
from synfer_rt.data import pixels
from synfer_rt.data.datasets.items import Item, picture, still_there
from synfer_rt.diffusion import noise
from synfer_rt.faces.alignment import Aligner
from synfer_rt.jobs.augmentation import Augmentation
from synfer_rt.judging.voting import Verdict
from synfer_rt.sampling.requests import Request, Requests, make_requests
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.vocabulary.prompts import expression_alone

_ATTEMPT = 1 << 40
"""What separates the keys of an addition's attempts; no dataset has as many images."""


@dataclass(frozen=True)
class Attempt:
    """Attempt `number` at the addition `index`, both from 0."""

    index: int
    number: int

    @property
    def key(self) -> int:
        """What its random draws are keyed by, beside the seed."""
        return self.index + self.number * _ATTEMPT


@dataclass(frozen=True)
class Variation:
    """What an attempt made of `source`: `image` uint8 [H, W, 3], and the vote on it.

    A `broken` one is flat or not finite. With repair steps it was denoised as `request` says.
    """

    attempt: Attempt
    source: Item
    request: Request
    image: np.ndarray
    verdict: Verdict
    broken: bool

    @property
    def accepted(self) -> bool:
        """Whether the vote sees the class in it."""
        return not self.broken and bool(self.verdict.agrees)

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """The higher, the better it shows the class."""
        return self.accepted, not self.broken, self.verdict.probabilities[self.request.label]


class Variations:
    """Makes variations of an augmentation's originals with the engines of a bundle.

    Repair steps are the denoiser's, at the quality "best": a student is distilled for other steps
    than these, from noise or start faces. Raises UserError for repair steps that do not fit.
    """

    def __init__(self, job: Augmentation, sampler: Sampler) -> None:
        self.job, self.sampler, self.bundle = job, sampler, sampler.bundle
        self._requests: dict[str, Requests] = {}
        self._repair = None
        if job.repair_steps:
            self._repair = self.bundle.trajectory(
                steps=job.repair_steps, strength=job.repair_strength
            )

    def make(self, attempts: Sequence[Attempt], size: int) -> list[Variation]:
        """One variation for each of up to `size` attempts.

        The engines always compute `size` of them, since a runtime may compile an engine anew for
        each size. Raises UserError when a source is no longer there.
        """
        padded = [*attempts, *[attempts[-1]] * (size - len(attempts))]
        sources = [self.job.source(attempt.index, attempt.number) for attempt in padded]
        requests = [
            self._request(s.label or "", a.key) for s, a in zip(sources, padded, strict=True)
        ]
        fitted, aligner = self.bundle.image_size, self.job.aligner
        images = np.stack([original(source, fitted, aligner) for source in sources])
        latents = self._repaired(self._drawn(images, padded), requests, padded)
        grey = pixels.are_grey(images)
        decoded, sound = shown(self.sampler.decode(latents), grey)
        latents = np.where(sound[:, None, None, None], latents, 0)
        verdicts = self._judged(decoded, latents, grey, requests)
        written = pixels.in_8_bits(decoded)
        return [
            Variation(attempt, sources[i], requests[i], written[i], verdicts[i], not sound[i])
            for i, attempt in enumerate(attempts)
        ]

    def _drawn(self, images: np.ndarray, attempts: Sequence[Attempt]) -> np.ndarray:
        """Latents around the means of the images' posteriors."""
        mean, logvar = self.sampler.encode(images)
        deviation = np.float32(self.job.noise_scale) * np.exp(logvar / 2)
        return mean + deviation * self._noise(attempts, "posterior")

    def _repaired(
        self, latents: np.ndarray, requests: Sequence[Request], attempts: Sequence[Attempt]
    ) -> np.ndarray:
        """The latents after the repair steps, if there are any."""
        if self._repair is None:
            return latents
        start = np.float32(self._repair.signal) * latents
        start += np.float32(self._repair.noise) * self._noise(attempts, "latents")
        return self.sampler.denoised(requests, start, self._repair)

    def _judged(
        self,
        images: np.ndarray,
        latents: np.ndarray,
        grey: np.ndarray,
        requests: Sequence[Request],
    ) -> list[Verdict]:
        """The vote on decoded images, as they are written."""
        if FERANNO in self.bundle.annotators and grey.any():
            # The vote is on what is written, and these latents still have colours.
            encoded, _ = self.sampler.encode(images)
            latents = np.where(grey[:, None, None, None], encoded, latents)
        wanted = [request.label for request in requests]
        return self.sampler.annotators.judge(images, wanted, latents, rectify=False)

    def _noise(self, attempts: Sequence[Attempt], stream: str) -> np.ndarray:
        shape, seed = self.bundle.latent.shape, self.job.seed
        return noise.normals([(seed, attempt.key) for attempt in attempts], shape, stream)

    def _request(self, label: str, key: int) -> Request:
        """The class's prompt, and AUs drawn from its prototypes."""
        if label not in self._requests:
            self._requests[label] = make_requests(
                self.bundle,
                labels=[label],
                prompt=expression_alone(label),
                layout="none",
                seed=self.job.seed,
            )
        return self._requests[label][key]


def original(item: Item, size: tuple[int, int], aligner: Aligner | None = None) -> np.ndarray:
    """An original in the bundle's size (H, W), float32 [3, H, W] in [0, 1].

    With an `aligner` it is the aligned face. Raises UserError when it is no longer there.
    """
    with still_there(item):
        return picture(item, size, aligner)


def shown(images: np.ndarray, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decoded images as they are written, and which of them are sound.

    Those of `grey` originals are without colour: if colour told additions from originals, a
    classifier would learn it instead of the class.
    """
    images = np.where(grey[:, None, None, None], pixels.without_colour(images), images)
    return pixels.finite(images), pixels.sound(images)
