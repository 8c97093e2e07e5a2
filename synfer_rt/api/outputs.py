"""How far the run in an output is, its end, and its faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.working_copy import opened
from synfer_rt.jobs.finish import Finished, finish_run
from synfer_rt.jobs.progress import OnProgress, reporter
from synfer_rt.jobs.run_status import RunStatus, run_status
from synfer_rt.jobs.verify import Fault, faults, settings_of
from synfer_rt.paths import Location


@dataclass(frozen=True)
class Verification:
    """What `verify` found: `count` images should be there; no `faults` means that they are."""

    count: int
    faults: tuple[Fault, ...]


def verify(
    out: Location,
    *,
    on_progress: OnProgress | None = None,
    on_fault: Callable[[Fault], None] = lambda fault: None,
) -> Verification:
    """Whether the dataset that `write` or `augment` wrote into `out` is complete and sound.

    All of it is read: every image, record and label. The result has the `count` of its images and
    the `faults`, each with a `place` (a file with its line, row or key) and a `problem`; `on_fault`
    is called with each as it is found. Raises UserError for a directory without a run.
    """
    found: list[Fault] = []
    with opened(out) as place:
        settings = settings_of(place.path)
        count = run_file.count(settings)
        for fault in faults(place.path, settings, reporter(on_progress, 0, count)):
            found.append(replace(fault, place=place.text(fault.place)))
            on_fault(found[-1])
    return Verification(count, tuple(found))


def status(out: Location) -> RunStatus:
    """How far the run is that `write` or `augment` writes into `out`, in shards.

    Raises UserError for a directory without a run.
    """
    with opened(out) as place:
        return place.result(run_status(place.path))


def finish(out: Location) -> Finished:
    """Finish the run that `write` made in parts in `out`: check its shards, and count its images.

    The last part does so too. Raises UserError for a directory without a run, and one that lacks
    shards.
    """
    with opened(out) as place:
        return place.result(finish_run(place.path))
