"""From a plan to a dataset: a piece is sampled while the one before is encoded and written."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from synfer_rt import ranges
from synfer_rt.backends import default_threads
from synfer_rt.data.images import png
from synfer_rt.data.writers import Writer
from synfer_rt.jobs import runner
from synfer_rt.jobs.sample_run import Run
from synfer_rt.judging.voting import Verdict
from synfer_rt.sampling.inversion import PhotoStarts
from synfer_rt.sampling.observed_sampler import ObservedSampler, StageTimes
from synfer_rt.sampling.requests import Request
from synfer_rt.sampling.sampler import Sample

_MOST_ENCODERS = 4


@dataclass(frozen=True)
class Summary:
    """What one call of `execute` made; `labelled` and `accepted` count samples by their label.

    `retried` and `broken` count samples as `Sampler` does. `missing` is how many accepted samples
    each class lacks that was to have some number of them, when all is made.
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
        plan, quotas = self._run.plan, self.quotas
        if quotas is None:
            return [plan.request(i) for i in indices]
        return [plan.request(i, quotas.label(i)) for i in indices if i < quotas.end]

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


def execute(
    run: Run,
    sampler: ObservedSampler,
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
        sampler.engines.load(run.engines)  # no part of the run's time
    if run.photos is not None and starts is None:
        starts = PhotoStarts(sampler, run.photos, run.trajectory)
    selection = _Selection(run, writer.records())
    retried, broken = sampler.retried, sampler.broken
    started = time.perf_counter()
    sampler.times = times = StageTimes()
    labelled: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    indices = selection.indices(writer.lacking)

    def told(images: float) -> None:
        on_progress(run.count - len(indices) + images)

    def write(samples: Sequence[Sample]) -> None:
        pngs = list(encoders.map(png, [sample.image for sample in samples]))
        writer.write([run.record(sample) for sample in samples], pngs)

    def count(samples: Sequence[Sample]) -> None:
        labelled.update(sample.label for sample in samples)
        accepted.update(sample.label for sample in samples if sample.accepted)

    with ThreadPoolExecutor(min(_MOST_ENCODERS, default_threads()), "encode") as encoders:
        pieces = _pieces(run, sampler, selection, indices, batch, told, starts)
        runner.run(run.bundle, pieces, write, writer, count, lambda: times.stage("write"))
    times.end(seconds := time.perf_counter() - started)
    return Summary(
        labelled.total(),
        seconds,
        labelled,
        accepted,
        {} if selection.quotas is None else selection.quotas.missing(),
        sampler.retried - retried,
        sampler.broken - broken,
        times,
    )


def _pieces(
    run: Run,
    sampler: ObservedSampler,
    selection: _Selection,
    indices: Sequence[int],
    batch: int,
    on_progress: Callable[[float], None],
    starts: PhotoStarts | None,
) -> Generator[list[Sample]]:
    """The samples of rising indices, decided, as they come out of the engines.

    `on_progress` is told how many of them are made.
    """
    batch = min(batch, max(len(indices), 1))
    whole = sampler.at_once(batch, run.semantic)
    made = 0
    while requests := selection.requests(indices[made : made + whole]):
        latents = None
        if starts is not None:
            sampler.on_step = lambda images: None  # finding where to start makes no image
            coming = selection.requests(indices[made : made + batch])
            latents = starts.latents(_layouts(requests), _layouts(coming))
        end = made + len(requests)
        sampler.on_step = _progress(made, end, on_progress)
        # The rounds of quotas end with a few images, for which a whole piece would be a waste.
        size = whole if selection.quotas is None else len(requests)
        samples = sampler.sample(requests, run.trajectory, size, run.semantic, latents)
        yield [selection.decide(sample) for sample in samples]
        made = end


def _progress(
    begin: int, end: int, on_progress: Callable[[float], None]
) -> Callable[[float], None]:
    """What to call after each step of the samples `begin` to `end` - 1."""
    made = float(begin)

    def step(images: float) -> None:
        nonlocal made
        made = min(made + images, end)  # padding is no image
        on_progress(made)

    return step


def _layouts(requests: Sequence[Request]) -> list[int]:
    return [request.layout for request in requests if request.layout is not None]
