"""From a plan to a dataset: a piece is sampled while the one before is encoded and written."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from synfer_rt import ranges
from synfer_rt.backends import default_threads
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.engine_specs import REQUIRED_ENGINES
from synfer_rt.data.images import png
from synfer_rt.data.writers import Writer
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.errors import UserError
from synfer_rt.jobs import runner
from synfer_rt.judging.acceptance import Accept, acceptance
from synfer_rt.judging.quotas import Quotas
from synfer_rt.judging.voting import Verdict
from synfer_rt.records import record
from synfer_rt.sampling.guidance import SemanticGuidance, engine_name
from synfer_rt.sampling.inversion import Photos, PhotoStarts
from synfer_rt.sampling.observed_sampler import ObservedSampler, StageTimes
from synfer_rt.sampling.requests import Request, Requests
from synfer_rt.sampling.sampler import Sample

_MOST_ENCODERS = 4


@dataclass(frozen=True)
class Run:
    """Everything that decides what the samples of a run are.

    `layout_strength` in (0, 1] is the part of the noise schedule that is run on a layout; without
    a layout bank it is 1. `semantic` steers every sample towards its label. `photos` are the faces
    to start from, of which the plan knows the number. `accept_rate` and `threshold` say what is
    accepted (see annotate.acceptance). With `quota` the run goes on until each class has so many
    accepted samples, and `count` is the most that it makes.
    """

    bundle: Bundle
    plan: Requests
    count: int
    solver: str
    steps: int
    layout_strength: float
    semantic: SemanticGuidance | None = None
    photos: Photos | None = None
    accept_rate: float | None = None
    threshold: float | None = None
    quota: int | None = None

    def check(self) -> None:
        """Raise UserError for what cannot be run, before anything is loaded or written."""
        _ = self.trajectory
        self.acceptance()

    def acceptance(self) -> Accept:
        """What is accepted. Raises UserError for what cannot be, or nobody could judge."""
        selects = (self.accept_rate, self.threshold, self.quota) != (None, None, None)
        if selects and not self.bundle.annotators:
            raise UserError(
                f"{self.bundle.name} has neither a classifier nor an annotator, so nothing can be "
                "accepted; build it with one, or leave out --accept-rate, --threshold and "
                "--count-accepted."
            )
        return acceptance(self.accept_rate, self.threshold)

    def quotas(self) -> Quotas | None:
        """The labels that a run with a quota requests; None without one."""
        if self.quota is None:
            return None
        return Quotas(dict.fromkeys(self.plan.labels, self.quota), self.count)

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that the run needs."""
        guides = () if self.semantic is None else (engine_name(self.semantic.form),)
        readers = () if self.photos is None else ("encoder",)
        return (*REQUIRED_ENGINES, *readers, *guides, *self.bundle.annotators)

    @cached_property
    def trajectory(self) -> Trajectory:
        """The solver's steps. Raises UserError for a solver, steps or strength that do not fit."""
        return self.bundle.trajectory(self.solver, self.steps, self.layout_strength)

    def settings(self, format: str) -> dict[str, Any]:
        """The run as JSON values, for run.json."""
        plan, size = self.plan, self.bundle.image_size
        return {
            "bundle": self.bundle.bundle_hash,
            "format": format,
            "count": self.count,
            "labels": list(plan.labels),
            "prompt": plan.prompt,
            "negative_prompt": plan.negative_prompt,
            "aus": None if plan.aus is None else dict(plan.aus),
            "solver": self.solver,
            "steps": self.steps,
            "guidance": plan.guidance,
            "au_scale": plan.au_scale,
            "layout": "photos" if plan.photos else "none" if plan.bank is None else "bank",
            "photo_set": None if self.photos is None else self.photos.digest,
            "layout_strength": self.layout_strength,
            "seed": plan.seed,
            "semantic_guidance": None if self.semantic is None else asdict(self.semantic),
            "accept_rate": self.accept_rate,
            "threshold": self.threshold,
            "accepted_per_class": self.quota,
            "label_scheme": self.bundle.label_scheme,
            "classes": list(self.bundle.classes),
            "au_vocabulary": list(self.bundle.au_names) or None,
            **({} if size == self.bundle.default_size else {"size": list(size)}),
        }

    def record(self, sample: Sample) -> dict[str, Any]:
        """What is written beside an image: all that is needed to make it again, and its label."""
        request, source = sample.request, {}
        if self.photos is not None and request.layout is not None:
            source = {
                "source": self.photos.names[request.layout],
                "source_sha256": self.photos.sha256[request.layout],
            }
        return record(
            self.bundle,
            index=request.index,
            seed=request.seed,
            requested_label=request.label,
            label=sample.label,
            probabilities=sample.probabilities,
            rectified=sample.rectified,
            accepted=sample.accepted,
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            aus=request.aus,
            guidance=request.guidance,
            au_scale=request.au_scale,
            solver=self.solver,
            steps=self.steps,
            layout=request.layout,
            layout_strength=self.layout_strength,
            semantic_guidance=None if self.semantic is None else asdict(self.semantic),
            backend=sample.backend,
            **source,
        )


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
