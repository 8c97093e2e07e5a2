"""Samples as a dataset, by settings or by a plan."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack, cast

from synfer_rt import ranges
from synfer_rt.api.making import (
    MAKING_DEFAULTS,
    WRITE_DEFAULTS,
    Making,
    MakingSettings,
    WriteSettings,
    parted,
)
from synfer_rt.api.session import Session
from synfer_rt.backends import choose
from synfer_rt.data.image_format import image_format as chosen_format
from synfer_rt.data.storage.addresses import address_of
from synfer_rt.data.writers import SHARD_SIZE, check_output, check_place
from synfer_rt.data.writers.working_copy import check_storable, opened
from synfer_rt.jobs.destination import Destination
from synfer_rt.jobs.plan.preview import Preview, preview
from synfer_rt.jobs.plan.preview import measure as measure_run
from synfer_rt.jobs.plan.reading import read_plan
from synfer_rt.jobs.plan.rerun import backend_for
from synfer_rt.jobs.resuming import as_begun, settings_as_begun
from synfer_rt.jobs.sample import Written, write_samples
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.sample_settings import SampleSettings, make_run
from synfer_rt.paths import Location, local
from synfer_rt.ray.run import write_on_ray
from synfer_rt.signatures import spelled_out


class Writing(Session):
    """`Model.write`, `Model.write_plan` and `Model.preview`."""

    @spelled_out(WriteSettings, WRITE_DEFAULTS)
    def write(
        self,
        out: Location = "synfer-out",
        *,
        count: int = 256,
        format: str = "imagefolder",
        shard_size: int = SHARD_SIZE,
        image_format: str = "png",
        image_quality: int | None = None,
        **settings: Unpack[WriteSettings],
    ) -> Written:
        """Write samples as a labelled dataset into the directory `out`, which is new or empty.

        `out` may also be an address in an object store, such as s3://bucket/faces (see
        docs/object_storage.md).

        `format` is imagefolder, webdataset or parquet; a file of the latter two is a shard of
        `shard_size` images. `image_format` is png, or jpeg or webp in `image_quality`, 1 to 100, by
        default 95; images are labelled before they are compressed. `batch` and all settings that
        are not explained here are those of `sample`. With `resume` a run that was interrupted
        continues, on the backend that it was begun on; with `mix_backends` it may continue on
        another, or on another version, where the same samples come out slightly different.

        With `part` (K, N) only the shards are made whose number is K modulo N, and not those that
        are there. Processes on any number of machines may make the parts of one run in one
        directory, in any order or at once; the last finishes it. With `count_accepted` a part waits
        for shards of others where they decide what it makes next; after `wait` seconds in which no
        part has written anything it gives up.

        With `ray` a Ray cluster makes all shards: "auto" is the one that this machine belongs to,
        "local" one of this machine alone, and HOST:PORT one elsewhere (see docs/clusters.md). Each
        worker has a GPU, or `threads` CPU cores.

        What is written is kept if the run is interrupted: KeyboardInterrupt then has a note on how
        far it is. Raises UserError for a value that does not fit, a directory that holds something
        else, a run that was begun with other settings, and a disk that is full or not writable.
        """
        making, deciding = parted(settings)
        making.check_place(out)
        shard_size = ranges.whole("shard_size", shard_size, 1, None)
        images = chosen_format(image_format, image_quality)
        with opened(out) as place:
            to = making.destination(place.path, format, shard_size, images)
            check_place(to.out, resume=to.joins)  # before it looks at all photos
            bundle, known = as_begun(self.bundle, to.begun), settings_as_begun(deciding, to.begun)
            run = make_run(bundle, count=count, out=to.out, **cast(SampleSettings, known))
            check_storable(place, format, run.quota)
            check_output(to.out, to.settings_of(run), resume=to.joins, shard_size=shard_size)
            return place.result(self._written(run, to, making, self._backend))

    @spelled_out(MakingSettings, MAKING_DEFAULTS)
    def write_plan(
        self,
        plan: Location | Mapping[str, Any],
        out: Location | None = None,
        *,
        layout_from: Location | None = None,
        **settings: Unpack[MakingSettings],
    ) -> tuple[Written, ...]:
        """Write the dataset that a plan describes (see docs/plans.md); a result for each split.

        `plan` is a YAML, JSON or TOML file, the run.json of a run that is made again, or a mapping
        of what such a file holds. `out` is where it is written, by default as the plan says, or
        synfer-out; each split has a directory of its own in it. `layout_from` are the photos that
        a run began with which is made again. The other arguments and the errors are those of
        `write`; what is wrong in the plan is found before anything is written.
        """
        making = Making(**settings)
        photos = None if layout_from is None else local(layout_from, "layout_from")
        read = read_plan(plan, self.bundle, photos)
        base = read.out or Path("synfer-out")
        if out is not None:
            base = address_of(out) or local(out, "out")
        local_base = base if isinstance(base, Path) else None
        making.check_place(base)
        how = read.format, read.shard_size, read.image_format
        with ExitStack() as stack:
            names = read.splits or ("",)
            places = {name: stack.enter_context(opened(base / name)) for name in names}
            to = {name: making.destination(place.path, *how) for name, place in places.items()}
            for each in to.values():
                check_place(each.out, resume=each.joins)
            begun = next((each.begun for each in to.values() if each.begun), read.begun)
            read = replace(read, settings=settings_as_begun(read.settings, begun))
            runs = read.runs(as_begun(self.bundle, begun), local_base)
            for name, run in runs.items():
                check_storable(places[name], read.format, run.quota)
                decides, joins = to[name].settings_of(run), to[name].joins
                check_output(to[name].out, decides, resume=joins, shard_size=read.shard_size)
            written: list[Written] = []
            for name, run in runs.items():
                asked = self._backend
                if to[name].begun is None:
                    asked = backend_for(read, asked, run.bundle, here=making.ray is None)
                made = self._written(run, to[name], making, asked)
                written.append(places[name].result(made))
        return tuple(written)

    def preview(
        self,
        plan: Location | Mapping[str, Any],
        *,
        layout_from: Location | None = None,
        measure: bool = True,
        batch: int = 256,
    ) -> Preview:
        """What a plan comes to: images of each class and attribute, and time and disk.

        `plan` and `layout_from` are those of `write_plan`. Unless `measure` is False, a few images
        are made, `batch` at a time, and removed again. Raises UserError for what is wrong in the
        plan.
        """
        batch = ranges.whole("batch", batch, 1, None)
        photos = None if layout_from is None else local(layout_from, "layout_from")
        read = read_plan(plan, self.bundle, photos)
        runs = read.runs(as_begun(self.bundle, read.begun))
        found = preview(read, runs)
        if not ranges.flag("measure", measure):
            return found
        run = next(iter(runs.values()))
        backend, _ = choose(backend_for(read, self._backend, run.bundle), run.bundle)
        engines = self._loaded(run.bundle, backend)
        return replace(found, measured=measure_run(run, engines, read, batch))

    def _written(self, run: Run, to: Destination, making: Making, backend: str) -> Written:
        """The dataset of a run, which this process writes, or a Ray cluster."""
        how = int(making.batch), making.on_progress
        if making.ray is not None:
            return write_on_ray(run, to, making.ray, backend, self._threads, *how)
        return write_samples(run, self._engines_for(run.bundle, to, backend), to, *how)
