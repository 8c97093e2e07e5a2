"""What a plan comes to: how many images of each class and attribute, and how long they take."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.jobs.destination import Destination
from synfer_rt.jobs.plan.plan import Plan
from synfer_rt.jobs.sample import execute, images_at_once, make_samples
from synfer_rt.jobs.sample_run import Run
from synfer_rt.sampling.apportionment import apportion
from synfer_rt.sampling.planned_requests import PlannedRequests

_COUNTED = 1_000_000
"""Up to so many images the words of attributes are drawn and counted; of more, the shares count."""
_AT_ONCE = 8192

Counts = dict[str, dict[str, int]]
"""Numbers of images by the split, "" where there are none, and by the class or word."""


@dataclass(frozen=True)
class Measured:
    """A few images that were made to measure: how long one took, and the bytes that it has."""

    images: int
    seconds_per_image: float
    bytes_per_image: float
    ran_on: str


@dataclass(frozen=True)
class Preview:
    """What a plan comes to.

    `count` is the number of images, which is the largest possible one if `accepted` is true: then
    `classes` counts accepted images. `attributes` has the words of each attribute. `notes` are
    remarks on the plan's tables. `measured` is None if nothing was measured.
    """

    count: int
    accepted: bool
    classes: Counts
    attributes: Mapping[str, Counts]
    notes: tuple[str, ...]
    measured: Measured | None = None

    @property
    def seconds(self) -> float | None:
        """How long the plan takes, estimated from what was measured."""
        return None if self.measured is None else self.count * self.measured.seconds_per_image

    @property
    def bytes(self) -> float | None:
        """How many bytes the plan's files have, estimated from what was measured."""
        return None if self.measured is None else self.count * self.measured.bytes_per_image


def preview(plan: Plan, runs: Mapping[str, Run]) -> Preview:
    """What the `runs` of a plan come to, without making an image."""
    attributes: dict[str, Counts] = {}
    for split, run in runs.items():
        for name, words in _words(run).items():
            attributes.setdefault(name, {})[split] = words
    return Preview(
        sum(run.count for run in runs.values()),
        any(run.quota is not None for run in runs.values()),
        {split: _classes(run) for split, run in runs.items()},
        attributes,
        plan.notes,
    )


def _classes(run: Run) -> dict[str, int]:
    """The images of each class; of a run with quotas the accepted ones."""
    if (quotas := run.quotas()) is not None:
        return quotas.quota
    requests = run.requests
    if isinstance(requests, PlannedRequests) and requests.drawn_from.counts:
        return dict(requests.drawn_from.counts)
    if (facts := requests.facts) is not None and facts.keeps_labels:
        rounds, more = divmod(run.count, len(facts.labels))
        counts, rest = Counter(facts.labels), Counter(facts.labels[:more])
        return {label: rounds * counts[label] + rest[label] for label in requests.labels}
    turns, more = divmod(run.count, len(requests.labels))
    return {label: turns + (place < more) for place, label in enumerate(requests.labels)}


def _words(run: Run) -> dict[str, dict[str, int]]:
    """The images with each word of each attribute; of a long run, and with quotas, the shares."""
    requests = run.requests
    if not isinstance(requests, PlannedRequests):
        return {}
    attributes = requests.drawn_from.attributes
    if run.quota is not None or run.count > _COUNTED:
        return {
            name: dict(zip(words, apportion(run.count, list(words.values())), strict=True))
            for name, words in attributes.items()
        }
    found = {name: Counter(dict.fromkeys(words, 0)) for name, words in attributes.items()}
    for first in range(0, run.count if attributes else 0, _AT_ONCE):
        for chosen in requests.chosen(range(first, min(first + _AT_ONCE, run.count))):
            for name, word in chosen.items():
                found[name][word] += 1
    return {name: dict(words) for name, words in found.items()}


def measure(run: Run, engines: LoadedEngines, plan: Plan, batch: int) -> Measured:
    """Make a few images of a run and write them to a temporary folder, which is removed again.

    They are two pieces of a batch, after one that is not counted, since engines are slower at
    first.
    """
    at_once = images_at_once(run, engines, batch)
    make_samples(replace(run, count=min(at_once, run.count), quota=None), engines, batch)
    few = replace(run, count=min(2 * at_once, run.count), quota=None)
    with tempfile.TemporaryDirectory(prefix="synfer-rt-plan-") as folder:
        to = Destination(
            Path(folder) / "out",
            plan.format,
            shard_size=plan.shard_size,
            image_format=plan.image_format,
        )
        summary = execute(few, engines, to.open(to.settings_of(few), engines), batch)
        size = sum(path.stat().st_size for path in to.out.rglob("*") if path.is_file())
    images = summary.images
    return Measured(images, summary.seconds / images, size / images, summary.ran_on)
