"""Core-sets of a run."""

from __future__ import annotations

from synfer_rt import ranges
from synfer_rt.backends import thread_count
from synfer_rt.bundle import Bundle
from synfer_rt.coresets.choice import HERDING
from synfer_rt.data.writers import FORMATS
from synfer_rt.data.writers.working_copy import opened
from synfer_rt.errors import UserError
from synfer_rt.jobs.coreset.coreset import Coreset, CoresetJob, make_coreset
from synfer_rt.jobs.coreset.stock import EQUAL
from synfer_rt.jobs.evaluation.networks import Opener
from synfer_rt.jobs.progress import OnProgress
from synfer_rt.paths import Location, local, whole_name


def distill(
    run: Location,
    *,
    count: int,
    out: Location | None = None,
    method: str = HERDING,
    quotas: str = EQUAL,
    every: bool = False,
    features: tuple[Location, str] | None = None,
    bundle: Location | Bundle | None = None,
    seed: int = 0,
    format: str | None = None,
    resume: bool = False,
    backend: str = "onnxruntime-cpu",
    threads: int | None = None,
    on_progress: OnProgress | None = None,
) -> Coreset:
    """Write the `count` images that stand best for all others of their class, as a dataset.

    They are chosen of the accepted images of the finished run in `run`, or with `every` of all, and
    written to the directory `out`, by default that of the run with -coreset behind its name, in
    `format` or that of the run. Image files are copied as they are; records get `run_index` and
    `coreset_rank` (see docs/datasets.md).

    `method` is herding, k-center or random, which `seed` draws. `quotas` is equal (equally many of
    each class) or proportional (to the images of each class). Features are those of the `bundle`
    that made the run, by default the shipped one, or of `features`, an ONNX file with a description
    as for `evaluate`. With `resume` a core-set that was interrupted goes on.

    Raises UserError for a run that is not finished, is damaged or has fewer images, for networks
    that cannot be used, and values that do not fit.
    """
    job = CoresetJob(count, method, quotas, every, features, seed)
    opener = Opener(backend, thread_count(threads))
    ranges.flag("resume", resume)
    if format is not None and format not in FORMATS:
        raise UserError(f"`format` must be one of {', '.join(FORMATS)}, got {format!r}.")
    with opened(run, "run") as place:
        if out is not None:
            to = local(out, "out")
        elif place.address is None:
            beside = whole_name(place.path)
            to = beside.parent / f"{beside.name}-coreset"
        else:
            raise UserError("`out` must be given for a run in an object store; name a folder.")
        return make_coreset(place.path, to, job, bundle, opener, format, resume, on_progress)
