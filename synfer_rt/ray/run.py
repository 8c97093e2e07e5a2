"""A run on a Ray cluster, from its settings to the finished dataset.

The driver makes no image: it gives out the shards, and finishes the run when all are there.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

from synfer_rt.data import writers
from synfer_rt.data.card_files import place as card_place
from synfer_rt.data.contact_sheet import FILE as SHEET
from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.atomic import disk_errors, own
from synfer_rt.data.writers.shards import EVERY
from synfer_rt.jobs.card.card import tally_of
from synfer_rt.jobs.destination import Destination
from synfer_rt.jobs.finish import Finished, finish_run
from synfer_rt.jobs.known_faces import keep_faces
from synfer_rt.jobs.progress import OnProgress, reporter
from synfer_rt.jobs.resuming import resumable
from synfer_rt.jobs.run_status import run_status
from synfer_rt.jobs.sample import Summary, Written
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.skipped import skipped_file, write_skipped
from synfer_rt.judging.quotas import missing
from synfer_rt.ray import cluster
from synfer_rt.ray.assignment import Assignment
from synfer_rt.ray.crew import Crew
from synfer_rt.ray.worker import Job, Made, ModelSpec, portable
from synfer_rt.sampling.observer import StageTimes

LOG = logging.getLogger("synfer_rt.jobs")
_MARK = "driver"
"""A file in the run's own folder by which workers know it."""


def write_on_ray(
    run: Run,
    to: Destination,
    address: str,
    backend: str,
    threads: int | None,
    batch: int,
    on_progress: OnProgress | None = None,
) -> Written:
    """Write the samples of the run that the output lacks on the Ray cluster at `address`.

    `backend` is that of its workers, and `threads` the CPU cores of each. Raises UserError as
    `cluster.connected`, `Crew.work` and `finish_run` do. Shards that are finished stay.
    """
    run.warn()
    skipped = () if run.photos is None else tuple(run.photos.skipped.items())
    lacking, there = _lacking(run, to)
    tally = _Tally(there)
    report = reporter(on_progress, there, run.count, run.quota is not None)
    finished: Finished | None = None
    with resumable(lambda: f"{tally.done} of {run.count} images written"):
        if lacking:
            if there:
                LOG.info(f"Resuming: {there} of {run.count} images are there.")
            with cluster.connected(address) as ray, _mark(to.out) as mark:
                if run.photos is not None:
                    write_skipped(to.out, skipped)
                    keep_faces(to.out, run.photos.aligner)
                job = _job(run, to, ModelSpec.of(run.bundle, backend), batch, mark)
                gpu = cluster.on_gpus(_backend(to, backend), cluster.nodes(ray))
                assignment = Assignment(lacking)

                def on_made(made: Made) -> None:
                    tally.add(made.summary)
                    if run.quota is not None:  # the run may have ended with fewer shards
                        assignment.end(run_file.shard_count(run_file.load(to.out)))

                crew = Crew(ray, job, assignment, gpu, threads, on_made)
                crew.work(lambda under_way: report(tally.done + under_way))
        sheet = run_file.folder(to.out) / SHEET
        if lacking or not (sheet.exists() and card_place(to.out, to.format).exists()):
            finished = finish_run(to.out)
    count = run_file.count(run_file.load(to.out))
    summary = tally.summary(run, finished)
    if (quotas := run.quotas()) is not None:
        accepted = (finished or tally_of(to.out)).accepted
        summary = replace(summary, missing=missing(accepted, quotas.quota))
    return Written(to.out, count, sheet, summary, skipped, skipped_file(to.out))


def _lacking(run: Run, to: Destination) -> tuple[list[int], int]:
    """The numbers of the shards that are missing or damaged, and how many images are there."""
    if to.begun is None:
        return list(range(_shards(run, to))), 0
    status = run_status(to.out)
    return sorted([*status.missing, *status.damaged]), status.images


def _shards(run: Run, to: Destination) -> int:
    return run_file.shard_count({"count": run.count, "shard_size": to.shard_size})


def _job(run: Run, to: Destination, model: ModelSpec, batch: int, mark: str) -> Job:
    there = replace(to, out=to.out.absolute(), part=EVERY)
    return Job(portable(run), model, there, _shards(run, to), batch, mark)


def _backend(to: Destination, asked: str) -> str:
    """The backend that decides whether workers get GPUs: that of the run if it continues."""
    if asked != "auto" or to.begun is None or to.mix_backends:
        return asked
    return str(to.begun.get("backend", "auto"))


@contextmanager
def _mark(out: Path) -> Generator[str]:
    """The name of a file in the run's own folder, which is there within the block."""
    with disk_errors(out):
        if not run_file.exists(out):
            run_file.clear(out, "*")  # left by a run whose directory is gone
        folder = run_file.folder(out)
        folder.mkdir(parents=True, exist_ok=True)
        mark = own(folder / _MARK)
        mark.touch()
    try:
        yield mark.name
    finally:
        with suppress(OSError):
            mark.unlink(missing_ok=True)
            writers.discard_empty(out)
            folder.rmdir()  # which it only does if nothing is there


class _Tally:
    """Counts the images of a run that are `done`, and adds up what workers tell of theirs."""

    def __init__(self, done: int) -> None:
        self.done = done
        self._made: list[Summary] = []
        self._started = time.perf_counter()

    def add(self, summary: Summary) -> None:
        """A worker has made a shard."""
        self.done += summary.images
        self._made.append(summary)

    def summary(self, run: Run, finished: Finished | None) -> Summary:
        """What all workers have made; the times are the mean of theirs, for the whole run.

        What depends on all samples is accepted when the run is `finished`.
        """
        seconds = time.perf_counter() - self._started
        labelled = Counter(dict.fromkeys(run.requests.labels, 0))
        accepted, times = labelled.copy(), StageTimes()
        for made in self._made:
            labelled.update(made.labelled)
            accepted.update(made.accepted)
            for stage, took in asdict(made.times).items():
                setattr(times, stage, getattr(times, stage) + took)
        busy = sum(made.seconds for made in self._made)
        for stage, took in asdict(times).items():
            setattr(times, stage, took * seconds / busy if busy else 0.0)
        whole = finished is not None and labelled.total() == finished.count
        if run.in_order:
            accepted = Counter(finished.accepted) if finished and whole else Counter[str]()
        return Summary(
            labelled.total(),
            seconds,
            labelled,
            accepted,
            {},
            sum(made.retried for made in self._made),
            sum(made.broken for made in self._made),
            times,
            "; ".join(dict.fromkeys(made.ran_on for made in self._made)),
            run.quality,
        )
