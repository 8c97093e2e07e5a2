"""Datasets that are filled up from their own images."""

from __future__ import annotations

from typing import Unpack

from synfer_rt import ranges
from synfer_rt.api.session import Session
from synfer_rt.data.datasets import read_dataset, refuse_inside
from synfer_rt.data.image_format import image_format as chosen_format
from synfer_rt.data.writers import SHARD_SIZE, check_place
from synfer_rt.jobs.aligning import aligner_of
from synfer_rt.jobs.augment import Augmenter
from synfer_rt.jobs.augment_dataset import Augmented, augment_dataset
from synfer_rt.jobs.augmentation import Augmentation
from synfer_rt.jobs.balance import Balance, additions, targets
from synfer_rt.jobs.destination import Destination
from synfer_rt.jobs.known_faces import keeping_faces, remembering
from synfer_rt.jobs.originals import usable
from synfer_rt.jobs.progress import OnProgress
from synfer_rt.jobs.reading_settings import DEFAULTS, ReadingSettings
from synfer_rt.jobs.resuming import as_begun
from synfer_rt.paths import Location, local
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.signatures import spelled_out


class Augmenting(Session):
    """`Model.augment`."""

    @spelled_out(ReadingSettings, DEFAULTS)
    def augment(
        self,
        dataset: Location,
        out: Location,
        *,
        balance: Balance = "max",
        noise_scale: float = 8.0,
        repair_steps: int = 4,
        repair_strength: float = 0.5,
        attempts: int = 4,
        decode_originals: bool = False,
        seed: int = 0,
        input_format: str = "auto",
        format: str = "imagefolder",
        shard_size: int = SHARD_SIZE,
        image_format: str = "png",
        image_quality: int | None = None,
        batch: int = 64,
        resume: bool = False,
        mix_backends: bool = False,
        on_progress: OnProgress | None = None,
        **reading: Unpack[ReadingSettings],
    ) -> Augmented:
        """Fill up the rare classes of a labelled dataset with variations of their own images.

        `dataset`, in the format `input_format` (see `label`), is only read; `out` gets its images
        and the additions. `balance` is how many images a class is filled up to: "max" for as many
        as the largest, a number, {class: number}, or the Path of a JSON file of that.
        `noise_scale`, 0 to 1000, multiplies the noise that is drawn around the VAE's posterior
        mean. Then `repair_steps` diffusion steps, 0 or more, denoise the part `repair_strength` of
        the noise schedule, above 0 and below 1. Of up to `attempts`, the first in which the vote
        sees the class is kept. `decode_originals` passes the originals through the VAE, too. With
        `align` the originals are aligned faces of the bundle's size. The other arguments and the
        errors are those of `write` and `label`.
        """
        batch = ranges.whole("batch", batch, 1, None)
        shard_size = ranges.whole("shard_size", shard_size, 1, None)
        images = chosen_format(image_format, image_quality)
        folder = local(out, "out")
        to = Destination(folder, format, resume, mix_backends, shard_size, image_format=images)
        check_place(to.out, resume=to.joins)  # before it looks at all images
        bundle = as_begun(self.bundle, to.begun)
        refuse_inside(to.out, [local(dataset, "dataset")])
        scheme, split = reading.get("label_scheme"), reading.get("split")
        read = read_dataset(dataset, input_format, scheme, split, bundle.label_scheme)
        aligner = remembering(aligner_of(reading, bundle), to.out)
        with keeping_faces(aligner, to.out):
            originals = usable(read, bundle.image_size, aligner)
        counts = originals.counts()
        wanted = additions(counts, targets(counts, balance))
        drawn = noise_scale, repair_steps, repair_strength, attempts, seed
        job = Augmentation(originals.items, wanted, *drawn, decode_originals, aligner)
        augmenter = Augmenter(job, Sampler(self._engines_for(bundle, to)))
        return augment_dataset(augmenter, read, originals, balance, to, batch, on_progress)
