"""Semantic augmentation for long tails: new images of rare classes, as variations of real ones.

Addition k of a run is a pure function of the run's settings and k: all its draws are keyed by
(seed, index, attempt).
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from synfer_rt.bundle.qualities import BEST
from synfer_rt.data import pixels
from synfer_rt.data.datasets.items import Item, still_there
from synfer_rt.data.image_format import PNG, ImageFormat
from synfer_rt.data.images import FORMATS, upright_rgb
from synfer_rt.data.writers import Writer
from synfer_rt.errors import UserError
from synfer_rt.jobs import runner
from synfer_rt.jobs.augmentation import Augmentation
from synfer_rt.jobs.soundness import DRAWN, Soundness
from synfer_rt.jobs.variations import Attempt, Variation, Variations, original, shown
from synfer_rt.records import AUGMENTED, ORIGINAL, Record, record
from synfer_rt.sampling.inversion import check_encoder
from synfer_rt.sampling.sampler import Sampler

Made = list[tuple[Record, bytes]]
"""Records with their image files."""


class Augmenter:
    """Makes the images of an augmentation, with the engines of the sampler's bundle.

    `broken` counts the additions that are flat or not finite; they are not accepted. Where more
    than half of the first are, the additions end in a UserError.

    Raises UserError for a bundle without an encoder or annotators, one that lacks a class of the
    originals, and repair steps that do not fit.
    """

    def __init__(self, job: Augmentation, sampler: Sampler) -> None:
        self.job, self.sampler = job, sampler
        self.bundle, self.annotators = sampler.bundle, sampler.annotators
        check_encoder(self.bundle)
        for label in sorted({str(item.label) for item in job.originals}):
            if label not in self.bundle.classes:
                raise UserError(
                    f"{self.bundle.name} does not know the class {label}; leave its images out, or "
                    "choose another `bundle`."
                )
        self._variations = Variations(job, sampler)
        self._soundness = Soundness(sampler.engines, DRAWN)
        self.broken = 0

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
            "quality": BEST,
            "attempts": job.attempts,
            "seed": job.seed,
            "decode_originals": bool(job.decode_originals)
            or None,  # a run begun without has no such key
            "align": job.aligner.settings() if job.aligner else None,
            "label_scheme": self.bundle.label_scheme,
            "classes": list(self.bundle.classes),
            "au_vocabulary": list(self.bundle.au_names) or None,
        }

    def make(self, indices: Sequence[int]) -> Made:
        """The records of these indices, originals and additions alike, with their PNG files."""
        return [made for piece in self.pieces(indices, len(indices)) for made in piece]

    def pieces(
        self, indices: Sequence[int], batch: int, format: ImageFormat = PNG
    ) -> Generator[Made]:
        """What `make` gives for rising indices, with images in `format`, as engines give it.

        A batch goes through them in equal pieces, as large as the device is fast at.
        """
        size = self._at_once(max(min(batch, len(indices)), 1))
        originals = [i for i in indices if i < len(self.job.originals)]
        for first in range(0, len(originals), size):
            yield self._originals(originals[first : first + size], format)
        for finished in self._additions(indices[len(originals) :], size):
            self.broken += sum(made.broken for made in finished)
            files = format.encode([made.image for made in finished])
            yield list(zip(map(self._addition_record, finished), files, strict=True))

    def _at_once(self, batch: int) -> int:
        repairing = ("conditioner", *self.bundle.denoisers) if self.job.repair_steps else ()
        size = self.sampler.engines.piece_size(batch, "encoder", "decoder", *repairing)
        return self.annotators.at_once(size)

    def _additions(self, indices: Sequence[int], size: int) -> Iterator[list[Variation]]:
        """The best variation for each of these additions, in order, as soon as they are settled.

        Each piece of `size` attempts holds first further attempts at the additions before, then
        attempts at new ones, so that all but the last are full.
        """
        best: dict[int, Variation] = {}
        again: list[Attempt] = []
        fresh, waiting = iter(indices), deque(indices)
        while waiting:
            new = [Attempt(index, 0) for index in islice(fresh, size - len(again))]
            made = self._variations.make(again + new, size)
            self._soundness.judge(np.array([not one.broken for one in made]))
            for one in made:
                rival = best.get(one.attempt.index, one)
                best[one.attempt.index] = max(rival, one, key=lambda each: each.rank)
            again = [
                Attempt(one.attempt.index, one.attempt.number + 1)
                for one in made
                if not one.accepted and one.attempt.number + 1 < self.job.attempts
            ]
            unsettled = {attempt.index for attempt in again}
            settled: list[Variation] = []
            while waiting and waiting[0] in best and waiting[0] not in unsettled:
                settled.append(best.pop(waiting.popleft()))
            if settled:
                yield settled

    def _originals(self, indices: Sequence[int], format: ImageFormat) -> Made:
        items = [self.job.originals[i] for i in indices]
        decode = self.job.decode_originals
        pictures = self._decoded(items) if decode else list(map(self._undecoded, items))
        backend = self.sampler.backend if decode else ""
        return [
            (self._original_record(i, item, sound, backend), format.encode([picture])[0])
            for i, item, (picture, sound) in zip(indices, items, pictures, strict=True)
        ]

    def _decoded(self, items: Sequence[Item]) -> list[tuple[np.ndarray, bool]]:
        """What the VAE makes of originals, uint8 [H, W, 3], and whether it shows anything."""
        images = np.stack(list(map(self._in_size, items)))
        mean, _ = self.sampler.encode(images)
        decoded, sound = shown(self.sampler.decode(mean), pixels.are_grey(images))
        sound &= pixels.sound(images)  # of one colour the VAE makes nearly one
        return list(zip(pixels.in_8_bits(decoded), sound.tolist(), strict=True))

    def _undecoded(self, item: Item) -> tuple[np.ndarray, bool]:
        """An original as uint8 [H, W, 3], and whether it shows anything.

        It has its own size, or the bundle's if it is aligned.
        """
        if self.job.aligner is None:
            with still_there(item):
                picture = original_pixels(item.read())
            values = picture.transpose(2, 0, 1)[None] / np.float32(255)
        else:
            values = self._in_size(item)[None]
            picture = pixels.in_8_bits(values)[0]
        return picture, bool(pixels.sound(values)[0])

    def _in_size(self, item: Item) -> np.ndarray:
        return original(item, self.bundle.image_size, self.job.aligner)

    def _original_record(self, index: int, item: Item, accepted: bool, backend: str) -> Record:
        return self._record(
            index,
            item.label or "",
            accepted=accepted,
            origin=ORIGINAL,
            source=item.name,
            backend=backend,
        )

    def _addition_record(self, made: Variation) -> Record:
        request, repair = made.request, {}
        if self.job.repair_steps:
            repair = {
                "prompt": request.prompt,
                "negative_prompt": request.negative_prompt,
                "aus": request.aus,
                "guidance": request.guidance,
                "au_scale": request.au_scale,
                "quality": BEST,
                "solver": self.bundle.defaults.solver,
                "steps": self.job.repair_steps,
                "layout_strength": self.job.repair_strength,
            }
        return self._record(
            made.attempt.index,
            request.label,
            backend=self.sampler.backend,
            probabilities=made.verdict.probabilities,
            accepted=made.accepted,
            origin=AUGMENTED,
            source=made.source.name,
            noise_scale=self.job.noise_scale,
            attempt=made.attempt.number,
            **repair,
        )

    def _record(self, index: int, label: str, **values: Any) -> Record:
        seed = self.job.seed
        return record(
            self.bundle, index=index, seed=seed, requested_label=label, label=label, **values
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

    pieces = augmenter.pieces(writer.lacking, batch, writer.image_format)
    runner.run(augmenter.bundle, pieces, write, writer, count)


def original_pixels(content: bytes) -> np.ndarray:
    """An image file's picture in its own size, uint8 [H, W, 3] as `read_image` sees it."""
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        return np.asarray(upright_rgb(image))
