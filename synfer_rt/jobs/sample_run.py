"""What decides the samples of a run: its settings, checked, with the bundle's defaults.

`make_run` takes the settings that users give, `Run` holds what they come to.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np

from synfer_rt import ranges
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.engine_specs import CACHING
from synfer_rt.bundle.qualities import BEST, settled
from synfer_rt.data.datasets import refuse_inside
from synfer_rt.diffusion.feature_caching import with_cached_features
from synfer_rt.diffusion.guidance_interval import (
    GuidanceInterval,
    guidance_interval,
    guided_within,
)
from synfer_rt.diffusion.solvers import ETA, Trajectory
from synfer_rt.diffusion.timesteps import decreasing
from synfer_rt.errors import UserError
from synfer_rt.jobs.warnings import warn_of_unread
from synfer_rt.judging.acceptance import Accept, acceptance
from synfer_rt.judging.quotas import Quotas
from synfer_rt.paths import local
from synfer_rt.records import record
from synfer_rt.sampling import inversion
from synfer_rt.sampling.guidance import SemanticGuidance, engine_name
from synfer_rt.sampling.guidance import semantic_guidance as guidance_of
from synfer_rt.sampling.inversion import Photos
from synfer_rt.sampling.requests import Requests, make_requests
from synfer_rt.sampling.sampler import Sample
from synfer_rt.sampling.steps import engines_of, plan, without_guidance

LOG = logging.getLogger(__name__)
_PER_WANTED = 10
"""Images that are made at most for each accepted one that is wanted, by default."""


class SampleSettings(TypedDict, total=False):
    """The settings of `sample` and `write`; `Model.sample` describes them.

    Leave one out, or give None, for its default.
    """

    labels: Literal["all"] | Sequence[str] | None
    prompt: str | None
    negative_prompt: str | None
    aus: Mapping[str, float] | None
    quality: str | None
    steps: int | None
    timesteps: Sequence[int] | None
    solver: str | None
    eta: float | None
    guidance: float | None
    guidance_interval: tuple[float, float] | None
    au_scale: float | None
    layout: str | None
    layout_from: str | Path | None
    layout_strength: float | None
    cache_every: int | None
    size: tuple[int, int] | None
    semantic_guidance: float | None
    semantic_form: str | None
    semantic_start: float | None
    semantic_every: int | None
    seed: int | None
    count_accepted: bool | None
    budget: int | None
    accept_rate: float | None
    threshold: float | None


DEFAULTS: SampleSettings = {"labels": "all", "seed": 0, "count_accepted": False}
"""The defaults that are the same for every bundle; the others are the bundle's, or nothing."""


@dataclass(frozen=True)
class Run:
    """Everything that decides what the samples of a run are.

    `layout_strength` in (0, 1] is the part of the noise schedule that is run on a layout; without
    a layout bank it is 1. `semantic` steers every sample towards its label. `photos` are the faces
    to start from, of which `requests` knows the number. `accept_rate` and `threshold` say what is
    accepted (see judging/acceptance.py). With `quota` the run goes on until each class has so many
    accepted samples, and `count` is the most that it makes. Classifier-free guidance acts within
    `interval`, or in every step. Only every `cache_every`-th guided step computes the UNet's deep
    part (diffusion/feature_caching.py). `quality` is one of the bundle's, and `remark` a sentence
    on why it is not the default, if it is not and was not asked for. `timesteps` are those that the
    solver visits, its own if None, and `eta` is the share of fresh noise of `tcd`.
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
    quota: int | None = None
    interval: GuidanceInterval | None = None
    cache_every: int = 1
    quality: str = BEST
    remark: str | None = None
    timesteps: tuple[int, ...] | None = None
    eta: float | None = None

    def check(self) -> None:
        """Raise UserError for what cannot be run, before anything is loaded or written."""
        _ = self.trajectory
        if self.cache_every > 1 and not self.bundle.engines.keys() >= CACHING:
            raise UserError(
                f"{self.bundle.name} has no engines that cache features; build it with "
                "`synfer-rt build-engines --cache-depth`, or leave out `cache_every`."
            )
        self.acceptance()

    def acceptance(self) -> Accept:
        """What is accepted. Raises UserError for what cannot be, or nobody could judge."""
        selections = (self.accept_rate, self.threshold, self.quota)
        if any(value is not None for value in selections) and not self.bundle.annotators:
            raise UserError(
                f"{self.bundle.name} has neither a classifier nor FERAnno, so nothing can be "
                "accepted; build it with one, or leave out `accept_rate`, `threshold` and "
                "`count_accepted`."
            )
        return acceptance(self.accept_rate, self.threshold)

    def warn(self) -> None:
        """Log the remark, and warn of what the model does not read of the run's prompts."""
        if self.remark is not None:
            LOG.info(self.remark)
        warn_of_unread(self.bundle, "prompt", self.requests.prompt or "")
        warn_of_unread(self.bundle, "negative_prompt", self.requests.negative_prompt)

    def quotas(self) -> Quotas | None:
        """The labels that a run with a quota requests; None without one."""
        if self.quota is None:
            return None
        return Quotas(dict.fromkeys(self.requests.labels, self.quota), self.count)

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that the run needs."""
        scales = np.array([self.requests.guidance], np.float32)
        denoisers = engines_of(plan(self.bundle, self.trajectory, scales))
        if self.photos is not None:  # their inversion is not guided
            denoisers = (*denoisers, without_guidance(self.bundle), "encoder")
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
            "photo_set": None if self.photos is None else self.photos.digest,
            "layout_strength": self.layout_strength,
            "seed": requests.seed,
            "semantic_guidance": None if self.semantic is None else asdict(self.semantic),
            "accept_rate": self.accept_rate,
            "threshold": self.threshold,
            "accepted_per_class": self.quota,
            "label_scheme": self.bundle.label_scheme,
            "classes": list(self.bundle.classes),
            "au_vocabulary": list(self.bundle.au_names) or None,
            **({} if self.interval is None else {"guidance_interval": self.interval.settings}),
            **({} if self.cache_every == 1 else {"cache_every": self.cache_every}),
            **({} if self.timesteps is None else {"timesteps": list(self.timesteps)}),
            **({} if self.eta is None else {"eta": self.eta}),
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


def make_run(
    bundle: Bundle, *, count: int, out: Path | None = None, **settings: Unpack[SampleSettings]
) -> Run:
    """The run of these settings, see `Model.sample`. Raises UserError for what cannot be run."""
    given = _given(settings)
    if "timesteps" in given:
        given["timesteps"] = decreasing(given["timesteps"])
    size = given.get("size")
    bundle = bundle if size is None else bundle.resized(size)
    photos = _photos(given.get("layout_from"), bundle, out)
    requests = _requests(bundle, given, len(photos or ()))
    most, quota = _counts(count, given, len(requests.labels))
    strength = _strength(given.get("layout_strength"), requests, bundle)
    semantic = _semantic(bundle, given)
    quality, remark = _quality(bundle, given, requests, semantic, strength)
    defaults = bundle.defaults_of(quality)
    timesteps = given.get("timesteps")
    steps = defaults.steps if timesteps is None else len(timesteps)
    run = Run(
        bundle,
        replace(requests, guidance=ranges.guidance(given.get("guidance", defaults.guidance))),
        most,
        given.get("solver", defaults.solver),
        ranges.plain(given.get("steps", steps)),
        strength,
        semantic,
        photos,
        ranges.plain(given.get("accept_rate")),
        ranges.plain(given.get("threshold")),
        quota,
        _interval(given, requests, bundle),
        _cache_every(given, requests),
        quality,
        remark,
        timesteps,
        ranges.plain(given.get("eta")),
    )
    run.check()
    return run


def _given(settings: SampleSettings) -> dict[str, Any]:
    """The settings that are not None, and DEFAULTS for the others."""
    if unknown := sorted(settings.keys() - SampleSettings.__annotations__.keys()):
        raise TypeError(f"make_run() got an unexpected keyword argument {unknown[0]!r}")
    return {**DEFAULTS, **{name: value for name, value in settings.items() if value is not None}}


def _requests(bundle: Bundle, given: Mapping[str, Any], photos: int) -> Requests:
    return make_requests(
        bundle,
        labels=given["labels"],
        prompt=given.get("prompt"),
        negative_prompt=given.get("negative_prompt"),
        aus=given.get("aus"),
        guidance=given.get("guidance"),
        au_scale=given.get("au_scale"),
        layout=given.get("layout"),
        photos=photos,
        seed=given["seed"],
    )


def _interval(
    given: Mapping[str, Any], requests: Requests, bundle: Bundle
) -> GuidanceInterval | None:
    interval = guidance_interval(given.get("guidance_interval"))
    if interval is not None and bundle.guidance_embedding:
        raise UserError(
            f"{bundle.name} embeds guidance and has no branches for a `guidance_interval`; leave "
            "it out, or choose another `bundle`."
        )
    if interval is not None and requests.guidance == 1:
        raise UserError(
            "`guidance_interval` needs guidance, and a scale of 1 is none; raise `guidance`, or "
            "leave out `guidance_interval`."
        )
    return interval


def _cache_every(given: Mapping[str, Any], requests: Requests) -> int:
    every = ranges.whole("cache_every", given.get("cache_every", 1), 1, None)
    if every > 1 and requests.guidance == 1:
        raise UserError(
            "`cache_every` acts in guided steps, and a scale of 1 is no guidance; raise "
            "`guidance`, or leave out `cache_every`."
        )
    return every


def _semantic(bundle: Bundle, given: Mapping[str, Any]) -> SemanticGuidance | None:
    return guidance_of(
        bundle,
        given.get("semantic_guidance"),
        given.get("semantic_form"),
        given.get("semantic_start"),
        given.get("semantic_every"),
    )


def _quality(
    bundle: Bundle,
    given: Mapping[str, Any],
    requests: Requests,
    semantic: SemanticGuidance | None,
    strength: float,
) -> tuple[str, str | None]:
    """The run's quality, and why it is not the default; see `qualities.settled`."""
    own = {**given, "semantic_guidance": semantic}
    if requests.negative_prompt == bundle.defaults.negative_prompt:
        own["negative_prompt"] = None
    if "guidance" in given:
        own["guidance"] = requests.guidance
    if given.get("cache_every") == 1:
        own["cache_every"] = None
    return settled(
        bundle.distilled,
        given.get("quality"),
        bundle.defaults.quality,
        own,
        strength,
        bundle.name,
    )


def _photos(path: str | Path | None, bundle: Bundle, out: Path | None) -> Photos | None:
    if path is None:
        return None
    inversion.check_encoder(bundle)
    if out is not None:
        refuse_inside(out, [local(path, "layout_from")])
    return inversion.read_photos(local(path, "layout_from"), bundle.image_size)


def _images(name: str, value: int) -> int:
    """A number of images; the last one's index is at most LARGEST_SEED."""
    return ranges.whole(name, ranges.whole(name, value, 1, None), 1)


def _counts(count: int, given: Mapping[str, Any], labels: int) -> tuple[int, int | None]:
    """The most images that are made, and the accepted ones that each class shall have, if any."""
    count = _images("count", count)
    budget = given.get("budget")
    budget = None if budget is None else _images("budget", budget)
    if not ranges.flag("count_accepted", given["count_accepted"]):
        if budget is not None:
            raise UserError(
                "`budget` needs `count_accepted`; add `count_accepted=True`, or leave out `budget`."
            )
        return count, None
    wanted = count * labels
    most = min(_PER_WANTED * wanted, ranges.LARGEST_SEED) if budget is None else budget
    if most < wanted:
        raise UserError(
            f"`budget` is {most}, fewer than the {wanted} images wanted; raise it, or lower "
            "`count`."
        )
    return most, count


def _strength(given: float | None, requests: Requests, bundle: Bundle) -> float:
    """How much of the start faces is made anew; all of it without start faces."""
    if requests.bank is None and not requests.photos:
        if given is not None:
            raise UserError(
                '`layout_strength` needs a start face; add `layout="bank"` or `layout_from`.'
            )
        return 1.0
    if given is not None:
        return ranges.part("layout_strength", given)
    return inversion.STRENGTH if requests.photos else bundle.defaults.layout_strength
