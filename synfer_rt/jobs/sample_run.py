"""Everything that decides the samples of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from synfer_rt.bundle import Bundle
from synfer_rt.bundle.engine_specs import CACHING
from synfer_rt.bundle.qualities import BEST
from synfer_rt.diffusion.feature_caching import with_cached_features
from synfer_rt.diffusion.guidance_interval import GuidanceInterval, guided_within
from synfer_rt.diffusion.inversion import FIXED_POINT, METHODS, PREDICTOR_CORRECTOR
from synfer_rt.diffusion.solvers import ETA, Trajectory
from synfer_rt.errors import UserError
from synfer_rt.jobs.calibration_file import settings_of
from synfer_rt.jobs.warnings import warn_of_unread, warn_of_unread_captions
from synfer_rt.judging.acceptance import Accept, acceptance
from synfer_rt.judging.annotators import AU_READER
from synfer_rt.judging.calibration import Calibrated
from synfer_rt.judging.quotas import Quotas
from synfer_rt.records import record
from synfer_rt.sampling.guidance import SemanticGuidance, engine_name
from synfer_rt.sampling.inversion import Photos
from synfer_rt.sampling.requests import Requests
from synfer_rt.sampling.samples import Sample
from synfer_rt.sampling.steps import engines_of, plan, without_guidance

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """Everything that decides what the samples of a run are.

    `layout_strength` in (0, 1] is the part of the noise schedule that is run on a layout; without
    a layout bank it is 1. `semantic` steers every sample towards its label. `photos` are the faces
    to start from, of which `requests` knows the number. `accept_rate` and `threshold` say what is
    accepted (see judging/acceptance.py). With `quota` the run goes on until each class has so many
    accepted samples, or its own number, and `count` is the most that it makes. Classifier-free
    guidance acts within `interval`, or in every step. Only every `cache_every`-th guided step
    computes the UNet's deep part (diffusion/feature_caching.py). `quality` is one of the bundle's,
    and `remark` a sentence on why it is not the default, if it is not and was not asked for.
    `timesteps` are those that the solver visits, its own if None, and `eta` is the share of fresh
    noise of `tcd`. With `calibrated` annotators samples have label sets. `inversion` is how photos
    are inverted, a key of `diffusion.inversion.METHODS`.
    """

    bundle: Bundle
    requests: Requests
    count: int
    solver: str
    steps: int
    layout_strength: float
    semantic: SemanticGuidance | None = None
    photos: Photos | None = None
    accept_rate: float | None = None
    threshold: float | None = None
    quota: int | Mapping[str, int] | None = None
    interval: GuidanceInterval | None = None
    cache_every: int = 1
    quality: str = BEST
    remark: str | None = None
    timesteps: tuple[int, ...] | None = None
    eta: float | None = None
    calibrated: Calibrated | None = None
    inversion: str = PREDICTOR_CORRECTOR

    def check(self) -> None:
        """Raise UserError for what cannot be run, before anything is loaded or written."""
        _ = self.trajectory
        self._check_photos()
        if self.cache_every > 1 and not self.bundle.engines.keys() >= CACHING:
            raise UserError(
                f"{self.bundle.name} has no engines that cache features; build it with "
                "`synfer-rt build-engines --cache-depth`, or leave out `cache_every`."
            )
        self.acceptance()

    def _check_photos(self) -> None:
        """Raise UserError for steps that cannot be inverted, and for images that would repeat."""
        if self.photos is None:
            return
        METHODS[self.inversion](self.trajectory, self.bundle.prediction_type)
        different = self.requests.photos * self.requests.showings
        repeats = self.requests.nothing_is_drawn and not self.trajectory.is_stochastic
        if repeats and self.count > different:
            raise UserError(
                f"These photos make {different} different images, since nothing about them is "
                f"drawn, but {self.count} may be made; lower "
                f"`{'count' if self.quota is None else 'budget'}` to {different}, or draw action "
                'units with `aus_from="prototype"`.'
            )

    def acceptance(self) -> Accept:
        """What is accepted. Raises UserError for what cannot be, or nobody could judge."""
        selections = (self.accept_rate, self.threshold, self.quota, self.calibrated)
        if any(value is not None for value in selections) and not self.bundle.annotators:
            raise UserError(
                f"{self.bundle.name} has neither a classifier nor FERAnno, so nothing can be "
                "accepted; build it with one, or leave out `accept_rate`, `threshold`, "
                "`calibration` and `count_accepted`."
            )
        return acceptance(self.accept_rate, self.threshold)

    @property
    def in_order(self) -> bool:
        """Whether what a sample is, or whether it is accepted, depends on those before it."""
        return self.accept_rate is not None or self.quota is not None

    def warn(self) -> None:
        """Log the remark, and warn of what the model does not read of the run's prompts."""
        if self.remark is not None:
            LOG.info(self.remark)
        warn_of_unread(self.bundle, "prompt", *self.requests.given_prompts)
        warn_of_unread(self.bundle, "negative_prompt", self.requests.negative_prompt)
        warn_of_unread_captions(self.bundle, self.requests.given_captions)

    def quotas(self) -> Quotas | None:
        """The labels that a run with a quota requests; None without one."""
        if self.quota is None:
            return None
        if isinstance(self.quota, Mapping):
            return Quotas(self.quota, self.count)
        return Quotas(dict.fromkeys(self.requests.labels, self.quota), self.count)

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that the run needs."""
        scales = np.array([self.requests.guidance], np.float32)
        denoisers = engines_of(plan(self.bundle, self.trajectory, scales))
        if self.photos is not None:  # their inversion is not guided
            facts = self.requests.facts
            reader = (AU_READER,) if facts is not None and facts.read_aus else ()
            denoisers = (*denoisers, without_guidance(self.bundle), "encoder", *reader)
        guides = () if self.semantic is None else (engine_name(self.semantic.form),)
        names = ("conditioner", *denoisers, "decoder", *guides, *self.bundle.annotators)
        return tuple(dict.fromkeys(names))

    @cached_property
    def trajectory(self) -> Trajectory:
        """The solver's steps.

        Raises UserError for a solver, steps, timesteps, a strength, an eta, a guidance interval or
        a `cache_every` that do not fit.
        """
        way = self.bundle.trajectory(
            self.solver,
            self.steps,
            self.layout_strength,
            self.timesteps,
            self.eta,
            quality=self.quality,
        )
        if self.interval is not None:
            way = guided_within(way, self.interval, self.bundle.prediction_type)
        return with_cached_features(way, self.cache_every)

    @cached_property
    def bundle_hash(self) -> str:
        """The hash by which run.json and records name the bundle."""
        return self.bundle.hash_with(*self.engines)

    def settings(self, format: str) -> dict[str, Any]:
        """The run as JSON values, for run.json."""
        requests, size = self.requests, self.bundle.image_size
        return {
            "bundle": self.bundle_hash,
            "format": format,
            "count": self.count,
            "labels": list(requests.labels),
            "prompt": requests.prompt,
            "negative_prompt": requests.negative_prompt,
            "aus": None if requests.aus is None else dict(requests.aus),
            "quality": self.quality,
            "solver": self.solver,
            "steps": self.steps,
            "guidance": requests.guidance,
            "au_scale": requests.au_scale,
            "layout": "photos" if requests.photos else "none" if requests.bank is None else "bank",
            "photo_set": self._photo_set(),
            "layout_strength": self.layout_strength,
            "seed": requests.seed,
            "semantic_guidance": None if self.semantic is None else asdict(self.semantic),
            "accept_rate": self.accept_rate,
            "threshold": self.threshold,
            "accepted_per_class": (
                dict(self.quota) if isinstance(self.quota, Mapping) else self.quota
            ),
            "label_scheme": self.bundle.label_scheme,
            "classes": list(self.bundle.classes),
            "au_vocabulary": list(self.bundle.au_names) or None,
            **({} if self.interval is None else {"guidance_interval": self.interval.settings}),
            **({} if self.cache_every == 1 else {"cache_every": self.cache_every}),
            **({} if self.timesteps is None else {"timesteps": list(self.timesteps)}),
            **({} if self.eta is None else {"eta": self.eta}),
            **({} if self.calibrated is None else {"calibration": settings_of(self.calibrated)}),
            **({} if size == self.bundle.default_size else {"size": list(size)}),
            **self._photo_settings(),
            **requests.settings,
        }

    def _photo_set(self) -> str | None:
        """A hash of the photos, and of what is taken from their dataset."""
        if self.photos is None:
            return None
        facts, files = self.requests.facts, self.photos.digest
        return files if facts is None else facts.digest(self.photos.names, files)

    def _photo_settings(self) -> dict[str, Any]:
        """How photos are read and inverted; runs of older releases say neither."""
        if self.photos is None:
            return {}
        method = {} if self.inversion == FIXED_POINT else {"inversion": self.inversion}
        aligner = self.photos.aligner
        align = {} if aligner is None else {"align": aligner.settings()}
        return {**method, **align, **self.photos.read_as}

    def record(self, sample: Sample) -> dict[str, Any]:
        """What is written beside an image: all that is needed to make it again, and its label."""
        request, source = sample.request, dict[str, Any]()
        if self.photos is not None and request.layout is not None:
            source |= {
                "source": self.photos.names[request.layout],
                "source_sha256": self.photos.sha256[request.layout],
                **self.requests.sources(request),
            }
        if self.calibrated is not None:
            source |= self.calibrated.recorded(sample.label_set)
        return record(
            self.bundle,
            bundle=self.bundle_hash,
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
            guidance_interval=None if self.interval is None else self.interval.recorded,
            au_scale=request.au_scale,
            quality=self.quality,
            solver=self.solver,
            steps=self.steps,
            timesteps=",".join(map(str, self.timesteps or ())),
            eta=self.eta if self.eta is not None or self.solver != "tcd" else ETA,
            cache_every=self.cache_every,
            layout=request.layout,
            layout_strength=self.layout_strength,
            semantic_guidance=None if self.semantic is None else asdict(self.semantic),
            backend=sample.backend,
            **source,
        )
