"""From the settings that users of `sample` give to the run that they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Unpack, cast

from synfer_rt import ranges
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.qualities import settled
from synfer_rt.diffusion.guidance_interval import GuidanceInterval, guidance_interval
from synfer_rt.diffusion.inversion import METHODS, PREDICTOR_CORRECTOR
from synfer_rt.diffusion.timesteps import decreasing
from synfer_rt.errors import UserError
from synfer_rt.jobs.calibration_file import calibrated_at, of_settings
from synfer_rt.jobs.photo_reading import read_photos
from synfer_rt.jobs.reading_settings import ReadingSettings
from synfer_rt.jobs.sample_run import Run
from synfer_rt.judging.calibration import Calibrated
from synfer_rt.sampling import inversion
from synfer_rt.sampling.guidance import SemanticGuidance
from synfer_rt.sampling.guidance import semantic_guidance as guidance_of
from synfer_rt.sampling.photo_facts import PhotoFacts
from synfer_rt.sampling.planned_requests import Distributions
from synfer_rt.sampling.requests import Requests, make_requests

_PER_WANTED = 10
"""Images that are made at most for each accepted one that is wanted, by default."""


class SampleSettings(ReadingSettings, total=False):
    """The settings of `sample` and `write`; `Model.sample` describes them.

    Leave one out, or give None, for its default. Those of `ReadingSettings` are for photos.
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
    keep_label: bool | None
    aus_from: str | None
    inversion: str | None
    input_format: str | None
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
    calibration: str | Path | Mapping[str, Any] | None
    coverage: float | None


DEFAULTS: SampleSettings = {
    "labels": "all",
    "seed": 0,
    "count_accepted": False,
    "keep_label": False,
    "align": False,
}
"""The defaults that are the same for every bundle; the others are the bundle's, or nothing."""


def make_run(
    bundle: Bundle,
    *,
    count: int,
    out: Path | None = None,
    distributions: Distributions | None = None,
    **settings: Unpack[SampleSettings],
) -> Run:
    """The run of these settings, see `Model.sample`. Raises UserError for what cannot be run.

    With `distributions` the requests are drawn from them.
    """
    given = _given(settings)
    if "timesteps" in given:
        given["timesteps"] = decreasing(given["timesteps"])
    size = given.get("size")
    bundle = bundle if size is None else bundle.resized(size)
    photos, facts = read_photos(given, bundle, out)
    requests = _requests(bundle, given, len(photos or ()), facts)
    if distributions is not None:
        requests = distributions.of(requests)
    counts = dict[str, int]() if distributions is None else distributions.counts
    most, quota = _counts(count, given, requests.labels, counts)
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
        _calibrated(given, bundle),
        _inversion(given),
    )
    run.check()
    return run


def _calibrated(given: Mapping[str, Any], bundle: Bundle) -> Calibrated | None:
    """The calibration of a file, or of the settings of a run that is made again."""
    found = given.get("calibration")
    if isinstance(found, Mapping):
        return of_settings(cast("Mapping[str, Any]", found))
    return calibrated_at(found, given.get("coverage"), bundle)


def _given(settings: SampleSettings) -> dict[str, Any]:
    """The settings that are not None, and DEFAULTS for the others."""
    if unknown := sorted(settings.keys() - SampleSettings.__annotations__.keys()):
        raise TypeError(f"make_run() got an unexpected keyword argument {unknown[0]!r}")
    return {**DEFAULTS, **{name: value for name, value in settings.items() if value is not None}}


def _requests(
    bundle: Bundle, given: Mapping[str, Any], photos: int, facts: PhotoFacts | None
) -> Requests:
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
        facts=facts,
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


def _inversion(given: Mapping[str, Any]) -> str:
    """How photos are inverted."""
    method = given.get("inversion", PREDICTOR_CORRECTOR)
    if not isinstance(method, str) or method not in METHODS:
        raise UserError(f"`inversion` must be one of {', '.join(METHODS)}, got {method!r}.")
    return method


def _images(name: str, value: int) -> int:
    """A number of images; the last one's index is at most LARGEST_SEED."""
    return ranges.whole(name, ranges.whole(name, value, 1, None), 1)


def _counts(
    count: int, given: Mapping[str, Any], labels: Sequence[str], counts: Mapping[str, int]
) -> tuple[int, int | Mapping[str, int] | None]:
    """The most images that are made, and the accepted ones that each class shall have, if any.

    A class shall have its number of `counts`, and `count` if there are none.
    """
    count = _images("count", count)
    budget = given.get("budget")
    budget = None if budget is None else _images("budget", budget)
    if not ranges.flag("count_accepted", given["count_accepted"]):
        if budget is not None:
            raise UserError(
                "`budget` needs `count_accepted`; add `count_accepted=True`, or leave out `budget`."
            )
        return count, None
    wanted = sum(counts.values()) or count * len(labels)
    most = min(_PER_WANTED * wanted, ranges.LARGEST_SEED) if budget is None else budget
    if most < wanted:
        raise UserError(
            f"`budget` is {most}, fewer than the {wanted} images wanted; raise it, or lower "
            "`count`."
        )
    return most, counts or count


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
