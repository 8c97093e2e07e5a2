"""A worker: an actor that holds a run's engines and makes one shard after the other."""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.shards import Part
from synfer_rt.engines import default_bundle
from synfer_rt.errors import UserError
from synfer_rt.jobs.destination import Destination
from synfer_rt.jobs.kept_log import Remark, kept_log
from synfer_rt.jobs.resuming import as_begun, choose_computation
from synfer_rt.jobs.sample import Summary, execute, images_at_once, photo_starts
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.warnings import warn_of_the_cpu

LOG = logging.getLogger("synfer_rt.jobs")


@dataclass(frozen=True)
class ModelSpec:
    """The bundle in `path` and the backend that all workers load.

    None is the bundle that is installed with synfer-rt, wherever that is on a worker's machine.
    `release` is the driver's synfer-rt.
    """

    path: Path | None
    backend: str
    release: str | None

    @classmethod
    def of(cls, bundle: Bundle, backend: str) -> ModelSpec:
        """That of a bundle that is open here."""
        path = None if bundle.path.resolve() == default_bundle() else bundle.path
        return cls(path, backend, _release())

    def opened(self, run: Run) -> Run:
        """`run` with the bundle as it is here.

        Raises UserError if it is not here, or another one, and for another synfer-rt.
        """
        host = socket.gethostname()
        if (here := _release()) != self.release:
            raise UserError(
                f"{host} has synfer-rt {here}, and the driver {self.release}; install the same on "
                "all nodes."
            )
        try:
            bundle = open_bundle(self.path)
        except UserError as error:
            raise UserError(f"On {host}: {error} All nodes must see the bundle.") from None
        bundle = as_begun(bundle, run.settings("")).resized(run.bundle.image_size)
        if bundle.hash_with(*run.engines) != run.bundle_hash:
            raise UserError(
                f"The bundle in {bundle.path} on {host} is not that of the driver; give all nodes "
                "the same."
            )
        return replace(run, bundle=bundle)


def portable(run: Run) -> Run:
    """The run with paths that do not depend on the directory in which a process works."""
    if run.photos is None:
        return run
    files = tuple(file.absolute() for file in run.photos.files)
    return replace(run, photos=replace(run.photos, files=files))


def _release() -> str | None:
    try:
        return version("synfer-rt")
    except PackageNotFoundError:  # a clone that is not installed
        return None


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know: the run, its model, and where it writes.

    `mark` is the name of a file that the driver has made in the run's own folder.
    """

    run: Run
    model: ModelSpec
    to: Destination
    shards: int
    batch: int
    mark: str


@dataclass(frozen=True)
class Ready:
    """A worker has loaded its engines."""

    remarks: tuple[Remark, ...]


@dataclass(frozen=True)
class Made:
    """A worker has made a shard."""

    summary: Summary
    remarks: tuple[Remark, ...]


@dataclass(frozen=True)
class Refused:
    """A worker cannot do what it was asked to; `why` is the sentence of a UserError."""

    why: str


class Worker:
    """Makes shards of a job's run, with so many CPU threads. It becomes an actor."""

    def __init__(self, job: Job, threads: int) -> None:
        self._job, self._threads = job, threads
        self._made = 0.0

    def prepare(self) -> Ready | Refused:
        """Load the engines, and begin or join the run."""
        with kept_log() as said:
            try:
                self._prepare()
            except UserError as error:
                return Refused(str(error))
        return Ready(tuple(said))

    def _prepare(self) -> None:
        job, to = self._job, self._job.to
        check_place(to.out, job.mark)
        self._run = run = job.model.opened(job.run)
        asked = job.model.backend
        where, why = choose_computation(asked, run.bundle, to.out, to.begun, to.mix_backends)
        LOG.info(f"{run.bundle.name} {run.bundle.version} on {why}")
        self._engines = engines = LoadedEngines(run.bundle, where.backend, self._threads)
        engines.load(run.engines, images_at_once(run, engines, job.batch))
        warn_of_the_cpu(engines)
        self._starts = photo_starts(run, engines)
        to.join(to.settings_of(run), engines)

    def make(self, number: int) -> Made | Refused:
        """Make the shard of this number, unless it is there."""
        job, self._made = self._job, 0.0
        to = replace(job.to, part=Part(number, job.shards, finishes=False))
        with kept_log() as said:
            try:
                writer = to.open(to.settings_of(self._run), self._engines)
                summary = execute(
                    self._run,
                    self._engines,
                    writer,
                    job.batch,
                    self._tell,
                    to.patience,
                    self._starts,
                )
            except UserError as error:
                return Refused(str(error))
        return Made(summary, tuple(said))

    def _tell(self, images: float) -> None:
        self._made = images

    def made(self) -> float:
        """How many images of the shard are made; called while `make` runs."""
        return self._made


def check_place(out: Path, mark: str) -> None:
    """Raise UserError unless this machine sees the folder in which the driver has made `mark`."""
    if not (run_file.folder(out) / mark).exists():
        raise UserError(
            f"{socket.gethostname()} does not see {out} as the driver does; all nodes must have "
            "the same folder under this path, such as one of a network file system."
        )
