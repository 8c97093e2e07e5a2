"""Samples as a dataset of Ray Data, made by actors while it is read."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from synfer_rt import ranges
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import open_bundle
from synfer_rt.errors import UserError
from synfer_rt.jobs.sample import photo_starts, samples_at
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.sample_settings import SampleSettings, make_run
from synfer_rt.ray import cluster
from synfer_rt.ray.worker import ModelSpec, portable

_INDEX = "index"


def sample_dataset(
    bundle: str | Path | None = None,
    *,
    count: int,
    backend: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
    batch: int = 256,
    **settings: Unpack[SampleSettings],
) -> Any:
    """A `ray.data.Dataset` of `count` samples, which actors make while it is read.

    A row has the `image`, uint8 [H, W, 3], and the fields of a record: `index`, `label`, `aus`,
    `probabilities`, `accepted`, … The row of an index is the sample that `Model.write` makes with
    the same `settings`; rows come in any order unless Ray Data is told to keep it. Blocks have
    `batch` rows.

    There are so many `workers`, or as many as the cluster has room for. Each has a GPU, or so many
    cores for its `threads`, by default up to 8. All nodes must see the bundle. Raises UserError as
    `Model.write` does, and for settings by which a sample depends on those before it: `accept_rate`
    and `count_accepted`.
    """
    ray = cluster.ray_package("`sample_dataset`")
    data = cluster.ray_package("`sample_dataset`", "ray.data")
    batch = ranges.whole("batch", batch, 1, None)
    run = make_run(open_bundle(bundle), count=count, **settings)
    if run.in_order:
        raise UserError(
            "`accept_rate` and `count_accepted` decide by the samples before, and those of a Ray "
            "dataset are made in any order; leave them out, or write a run with `Model.write`."
        )
    run.warn()
    found = cluster.nodes(ray)
    gpu = cluster.on_gpus(backend, found)
    rooms = [room for node in found if (room := cluster.room(node, gpu, threads)).workers]
    if not rooms:
        raise UserError(
            f"No node of the Ray cluster has {'a GPU' if gpu else 'CPU cores'} for a worker; add "
            "one, or choose another `backend`."
        )
    cores = min(room.cpus for room in rooms)
    most = sum(room.workers for room in rooms)
    size = {"min_size": 1, "max_size": most} if workers is None else {"size": workers}
    model = ModelSpec.of(run.bundle, backend)
    return data.from_blocks(_blocks(run.count, batch)).map_batches(
        Sampling,
        fn_constructor_args=(portable(run), model, max(cores, 1), batch),
        batch_size=batch,
        batch_format="numpy",
        compute=data.ActorPoolStrategy(**size),
        num_cpus=cores,
        num_gpus=rooms[0].gpus,
    )


def _blocks(count: int, batch: int) -> list[Any]:
    """The indices of all samples, in tables of `batch` rows.

    Ray Data would make them in tasks, which would wait for the cores that the actors have.
    """
    arrow = import_module("pyarrow")
    indices = (np.arange(i, min(i + batch, count)) for i in range(0, count, batch))
    return [arrow.table({_INDEX: rows}) for rows in indices]


class Sampling:
    """Makes the samples of indices; it becomes an actor of Ray Data."""

    def __init__(self, run: Run, model: ModelSpec, threads: int, batch: int) -> None:
        self._run, self._batch = model.opened(run), batch
        self._engines = LoadedEngines(self._run.bundle, model.backend, threads)
        self._starts = photo_starts(self._run, self._engines)

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, Any]:
        """The columns of the samples of the indices `index`, int64 [n]."""
        indices = sorted(map(int, rows[_INDEX]))
        samples = samples_at(indices, self._run, self._engines, self._batch, self._starts)
        records = [self._run.record(sample) for sample in samples]
        columns = {name: [record[name] for record in records] for name in records[0]}
        return {"image": np.stack([sample.image for sample in samples]), **columns}
