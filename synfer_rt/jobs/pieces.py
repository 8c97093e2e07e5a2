"""The samples of a run, a piece of a batch after the other, on three threads.

While the engines compute a piece, the next is prepared, at most one, and the one before labelled.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

import numpy as np

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.selection import Selection
from synfer_rt.jobs.soundness import Soundness
from synfer_rt.sampling.inversion import PhotoStarts
from synfer_rt.sampling.observer import Observer, StageTimes
from synfer_rt.sampling.preparation import Prepared, prepare
from synfer_rt.sampling.sampler import Computed, Sampler
from synfer_rt.sampling.samples import Sample

Finished = TypeVar("Finished")


class RunObserver(Observer):
    """Times the stages of a run, and tells after each step how many of its images are made.

    Stops the run where too many of them come out broken.
    """

    def __init__(self, tell: Callable[[float], None], soundness: Soundness) -> None:
        self.times = StageTimes()
        self._tell, self._soundness = tell, soundness
        self._made, self._end = 0.0, 0

    def begin(self, images: int) -> None:
        """A piece of so many images begins."""
        self._made, self._end = float(self._end), self._end + images

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Time the stage."""
        return self.times.stage(name)

    def step(self, images: float) -> None:
        """Tell how many images are made now."""
        self._made = min(self._made + images, self._end)  # padding is no image
        self._tell(self._made)

    def decoded(self, sound: np.ndarray) -> None:
        """Count the broken ones."""
        self._soundness.judge(sound)


class Pieces(Generic[Finished]):
    """Makes the samples of rising `indices` of a run, `batch` at a time at most.

    `starts` has the latents of the run's photos, if it starts from photos. `finish` is given each
    piece's samples, in their order, when they are labelled and decided.
    """

    def __init__(
        self,
        run: Run,
        engines: LoadedEngines,
        selection: Selection,
        indices: Sequence[int],
        batch: int,
        observer: RunObserver,
        starts: PhotoStarts | None,
        finish: Callable[[list[Sample]], Finished],
    ) -> None:
        self._run, self._selection, self._indices = run, selection, indices
        # As many rows as in the whole run, of which `indices` may be a part: some runtimes compute
        # the last bits of an image by the number of rows.
        self._batch = min(batch, run.count)
        self._observer, self._starts, self._finish = observer, starts, finish
        self._sampler = Sampler(engines, observer, run.calibrated)
        self._whole = self._sampler.at_once(self._batch, run.semantic)
        self._begun = 0

    def make(self) -> Generator[Future[Finished]]:
        """What becomes of each piece, in the order of the indices, as it leaves the engines."""
        made, way, semantic = 0, self._run.trajectory, self._run.semantic
        with ThreadPoolExecutor(1, "prepare") as before, ThreadPoolExecutor(1, "label") as after:
            coming = self._begin_known(before)
            while coming is not None:
                with self._observer.stage("prepare"):
                    piece = coming.result()
                coming = self._begin(before)
                if self._starts is not None:
                    piece = self._from_photos(piece, made, self._starts)
                made += piece.count
                self._observer.begin(piece.count)
                computed = self._sampler.compute(piece, way, semantic)
                finished = after.submit(self._label, computed)
                yield finished
                if coming is None:
                    # What a round of quotas requests is known when the one before is decided.
                    with self._observer.stage("label"):
                        finished.result()
                    coming = self._begin_known(before)

    def _label(self, computed: Computed) -> Finished:
        samples = self._sampler.label(computed)
        return self._finish([self._selection.decide(sample) for sample in samples])

    def _begin_known(self, thread: ThreadPoolExecutor) -> Future[Prepared] | None:
        """Begin to prepare the next piece when it is known, which may depend on others."""
        self._selection.wait(self._indices[self._begun : self._begun + 1])
        return self._begin(thread)

    def _begin(self, thread: ThreadPoolExecutor) -> Future[Prepared] | None:
        """Begin to prepare the next piece, if it is known yet and there is one."""
        wanted = self._indices[self._begun : self._begun + self._whole]
        indices, labels = self._selection.next(wanted)
        if not indices:
            return None
        size = self._whole
        if labels is not None and self._selection.quotas is not None:
            # A round ends with a few images, for which a whole piece would be a waste. How many
            # rows an image is computed with does not depend on the shards that are made here.
            piece = self._selection.quotas.piece(indices[0], self._whole)
            indices = [index for index in indices if index < piece.stop]
            labels = labels[: len(indices)]
            size = self._sampler.at_once(len(piece), self._run.semantic)
        self._begun += len(indices)
        return thread.submit(self._prepare, indices, labels, size)

    def _prepare(self, indices: Sequence[int], labels: Sequence[str] | None, size: int) -> Prepared:
        requests = self._run.requests.of(indices, labels)
        shape = (len(requests), *self._run.bundle.latent.shape)
        later = None if self._starts is None else np.zeros(shape, np.float32)
        return prepare(requests, self._run.bundle, self._run.trajectory, size, later)

    def _from_photos(self, piece: Prepared, made: int, starts: PhotoStarts) -> Prepared:
        """The piece from the latents of its photos, with which those of its batch are inverted.

        It shows the action units that are read from them, if any are.
        """
        coming, _ = self._selection.next(self._indices[made : made + self._batch])
        photos = list(map(self._run.requests.photo, coming))
        own = photos[: piece.count]
        with self._observer.stage("denoise"):
            piece = piece.starting_at(starts.latents(own, photos))
            aus = starts.aus(own)
        return piece if aus is None else piece.showing(aus, self._run.bundle)
