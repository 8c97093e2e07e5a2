"""Semantic augmentation for long tails: new images of rare classes from real ones.

A real image is encoded, a point near its posterior's mean is drawn, and the decoded image shows the
same meaning anew (Li et al., arXiv 2411.17254, with the VAE of the diffusion model). A few
diffusion steps at the class's prompt and action units can repair what the noise has spoilt. The
vote of the bundle's annotators checks each image.

Addition k of a run is a pure function of the run's settings and k: all its draws are keyed by
(seed, index, attempt).
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from synfer_rt import ranges
from synfer_rt.bundle import FERANNO
from synfer_rt.data import pixels
from synfer_rt.data.datasets import Item
from synfer_rt.data.images import FORMATS, png, read_image, upright_rgb
from synfer_rt.data.writers import Writer
from synfer_rt.diffusion import noise
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.errors import UserError
from synfer_rt.jobs import runner
from synfer_rt.judging.voting import Verdict
from synfer_rt.records import AUGMENTED, ORIGINAL, Record, record
from synfer_rt.sampling.inversion import check_encoder
from synfer_rt.sampling.requests import Request, Requests, make_requests
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.vocabulary.prompts import expression_alone

_ATTEMPT = 1 << 40
"""What separates the keys of an addition's attempts; no dataset has as many images."""
_MOST_ATTEMPTS = 1 << 20
"""Their keys are int64; nobody waits for so many."""


Made = list[tuple[Record, bytes]]
"""Records with their PNG files."""


@dataclass(frozen=True)
class Augmentation:
    """What decides the additions.

    `noise_scale` multiplies the posterior's standard deviation, which is small: 1 gives near
    copies. With `repair_steps` the part `repair_strength` in (0, 1) of the noise schedule is run in
    that many steps; 0 repairs nothing. After `attempts` that the check refuses, the one with the
    highest probability of the class is kept, and not accepted. `decode_originals` passes these
    through the VAE too, so that size and blur do not tell which images were added. What is made of
    a grey original is grey.
    """

    originals: tuple[Item, ...] = field(repr=False)
    additions: tuple[str, ...] = field(repr=False)
    noise_scale: float
    repair_steps: int
    repair_strength: float
    attempts: int
    seed: int
    decode_originals: bool = False

    def __post_init__(self) -> None:
        strength = self.repair_strength
        for name, value, good, remedy in (
            (
                "--noise-scale",
                self.noise_scale,
                ranges.is_real(self.noise_scale, 0, 1000),
                "one of 0 to 1000",
            ),
            (
                "--repair-steps",
                self.repair_steps,
                ranges.is_whole(self.repair_steps),
                "a whole number of 0 or more",
            ),
            (
                "--repair-strength",
                strength,
                ranges.is_real(strength, 0, 1) and strength not in (0, 1),
                "one between 0 and 1",
            ),
            (
                "--attempts",
                self.attempts,
                ranges.is_whole(self.attempts, 1, _MOST_ATTEMPTS),
                f"a whole number of 1 to {_MOST_ATTEMPTS}",
            ),
            ("--seed", self.seed, ranges.is_whole(self.seed), "one of 0 to 2^63 - 1"),
        ):
            if not good:
                raise UserError(f"{name} {value} is outside its range; write {remedy}.")

    @property
    def count(self) -> int:
        """Images of the whole output."""
        return len(self.originals) + len(self.additions)

    @cached_property
    def _members(self) -> dict[str, list[int]]:
        members: dict[str, list[int]] = {}
        for i, item in enumerate(self.originals):
            members.setdefault(item.label or "", []).append(i)
        return members

    @cached_property
    def _ordinals(self) -> list[int]:
        """Each addition's number within its class."""
        counts: dict[str, int] = {}
        ordinals = []
        for label in self.additions:
            ordinals.append(counts.get(label, 0))
            counts[label] = ordinals[-1] + 1
        return ordinals

    def source(self, index: int, attempt: int) -> Item:
        """The original that addition `index` starts from: the class's images take turns."""
        addition = index - len(self.originals)
        members = self._members[self.additions[addition]]
        return self.originals[members[(self._ordinals[addition] + attempt) % len(members)]]


@dataclass(frozen=True)
class _Candidate:
    image: np.ndarray
    verdict: Verdict
    request: Request
    source: Item
    attempt: int
    broken: bool

    @property
    def accepted(self) -> bool:
        """Whether the vote sees the class in it."""
        return not self.broken and bool(self.verdict.agrees)


class Augmenter:
    """Makes the images of an augmentation, with the engines of the sampler's bundle.

    `broken` counts the additions that are flat or not finite; they are not accepted.

    Raises UserError for a bundle without an encoder or annotators, one that lacks a class of the
    originals, and repair steps that do not fit.
    """

    def __init__(self, job: Augmentation, sampler: Sampler) -> None:
        self.job, self.sampler = job, sampler
        self.bundle, self.ensemble = sampler.bundle, sampler.ensemble
        check_encoder(self.bundle)
        for label in sorted({str(item.label) for item in job.originals}):
            if label not in self.bundle.classes:
                raise UserError(
                    f"{self.bundle.name} does not know the class {label}; leave its images out, or "
                    "choose another bundle with --engines."
                )
        _ = self._trajectory  # refuses steps that do not fit before anything is written
        self._plans: dict[str, Requests] = {}
        self.broken = 0

    @cached_property
    def _trajectory(self) -> Trajectory | None:
        job = self.job
        if not job.repair_steps:
            return None
        return self.bundle.trajectory(steps=job.repair_steps, strength=job.repair_strength)

    def settings(self, format: str) -> dict[str, Any]:
        """What decides the output, as JSON values, for run.json."""
        job = self.job
        return {
            "command": "augment",
            "bundle": self.bundle.bundle_hash,
            "format": format,
            "count": job.count,
            "originals": len(job.originals),
            "noise_scale": job.noise_scale,
            "repair_steps": job.repair_steps,
            "repair_strength": job.repair_strength,
            "attempts": job.attempts,
            "seed": job.seed,
            "decode_originals": job.decode_originals or None,  # a run begun without has no such key
            "label_scheme": self.bundle.label_scheme,
            "classes": list(self.bundle.classes),
            "au_vocabulary": list(self.bundle.au_names) or None,
        }

    def make(self, indices: Sequence[int]) -> Made:
        """The records and PNG files of these indices, originals and additions alike."""
        return [made for piece in self.pieces(indices, len(indices)) for made in piece]

    def pieces(self, indices: Sequence[int], batch: int) -> Generator[Made]:
        """What `make` gives of rising indices, as it comes out of the engines.

        A batch goes through them in equal pieces, as large as the device is fast at.
        """
        size = self._at_once(max(min(batch, len(indices)), 1))
        originals = [i for i in indices if i < len(self.job.originals)]
        for first in range(0, len(originals), size):
            yield self._originals(originals[first : first + size])
        for finished in self._additions(indices[len(originals) :], size):
            self.broken += sum(candidate.broken for _, candidate in finished)
            yield [self._augmented(i, candidate) for i, candidate in finished]

    def _at_once(self, batch: int) -> int:
        repairing = ("conditioner", "denoiser") if self.job.repair_steps else ()
        size = self.sampler.engines.piece_size(batch, "encoder", "decoder", *repairing)
        return self.ensemble.at_once(size)

    def _additions(
        self, indices: Sequence[int], size: int
    ) -> Iterator[list[tuple[int, _Candidate]]]:
        """The best candidates of these additions, in order, as soon as they are settled.

        Each piece of `size` attempts holds first those that go on with the additions before, then
        new ones, so that all but the last are full.
        """
        best: dict[int, _Candidate] = {}
        again: list[tuple[int, int]] = []
        fresh, waiting = iter(indices), deque(indices)
        while waiting:
            new = [(index, 0) for index in islice(fresh, size - len(again))]
            attempts, again = again + new, []
            for (index, attempt), candidate in zip(
                attempts, self._attempts(attempts, size), strict=True
            ):
                rival, label = best.get(index), candidate.request.label
                if rival is None or _rank(candidate, label) > _rank(rival, label):
                    best[index] = candidate
                if not candidate.accepted and attempt + 1 < self.job.attempts:
                    again.append((index, attempt + 1))
            open_ = {index for index, _ in again}
            settled = []
            while waiting and waiting[0] in best and waiting[0] not in open_:
                settled.append((waiting[0], best.pop(waiting.popleft())))
            if settled:
                yield settled

    def _attempts(self, attempts: Sequence[tuple[int, int]], size: int) -> list[_Candidate]:
        """Candidates for (index, attempt) pairs, up to `size` of them."""
        job, sampler = self.job, self.sampler
        # Always as many, for a runtime may compile an engine anew for each size.
        padded = [*attempts, *[attempts[-1]] * (size - len(attempts))]
        keys = [index + attempt * _ATTEMPT for index, attempt in padded]
        sources = [job.source(index, attempt) for index, attempt in padded]
        requests = [self._request(s.label or "", key) for s, key in zip(sources, keys, strict=True)]
        images = np.stack([self._image(source) for source in sources])
        mean, logvar = sampler.encode(images)
        latents = mean + np.float32(job.noise_scale) * np.exp(logvar / 2) * self._noise(
            keys, "posterior"
        )
        way = self._trajectory
        if way is not None:
            start = np.float32(way.signal) * latents
            start += np.float32(way.noise) * self._noise(keys, "latents")
            latents = sampler.denoised(requests, start, way)
        grey = pixels.are_grey(images)
        decoded, whole = _shown(sampler.decode(latents), grey)
        latents = np.where(whole[:, None, None, None], latents, 0)
        if FERANNO in self.bundle.annotators and grey.any():
            # The vote is on what is written, and these latents still have colours.
            latents = np.where(grey[:, None, None, None], sampler.encode(decoded)[0], latents)
        wanted = [request.label for request in requests]
        verdicts = self.ensemble.judge(decoded, wanted, latents, rectify=False)
        written = pixels.in_8_bits(decoded)
        return [
            _Candidate(
                written[i], verdicts[i], requests[i], sources[i], attempt, broken=not whole[i]
            )
            for i, (_, attempt) in enumerate(attempts)
        ]

    def _image(self, item: Item) -> np.ndarray:
        with _still_there(item):
            return read_image(item.read(), self.bundle.image_size)

    def _noise(self, keys: Sequence[int], stream: str) -> np.ndarray:
        shape = self.bundle.latent.shape
        return np.stack([noise.normal(self.job.seed, key, shape, stream) for key in keys])

    def _request(self, label: str, key: int) -> Request:
        """The class's prompt, and AUs drawn from its prototypes."""
        if label not in self._plans:
            self._plans[label] = make_requests(
                self.bundle,
                labels_text=label,
                prompt=expression_alone(label),
                layout="none",
                seed=self.job.seed,
            )
        return self._plans[label].request(key)

    def _originals(self, indices: Sequence[int]) -> Made:
        items = [self.job.originals[i] for i in indices]
        backend = ""
        if self.job.decode_originals and items:
            backend = self.sampler.backend
            images = np.stack([self._image(item) for item in items])
            mean, _ = self.sampler.encode(images)
            decoded, whole = _shown(self.sampler.decode(mean), pixels.are_grey(images))
            whole &= pixels.sound(images)  # of one colour the VAE makes nearly one
            pictures = list(zip(pixels.in_8_bits(decoded), whole.tolist(), strict=True))
        else:
            pictures = [_original(item) for item in items]
        return [
            (
                self._record(
                    i,
                    item.label or "",
                    accepted=whole,
                    origin=ORIGINAL,
                    source=item.name,
                    backend=backend,
                ),
                png(picture),
            )
            for i, item, (picture, whole) in zip(indices, items, pictures, strict=True)
        ]

    def _augmented(self, index: int, made: _Candidate) -> tuple[dict[str, Any], bytes]:
        request, repair = made.request, {}
        if self.job.repair_steps:
            repair = {
                "prompt": request.prompt,
                "negative_prompt": request.negative_prompt,
                "aus": request.aus,
                "guidance": request.guidance,
                "au_scale": request.au_scale,
                "solver": self.bundle.defaults.solver,
                "steps": self.job.repair_steps,
                "layout_strength": self.job.repair_strength,
            }
        described = self._record(
            index,
            request.label,
            backend=self.sampler.backend,
            probabilities=made.verdict.probabilities,
            accepted=made.accepted,
            origin=AUGMENTED,
            source=made.source.name,
            noise_scale=self.job.noise_scale,
            attempt=made.attempt,
            **repair,
        )
        return described, png(made.image)

    def _record(self, index: int, label: str, **said: Any) -> dict[str, Any]:
        seed = self.job.seed
        return record(
            self.bundle, index=index, seed=seed, requested_label=label, label=label, **said
        )


def execute(
    augmenter: Augmenter,
    writer: Writer,
    batch: int,
    on_progress: Callable[[int], None] = lambda images: None,
) -> None:
    """Make what `writer` does not have yet, `batch` at a time, and finish the output.

    `on_progress` is given the number of images made so far. See `runner.run` for interruptions and
    errors.
    """
    done = writer.done

    def write(made: Made) -> None:
        writer.write([record for record, _ in made], [file for _, file in made])

    def count(made: Made) -> None:
        nonlocal done
        done += len(made)
        on_progress(done)

    pieces = augmenter.pieces(writer.lacking, batch)
    runner.run(augmenter.bundle, pieces, write, writer, count)


def original_pixels(content: bytes) -> np.ndarray:
    """An image file's picture in its own size, uint8 [H, W, 3] as `read_image` sees it."""
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        return np.asarray(upright_rgb(image))


def _original(item: Item) -> tuple[np.ndarray, bool]:
    """Its pixels, and whether they show anything."""
    with _still_there(item):
        picture = original_pixels(item.read())
    return picture, bool(pixels.sound(picture.transpose(2, 0, 1)[None] / np.float32(255))[0])


def _shown(images: np.ndarray, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decoded images as they are shown, those of `grey` originals without colour; which are sound.

    Where colour told additions from originals, a classifier would learn it instead of the class.
    """
    images = np.where(grey[:, None, None, None], pixels.without_colour(images), images)
    return pixels.finite(images), pixels.sound(images)


@contextmanager
def _still_there(item: Item) -> Iterator[None]:
    """Every original could be read before the run began."""
    try:
        yield
    except (OSError, ValueError, UserError) as error:
        reason = str(getattr(error, "strerror", None) or error).rstrip(".")
        raise UserError(
            f"{item.name} has changed or gone while the run went on ({reason}); put it back as it "
            "was, then run the same command with --resume."
        ) from None


def _rank(candidate: _Candidate, label: str) -> tuple[bool, bool, float]:
    return candidate.accepted, not candidate.broken, candidate.verdict.probabilities[label]
