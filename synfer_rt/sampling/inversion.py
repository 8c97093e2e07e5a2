"""Layout initialisation: photos of faces become noise, from which requests are denoised.

A solver without fresh noise is deterministic, so its steps can be run backwards: an encoded image
becomes the noise that leads to it (arXiv 2010.02502, section 4.3). SynFER inverts with a neutral
prompt, no action units and no guidance (arXiv 2410.09865), then denoises with the request. The
denoiser engine does both; `diffusion/inversion.py` makes the matrices of the backward steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from synfer_rt.backends import default_threads
from synfer_rt.bundle import Bundle
from synfer_rt.data.datasets.items import Item, picture, still_there
from synfer_rt.data.datasets.labels.label import UNLABELLED
from synfer_rt.data.images import centred, find_images, in_utf8, read_image
from synfer_rt.diffusion.inversion import METHODS, PREDICTOR_CORRECTOR
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.errors import UserError
from synfer_rt.faces.alignment import Aligner
from synfer_rt.judging.annotators import AU_READER
from synfer_rt.paths import local
from synfer_rt.sampling.preparation import padded
from synfer_rt.sampling.requests import Request
from synfer_rt.sampling.sampler import Sampler

NEUTRAL_PROMPT = "a photo of a face"
STRENGTH = 35 / 50
"""The part of the noise schedule that is inverted by default; 35 of 50 as in a reproduction of
SynFER."""
DISTORTED = 25.0
"""PSNR in dB through the VAE alone below which a face visibly changes; images of a model's own
kind have about 30."""
_AT_ONCE = 64
"""Photos that are held in memory and inverted together, at most."""
_KEPT = 1 << 25
"""The most bytes of latents that are kept until their photos come back."""
_DECIMALS = 4
"""Of the intensities that the AU reader reads, as `label` writes them."""
_ROUND_TRIPS = 8
"""Photos of which `round_trip` measures the loss."""
_READERS = 4
"""Threads that read photos where there are fewer cores, since they also wait for the disk."""


@dataclass(frozen=True)
class Photos:
    """Images to start from, which are cropped to `size` (H, W).

    `files` are their paths, `names` their names in UTF-8, relative to the folder that was read, and
    `sha256` the hashes of their files. `skipped` has the reasons, by name, why other files could
    not be read. Those of a dataset are its `items`, and `read_as` says what it was read as, by the
    names that run.json has for it. With an `aligner` they are aligned faces.
    """

    size: tuple[int, int]
    files: tuple[Path, ...]
    names: tuple[str, ...]
    sha256: tuple[str, ...]
    skipped: Mapping[str, str]
    items: tuple[Item, ...] = ()
    read_as: Mapping[str, str] = field(default_factory=dict[str, str])
    aligner: Aligner | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def digest(self) -> str:
        """A SHA-256 of the photos in their order."""
        return hashlib.sha256("".join(self.sha256).encode()).hexdigest()

    def as_items(self) -> Sequence[Item]:
        """The photos as items of a dataset, without labels if they are of none."""
        return self.items or [
            Item(name, *UNLABELLED, None, file, file.read_bytes)
            for name, file in zip(self.names, self.files, strict=True)
        ]

    def images(self, rows: Sequence[int]) -> np.ndarray:
        """The photos of these numbers, float32 [n, 3, H, W] in [0, 1].

        Raises UserError for one that is no longer there.
        """
        return np.stack(list(map(self._image, rows)))

    def _image(self, row: int) -> np.ndarray:
        if not self.items:
            return read_image(self.files[row], self.size, self.aligner or centred)
        with still_there(self.items[row]):
            return picture(self.items[row], self.size, self.aligner)


def read_photos(path: str | Path, size: tuple[int, int], aligner: Aligner | None = None) -> Photos:
    """The images at `path`, a file or folder, in the order of their paths.

    With an `aligner`, images without a face are skipped. Raises UserError if `path` does not exist,
    or has no image that can be read.
    """
    path = local(path)
    found: list[tuple[Path, str, str]] = []
    skipped: dict[str, str] = {}
    files = find_images(path)
    with ThreadPoolExecutor(readers(), "read") as pool:
        looked_at = list(pool.map(partial(_looked_at, size=size, aligner=aligner), files))
    for file, (sha256, problem) in zip(files, looked_at, strict=True):
        name = in_utf8(file.name if file == path else file.relative_to(path).as_posix())
        if problem is None:
            found.append((file, name, sha256))
        else:
            skipped[name] = problem
    if not found:
        reason = next(iter(skipped.values()))
        raise UserError(
            f"None of the {len(skipped)} files at {path} is a photo; the first: {reason}"
        )
    used, names, hashes = zip(*found, strict=True)
    return Photos(size, used, names, hashes, skipped, aligner=aligner)


def readers() -> int:
    """How many threads look at all photos before a run."""
    return max(_READERS, default_threads())


def _looked_at(
    file: Path, size: tuple[int, int], aligner: Aligner | None
) -> tuple[str, str | None]:
    """The SHA-256 of a photo's file, and why the photo cannot be used; None if it can."""
    try:
        content = file.read_bytes()
        # Decodes all of it, which shows whether it is whole.
        read_image(content, size, aligner or centred)
    except OSError as error:
        return "", f"it cannot be read ({error.strerror}); repair or remove it."
    except UserError as error:
        return "", str(error).replace("The image", "it", 1)
    return hashlib.sha256(content).hexdigest(), None


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
    method: str = PREDICTOR_CORRECTOR,
) -> np.ndarray:
    """The latents float32 [N, C, h, w] at the start of `trajectory` that lead to `images`.

    `images` are float32 [N, 3, H, W] in [0, 1], N at least 1. The inversion is conditioned on
    `prompt`, without AUs or guidance. `method` is a key of `diffusion.inversion.METHODS`. Raises
    UserError for a bundle without an encoder, and for steps that cannot be inverted.
    """
    check_encoder(sampler.bundle)
    back = METHODS[method](trajectory, sampler.bundle.prediction_type)
    neutral = neutral_request(sampler.bundle, prompt)
    return sampler.denoised([neutral] * len(images), sampler.encode(images)[0], back)


def neutral_request(bundle: Bundle, prompt: str = NEUTRAL_PROMPT) -> Request:
    """The request of an inversion: no AUs and no guidance; its label has no effect."""
    return Request(0, 0, bundle.classes[0], prompt, "", {}, 1.0, 1.0, None)


class PhotoStarts:
    """The latents at the start of `trajectory` that lead to photos, one for each photo.

    Each photo is inverted when it is first needed, by a `method` of `invert`. What is found goes
    when it has passed, unless photos `come_back` and all of them are small enough to keep. With
    `reads_aus` the bundle's AU reader looks at the photos, too.

    Always as many photos go through the engines at once, since some runtimes compute the last bits
    by their number: a start depends neither on the batch nor on those who make other samples.
    """

    def __init__(
        self,
        sampler: Sampler,
        photos: Photos,
        trajectory: Trajectory,
        method: str = PREDICTOR_CORRECTOR,
        *,
        come_back: bool = True,
        reads_aus: bool = False,
    ) -> None:
        self._sampler, self._photos, self._trajectory = sampler, photos, trajectory
        self._method, self._reads_aus = method, reads_aus
        self._rows = sampler.at_once(min(_AT_ONCE, len(photos)))
        each = 4 * int(np.prod(sampler.bundle.latent.shape))
        self._keeps = come_back and len(photos) * each <= _KEPT
        self._latents: dict[int, np.ndarray] = {}
        self._aus: dict[int, np.ndarray] = {}

    @property
    def kept(self) -> int:
        """Of how many photos the latents are in memory."""
        return len(self._latents)

    def latents(self, rows: Sequence[int], coming: Sequence[int] = ()) -> np.ndarray:
        """The latents of the photos of these numbers, float32 [len(rows), C, h, w].

        Photos that are `coming` next are inverted together with these, as many as fill up what goes
        through the engines at once. Raises UserError for a photo that is no longer there.
        """
        self._find(rows, coming)
        found = np.stack([self._latents[row] for row in rows])
        self._forget({*rows, *coming})
        return found

    def aus(self, rows: Sequence[int]) -> list[dict[str, float]] | None:
        """The intensities that the AU reader sees in photos, by the model's names of the units.

        None if it reads none. Call it after `latents` of these photos.
        """
        if not self._reads_aus:
            return None
        names = self._sampler.bundle.au_names
        read = (self._aus[row].astype(float).tolist() for row in rows)
        return [
            {name: round(x, _DECIMALS) for name, x in zip(names, each, strict=True)}
            for each in read
        ]

    def _find(self, rows: Sequence[int], coming: Sequence[int]) -> None:
        missing = sorted(set(rows) - self._latents.keys())
        if not missing:
            return
        next_ones = sorted(set(coming) - self._latents.keys() - set(missing))
        missing += next_ones[: -len(missing) % self._rows]
        for first in range(0, len(missing), self._rows):
            part = missing[first : first + self._rows]
            images = padded(self._photos.images(part), self._rows)
            latents = invert(self._sampler, images, self._trajectory, method=self._method)
            self._latents.update((row, latents[i].copy()) for i, row in enumerate(part))
            if self._reads_aus:
                read = self._sampler.engines.run_in_pieces(AU_READER, "images", images)["aus"]
                self._aus.update((row, read[i].copy()) for i, row in enumerate(part))

    def _forget(self, needed: set[int]) -> None:
        """Keep what was found of the photos that are needed, or of all."""
        if not self._keeps:
            for row in self._latents.keys() - needed:
                del self._latents[row]
                self._aus.pop(row, None)

    def round_trip(self) -> tuple[float, float]:
        """Mean PSNR in dB of the first photos: inverted and denoised, and through the VAE alone.

        They are denoised under the request of the inversion, so the first is below the second by
        the error of the steps.
        """
        rows = range(min(_ROUND_TRIPS, len(self._photos)))
        filling = range(min(self._rows, len(self._photos)))
        images = self._photos.images(rows)
        neutral = neutral_request(self._sampler.bundle)
        back = self._sampler.denoised(
            [neutral] * len(rows), self.latents(rows, filling), self._trajectory
        )
        encoded, _ = self._sampler.encode(images)
        there, alone = (psnr(self._sampler.decode(x), images) for x in (back, encoded))
        return float(there.mean()), float(alone.mean())


def psnr(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB, float64 [N], of images [N, 3, H, W] in [0, 1]."""
    error = np.square(images.astype(np.float64) - truth).mean((1, 2, 3))
    return -10 * np.log10(np.maximum(error, 1e-12))
