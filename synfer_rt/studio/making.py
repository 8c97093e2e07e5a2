"""One image at a time from engines that stay loaded, with what each annotator says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.sample_settings import SampleSettings, make_run
from synfer_rt.judging.annotators import AU_READER
from synfer_rt.judging.rounding import DECIMALS
from synfer_rt.judging.voting import Opinion
from synfer_rt.sampling.inversion import PhotoStarts, psnr
from synfer_rt.sampling.observer import Observer
from synfer_rt.sampling.preparation import prepare
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.sampling.samples import Sample


class OutOfDate(Exception):
    """Nobody waits for the image any more."""


@dataclass(frozen=True)
class Made:
    """The first sample of a `run`, the `opinions` of each annotator, and what the AU reader sees.

    `read` are intensities in [0, 1] by the bundle's names of the units, None without an AU reader.
    """

    run: Run
    sample: Sample
    opinions: Sequence[Opinion]
    read: Mapping[str, float] | None


class _Watch(Observer):
    """Ends the sampling between two stages as soon as it is out of date."""

    def __init__(self) -> None:
        self.out_of_date: Callable[[], bool] = lambda: False

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Raise OutOfDate, or let the stage begin."""
        if self.out_of_date():
            raise OutOfDate
        return nullcontext()


class Maker:
    """Makes the image of a state with engines that stay loaded.

    The image is that of index 0 of a run of one image, as `synfer-rt sample --count 1` makes it. It
    goes through the engines alone, since some runtimes compute the last bits by the number of rows.
    The latents that lead to a photo are kept while only the request changes. For one thread.
    """

    def __init__(self, engines: LoadedEngines) -> None:
        self.engines, self.bundle = engines, engines.bundle
        self._watch = _Watch()
        self._sampler = Sampler(engines, self._watch)
        self._starts: tuple[Any, PhotoStarts] | None = None

    def run_of(self, settings: SampleSettings) -> Run:
        """The run whose only image is that of these settings. Raises UserError as `sample` does."""
        return make_run(self.bundle, count=1, **settings)

    def make(
        self, settings: SampleSettings, out_of_date: Callable[[], bool] = lambda: False
    ) -> Made:
        """The image of these settings. Raises UserError as `sample` does.

        Raises OutOfDate at the beginning of the first stage for which `out_of_date` is true.
        """
        run = self.run_of(settings)
        self._watch.out_of_date = out_of_date
        sampler, requests = self._sampler, run.requests.of([0])
        starts = None if run.photos is None else self._photo_starts(run).latents([0])
        size = sampler.at_once(1, run.semantic)
        piece = prepare(requests, run.bundle, run.trajectory, size, starts)
        computed = sampler.compute(piece, run.trajectory, run.semantic)
        run.bundle.check_unchanged()
        (sample,) = sampler.label(computed)
        return Made(run, sample, computed.opinions, self.read(sample.image))

    def read(self, pixels: np.ndarray) -> dict[str, float] | None:
        """What the AU reader sees in an image uint8 [H, W, 3]; None without an AU reader."""
        if AU_READER not in self.bundle.engines:
            return None
        image = pixels.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
        (row,) = self.engines.run_in_pieces(AU_READER, "images", image)["aus"].tolist()
        names = self.bundle.au_names
        return {name: round(x, DECIMALS) for name, x in zip(names, row, strict=True)}

    def comes_back(self, pixels: np.ndarray) -> float:
        """The PSNR in dB at which the VAE alone gives an image uint8 [H, W, 3] back."""
        self._watch.out_of_date = lambda: False
        image = pixels.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
        mean, _ = self._sampler.encode(image)
        return float(psnr(self._sampler.decode(mean), image)[0])

    def _photo_starts(self, run: Run) -> PhotoStarts:
        """The starts of the run's photo, those of the last run if they are the same."""
        assert run.photos is not None
        steps = run.quality, run.solver, run.steps, run.timesteps, run.layout_strength
        key = run.photos.digest, steps, run.inversion
        if self._starts is None or self._starts[0] != key:
            starts = PhotoStarts(self._sampler, run.photos, run.trajectory, run.inversion)
            self._starts = key, starts
        return self._starts[1]
