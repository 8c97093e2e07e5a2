"""Where a job writes its dataset, and whether it continues the run that is there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

from synfer_rt.backends.computation import Computation, computation
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle
from synfer_rt.data import writers
from synfer_rt.data.image_format import ENCODER, PNG, ImageFormat
from synfer_rt.data.writers import Writer, run_file
from synfer_rt.data.writers.shards import Part
from synfer_rt.data.writers.working_copy import shown
from synfer_rt.errors import UserError
from synfer_rt.jobs.other_parts import PATIENCE
from synfer_rt.jobs.resuming import Settings, check_resuming, choose_computation

LOG = logging.getLogger(__name__)


class Job(Protocol):
    """What decides samples."""

    def settings(self, format: str) -> dict[str, Any]:
        """The job as JSON values, for run.json."""
        ...


@dataclass(frozen=True)
class Destination:
    """The directory `out`, in one of `writers.FORMATS`.

    Shards get `shard_size` samples each. With `resume` a job continues the run that is there, if
    one is; with `mix_backends` also where images come out slightly different. With `part` it makes
    the shards of that part, and joins a run that is there; it waits for shards that it needs of
    others for `patience` seconds in which nothing is written. Images are files in `image_format`.
    Raises UserError for another format, for `mix_backends` without `resume`, and for images that
    this machine cannot write.
    """

    out: Path
    format: str
    resume: bool = False
    mix_backends: bool = False
    shard_size: int = writers.SHARD_SIZE
    part: Part | None = None
    patience: float = PATIENCE
    image_format: ImageFormat = PNG

    def __post_init__(self) -> None:
        check_resuming(self.resume, self.mix_backends)
        if not isinstance(cast(object, self.format), str) or self.format not in writers.FORMATS:
            known = ", ".join(writers.FORMATS)
            raise UserError(f"`format` must be one of {known}, got {self.format!r}.")
        _ = self.image_format.encoder

    def settings_of(self, job: Job) -> dict[str, Any]:
        """What decides the files of a job that is written here, for run.json."""
        return {**job.settings(self.format), **self.image_format.settings}

    @property
    def joins(self) -> bool:
        """Whether a run that is there is continued."""
        return self.resume or self.part is not None

    @cached_property
    def begun(self) -> Settings | None:
        """The settings of the run that is continued; None for a new run. Raises UserError."""
        return run_file.load(self.out) if self.joins and run_file.exists(self.out) else None

    def computation(self, asked: str, bundle: Bundle) -> tuple[Computation, str]:
        """Where the job computes on the backend `asked`; see `choose_computation`."""
        whole = self.begun is None or writers.is_whole(self.out, self.part)
        begun = None if whole else self.begun
        return choose_computation(asked, bundle, self.out, begun, self.mix_backends)

    def open(self, settings: Mapping[str, Any], engines: LoadedEngines) -> Writer:
        """The writer of a run with these settings, computed by `engines`.

        The settings also say where each engine runs that is loaded by now. Raises UserError as
        `writers.open_output` does.
        """
        known = self._known(settings, engines)
        if self.part is not None:
            self._join(known, engines)
        writer = writers.open_output(
            self.out, known, resume=self.resume, shard_size=self.shard_size, part=self.part
        )
        if writer.lacking:
            self._compare_encoders()
        return writer

    def join(self, settings: Mapping[str, Any], engines: LoadedEngines) -> None:
        """Begin the run with these settings for those who make its parts, or join it.

        Raises UserError as `open` does.
        """
        self._join(self._known(settings, engines), engines)

    def _join(self, known: Mapping[str, Any], engines: LoadedEngines) -> None:
        before = self.begun
        writers.join_output(self.out, known, self.shard_size)
        if before is None:  # another process may have come first
            begun, backend = run_file.load(self.out), engines.backend
            choose_computation(backend, engines.bundle, self.out, begun, self.mix_backends)

    def _known(self, settings: Mapping[str, Any], engines: LoadedEngines) -> dict[str, Any]:
        """The settings of a run, by which model and where `engines` compute it, and who encodes."""
        where = computation(engines.bundle, engines.backend).settings()
        ran = {name: place.settings() for name, place in engines.placements().items()}
        bundle = engines.bundle
        model = {"name": bundle.name, "version": bundle.version, "licence": bundle.licence}
        known = {**settings, **where, run_file.MODEL: model}
        encoder = self.image_format.encoder
        known |= {} if encoder is None else {ENCODER: encoder}
        return known | ({run_file.RAN_ON: ran} if ran else {})

    def _compare_encoders(self) -> None:
        """Note that the run was begun with other releases of what encodes its images."""
        before, here = run_file.load(self.out).get(ENCODER), self.image_format.encoder
        if before not in (None, here):
            LOG.warning(
                f"{shown(self.out)} was begun with {before}, here is {here}: the same images may "
                "come out as slightly different files."
            )
