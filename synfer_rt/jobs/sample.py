"""From requests to a dataset: a piece is sampled while the one before is encoded and written."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from synfer_rt import ranges
from synfer_rt.backends import default_threads
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.data.images import png
from synfer_rt.data.writers import Writer
from synfer_rt.jobs import runner
from synfer_rt.jobs.sample_run import Run
from synfer_rt.judging.voting import Verdict
from synfer_rt.sampling.inversion import PhotoStarts
from synfer_rt.sampling.observer import Observer, StageTimes
from synfer_rt.sampling.requests import Request
from synfer_rt.sampling.sampler import Sample, Sampler

_MOST_ENCODERS = 4


@dataclass(frozen=True)
class Summary:
    """What one call of `execute` made; `labelled` and `accepted` count samples by their label.

    `retried` counts the samples that came out broken and were made again, `broken` those that are
    broken in the end. `missing` is how many accepted samples each class lacks that was to have some
    number of them, when all is made.
    """

    images: int
    seconds: float
    labelled: Mapping[str, int]
    accepted: Mapping[str, int]
    missing: Mapping[str, int]
    retried: int
    broken: int
    times: StageTimes

    @property
    def images_per_second(self) -> float:
        """Images made per second of the whole run."""
        return self.images / self.seconds if self.seconds else 0.0


class _Selection:
    """Decides one sample after the other which are accepted, and which labels come next.

    Everything follows from the run and the samples before, and so is the same when a run that was
    interrupted shows what it has.
    """

    def __init__(self, run: Run, records: Iterable[Mapping[str, Any]]) -> None:
        self._run = run
        self._accept = run.acceptance()
        self.quotas = run.quotas()
        self._alone = run.accept_rate is None and self.quotas is None
        if self._alone:
            return  # nothing depends on the samples before
        for made in records:
            self._accept(Verdict(made["label"], made["probabilities"], made["rectified"]))
            self._count(made["label"], made["accepted"])

    def indices(self, lacking: Sequence[int]) -> Sequence[int]:
        """What is to be made, where the writer lacks some: all after them too if it follows."""
        if self._alone or not lacking:
            return lacking
        return range(lacking[0], self._run.count)

    def requests(self, indices: Sequence[int]) -> list[Request]:
        """The requests of the next indices, rising; none when the run is whole."""
        requests, quotas = self._run.requests, self.quotas
        if quotas is None:
            return [requests[i] for i in indices]
        return [requests.with_label(i, quotas.label(i)) for i in indices if i < quotas.end]

    def decide(self, sample: Sample) -> Sample:
        """The next sample, accepted or not."""
        if sample.probabilities:
            said = sample.label, sample.probabilities, sample.rectified, sample.accepted
            accepted = bool(self._accept(Verdict(*said))) and not sample.broken
            sample = replace(sample, accepted=accepted)
        self._count(sample.label, sample.accepted)
        return sample

    def _count(self, label: str, accepted: bool) -> None:
        if self.quotas is not None:
            self.quotas.count(label, accepted)


class _Progress(Observer):
    """Times the stages of a run, and tells after each step how many of its images are made."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self.times = StageTimes()
        self._tell = tell
        self._made, self._end = 0.0, 0

    def begin(self, images: int) -> None:
        """A piece of so many images begins."""
        self._made, self._end = float(self._end), self._end + images

    def stage(self, name: str) -> AbstractContextManager[None]:
        return self.times.stage(name)

    def step(self, images: float) -> None:
        self._made = min(self._made + images, self._end)  # padding is no image
        self._tell(self._made)


def execute(
    run: Run,
    engines: LoadedEngines,
    writer: Writer,
    batch: int,
    on_progress: Callable[[float], None] = lambda images: None,
    starts: PhotoStarts | None = None,
) -> Summary:
    """Make the samples that `writer` does not have yet, `batch` at a time, and finish the output.

    A piece of a batch (`Sampler.at_once`) is encoded and written while the next is sampled.
    `on_progress` is told how many images of the run are made, counting a piece by its steps.
    `starts` are those of the run's photos, by default new ones. See `runner.run` for interruptions
    and errors.
    """
    batch = ranges.whole("batch", batch, 1, None)
    if writer.lacking:
        engines.load(run.engines)  # no part of the run's time
    if run.photos is not None and starts is None:
        starts = PhotoStarts(Sampler(engines), run.photos, run.trajectory)
    selection = _Selection(run, writer.records())
    started = time.perf_counter()
    labelled: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    indices = selection.indices(writer.lacking)
    observer = _Progress(lambda images: on_progress(run.count - len(indices) + images))

    def write(samples: Sequence[Sample]) -> None:
        pngs = list(encoders.map(png, [sample.image for sample in samples]))
        writer.write([run.record(sample) for sample in samples], pngs)

    def count(samples: Sequence[Sample]) -> None:
        labelled.update(sample.label for sample in samples)
        accepted.update(sample.label for sample in samples if sample.accepted)
        faults["retried"] += sum(sample.backend != engines.backend for sample in samples)
        faults["broken"] += sum(sample.broken for sample in samples)

    with ThreadPoolExecutor(min(_MOST_ENCODERS, default_threads()), "encode") as encoders:
        pieces = _pieces(run, engines, selection, indices, batch, observer, starts)
        runner.run(run.bundle, pieces, write, writer, count, lambda: observer.stage("write"))
    observer.times.end(seconds := time.perf_counter() - started)
    return Summary(
        labelled.total(),
        seconds,
        labelled,
        accepted,
        {} if selection.quotas is None else selection.quotas.missing(),
        faults["retried"],
        faults["broken"],
        observer.times,
    )


def _pieces(
    run: Run,
    engines: LoadedEngines,
    selection: _Selection,
    indices: Sequence[int],
    batch: int,
    observer: _Progress,
    starts: PhotoStarts | None,
) -> Generator[list[Sample]]:
    """The samples of rising indices, decided, as they come out of the engines."""
    sampler = Sampler(engines, observer)
    batch = min(batch, max(len(indices), 1))
    whole = sampler.at_once(batch, run.semantic)
    made = 0
    while requests := selection.requests(indices[made : made + whole]):
        latents = None
        if starts is not None:
            coming = selection.requests(indices[made : made + batch])
            with observer.stage("denoise"):
                latents = starts.latents(_layouts(requests), _layouts(coming))
        observer.begin(len(requests))
        # The rounds of quotas end with a few images, for which a whole piece would be a waste.
        size = whole if selection.quotas is None else len(requests)
        samples = sampler.sample(requests, run.trajectory, size, run.semantic, latents)
        yield [selection.decide(sample) for sample in samples]
        made += len(requests)


def _layouts(requests: Sequence[Request]) -> list[int]:
    return [request.layout for request in requests if request.layout is not None]
