"""From a plan to a dataset: batches are sampled while the ones before are encoded and written."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from synfer_rt.annotate import Verdict
from synfer_rt.backends import Value, default_threads
from synfer_rt.bundle import REQUIRED_ENGINES, Bundle
from synfer_rt.errors import UserError
from synfer_rt.guidance import Guide, SemanticGuidance, engine_name
from synfer_rt.plan import Plan
from synfer_rt.sampler import Request, Sample, Sampler
from synfer_rt.solvers import Trajectory, trajectory
from synfer_rt.writers import Writer

_MOST_ENCODERS = 4


@dataclass(frozen=True)
class Run:
    """Everything that decides what the samples of a run are.

    `layout_strength` in (0, 1] is the part of the noise schedule that is run on a layout; without
    a layout bank it is 1. `semantic` steers every sample towards its label.
    """

    bundle: Bundle
    plan: Plan
    count: int
    solver: str
    steps: int
    layout_strength: float
    semantic: SemanticGuidance | None = None

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that the run needs."""
        guides = () if self.semantic is None else (engine_name(self.semantic.form),)
        return (*REQUIRED_ENGINES, *guides, *self.bundle.annotators)

    @cached_property
    def trajectory(self) -> Trajectory:
        """The solver's steps. Raises UserError for a solver, steps or strength that do not fit."""
        return trajectory(
            self.solver,
            self.bundle.schedule,
            self.steps,
            self.layout_strength,
            self.bundle.prediction_type,
        )

    def settings(self, format: str) -> dict[str, Any]:
        """The run as JSON values, for run.json."""
        plan = self.plan
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
            "layout": "none" if plan.bank is None else "bank",
            "layout_strength": self.layout_strength,
            "seed": plan.seed,
            "semantic_guidance": None if self.semantic is None else asdict(self.semantic),
            "accept_rate": None,
            "label_scheme": self.bundle.label_scheme,
            "classes": list(self.bundle.classes),
            "au_vocabulary": list(self.bundle.au_names) or None,
        }

    def record(self, sample: Sample) -> dict[str, Any]:
        """What is written beside an image: all that is needed to make it again, and its label."""
        request = sample.request
        return {
            "index": request.index,
            "seed": request.seed,
            "requested_label": request.label,
            "label": sample.label,
            "label_scheme": self.bundle.label_scheme,
            "probabilities": sample.probabilities,
            "rectified": sample.rectified,
            "accepted": sample.accepted,
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "aus": dict(request.aus) if self.bundle.au_names else None,
            "guidance": request.guidance,
            "au_scale": request.au_scale,
            "solver": self.solver,
            "steps": self.steps,
            "layout": request.layout,
            "layout_strength": self.layout_strength,
            "bundle": self.bundle.bundle_hash,
        }


@dataclass
class StageTimes:
    """Where the seconds of a run go; the fields add up to the whole run.

    `write` is what sampling had to wait for encoding and writing, which go on beside it; `other`
    is everything outside the engines and that wait.
    """

    condition: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0
    label: float = 0.0
    write: float = 0.0
    other: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside as that of stage `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - started)


class ObservedSampler(Sampler):
    """A sampler that tells where its time goes (`times`) and how far it is.

    `on_step` is called after each solver step with what it was worth in images: those that take
    the step, over the number of steps.
    """

    def __init__(self, bundle: Bundle, backend: str = "auto", threads: int | None = None) -> None:
        super().__init__(bundle, backend, threads)
        self.times = StageTimes()
        self.on_step: Callable[[float], None] = lambda images: None

    def load(self, engines: Iterable[str]) -> None:
        """Load engines, such as those of a run. Raises UserError when one does not load."""
        for name in engines:
            self.engine(name)

    def condition(self, requests: Sequence[Request]) -> dict[str, Value]:
        """See Sampler."""
        with self.times.stage("condition"):
            return super().condition(requests)

    def denoise(
        self,
        latents: Value,
        conditioning: Mapping[str, Value],
        guidance: np.ndarray,
        trajectory: Trajectory,
        guide: Guide | None = None,
    ) -> Iterator[Value]:
        """See Sampler."""
        steps = super().denoise(latents, conditioning, guidance, trajectory, guide)
        for _ in trajectory.timesteps:
            with self.times.stage("denoise"):
                latents = next(steps)
            self.on_step(len(guidance) / len(trajectory.timesteps))
            yield latents

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """See Sampler."""
        with self.times.stage("decode"):
            return super().decode(latents)

    def judge(
        self, images: np.ndarray, wanted: Sequence[str], latents: np.ndarray | None = None
    ) -> list[Verdict]:
        """See Sampler."""
        with self.times.stage("label"):
            return super().judge(images, wanted, latents)


@dataclass(frozen=True)
class Summary:
    """What one call of `execute` made; `requested` and `accepted` count samples by label.

    `retried` and `broken` count samples as `Sampler` does.
    """

    images: int
    seconds: float
    requested: Mapping[str, int]
    accepted: Mapping[str, int]
    retried: int
    broken: int
    times: StageTimes

    @property
    def images_per_second(self) -> float:
        """Images made per second of the whole run."""
        return self.images / self.seconds if self.seconds else 0.0


def execute(
    run: Run,
    sampler: ObservedSampler,
    writer: Writer,
    batch: int,
    on_progress: Callable[[float], None] = lambda images: None,
) -> Summary:
    """Make the samples that `writer` does not have yet, `batch` at a time, and finish the output.

    `on_progress` is told how many images of the run are made, counting a batch by its steps.
    Whatever ends the run early (a UserError, an interruption), what was made before is kept for
    a run that resumes. Raises UserError as sampler and writer do.
    """
    if batch < 1:
        raise UserError(f"A batch of {batch} holds no image; write 1 or more.")
    first = writer.done
    if first < run.count:
        sampler.load(run.engines)  # no part of the run's time
    retried, broken = sampler.retried, sampler.broken
    started = time.perf_counter()
    sampler.times = times = StageTimes()
    batch = min(batch, max(run.count - first, 1))
    requested: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    encoders = ThreadPoolExecutor(min(_MOST_ENCODERS, default_threads()), "encode")
    background = ThreadPoolExecutor(1, "write")
    pending: Future[None] | None = None

    def write(samples: Sequence[Sample]) -> None:
        pngs = list(encoders.map(_png, [sample.image for sample in samples]))
        writer.write([run.record(sample) for sample in samples], pngs)

    try:
        for begin in range(first, run.count, batch):
            requests = [run.plan.request(i) for i in range(begin, min(begin + batch, run.count))]
            made, end = float(begin), begin + len(requests)

            def step(images: float, end: int = end) -> None:
                nonlocal made
                made = min(made + images, end)  # padding is no image
                on_progress(made)

            sampler.on_step = step
            samples = sampler.sample(requests, run.trajectory, batch, run.semantic)
            with times.stage("write"):
                if pending is not None:
                    pending.result()
            pending = background.submit(write, samples)
            requested.update(sample.request.label for sample in samples)
            accepted.update(sample.request.label for sample in samples if sample.accepted)
        with times.stage("write"):
            if pending is not None:
                pending.result()
                pending = None
            writer.finish()
    finally:
        background.shutdown()
        encoders.shutdown()
        writer.close()
    seconds = time.perf_counter() - started
    times.other = seconds - times.condition - times.denoise - times.decode - times.label
    times.other -= times.write
    retried, broken = sampler.retried - retried, sampler.broken - broken
    return Summary(run.count - first, seconds, requested, accepted, retried, broken, times)


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
