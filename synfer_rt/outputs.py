"""What is done with an output without a model: its end, faults, figures, report, core-set.

The names of this module are those of `synfer_rt.api`, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synfer_rt import ranges
from synfer_rt.backends import default_threads
from synfer_rt.bundle import Bundle
from synfer_rt.coresets.choice import HERDING
from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.writers import FORMATS, run_file
from synfer_rt.data.writers.working_copy import Place, opened
from synfer_rt.errors import UserError
from synfer_rt.jobs.coreset.coreset import Coreset, CoresetJob, make_coreset
from synfer_rt.jobs.coreset.stock import EQUAL
from synfer_rt.jobs.evaluation.evaluate import check_place, evaluate_run, write_evaluation
from synfer_rt.jobs.evaluation.job import EvaluationJob
from synfer_rt.jobs.evaluation.networks import Opener
from synfer_rt.jobs.finish import Finished, finish_run
from synfer_rt.jobs.progress import OnProgress, reporter
from synfer_rt.jobs.run_status import RunStatus, run_status
from synfer_rt.jobs.verify import Fault, faults, settings_of
from synfer_rt.paths import Location, is_folder, local
from synfer_rt.report.writing import Report as Report
from synfer_rt.report.writing import write_report as write_report
from synfer_rt.vocabulary import label_schemes


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
    opener = Opener(backend, default_threads() if threads is None else threads)
    ranges.flag("resume", resume)
    if format is not None and format not in FORMATS:
        raise UserError(f"`format` must be one of {', '.join(FORMATS)}, got {format!r}.")
    with opened(run) as place:
        if out is not None:
            to = local(out, "out")
        elif place.address is None:
            to = place.path.with_name(f"{place.path.name}-coreset")
        else:
            raise UserError("`out` must be given for a run in an object store; name a folder.")
        return make_coreset(place.path, to, job, bundle, opener, format, resume, on_progress)


EVALUATION = "evaluation.json"
"""The file of an evaluation in the run's own folder."""


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found: `result` as JSON values, which are in the file `path`.

    `table` is a CSV file with a line for each image.
    """

    path: Path
    table: Path
    result: dict[str, Any]


def evaluate(
    run: Location,
    *,
    real: Location | None = None,
    real_format: str = "auto",
    label_scheme: str | None = None,
    split: str | None = None,
    align: bool = False,
    face: str | None = None,
    face_detector: Location | None = None,
    features: tuple[Location, str] | None = None,
    judges: Sequence[tuple[Location, str, str]] | None = None,
    au_reader: tuple[Location, str, str] | None = None,
    identity: tuple[Location, str] | None = None,
    person: str | None = None,
    bundle: Location | Bundle | None = None,
    subset: int = 10_000,
    seed: int = 0,
    out: Location | None = None,
    backend: str = "onnxruntime-cpu",
    threads: int | None = None,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """What papers report of the dataset that `write` or `augment` wrote into `run`.

    docs/evaluation.md describes the result. `real` is a dataset of real images to compare with;
    `real_format`, `label_scheme` and `split` are as for `label`, and so are `align`, `face` and
    `face_detector`, which align its faces as those of the run. Networks are ONNX files with a
    description such as "224,rgb,imagenet": `features` compares images, each of `judges` reads
    expressions of a label scheme, `au_reader` the action units of a vocabulary or list, and
    `identity` embeds faces. `person` is a regular expression that finds the person in the name of
    a real image. Without `features` and `au_reader` those of the `bundle` that made the run count,
    by default the shipped one if it did. `subset` images at most, drawn by `seed`, are compared
    pair by pair.

    The result is written to `out`, by default evaluation.json in the run's own folder. Raises
    UserError for a run without images, a network that guided or labelled it, a bundle that did not
    make it, and values that do not fit.
    """
    opener = Opener(backend, default_threads() if threads is None else threads)
    with opened(run) as place:
        file = _evaluation_file(place, out)
        dataset = None
        if real is not None:
            classes = label_schemes.listed(settings_of(place.path)["classes"])
            where = local(real, "real")
            dataset = read_dataset(where, real_format, label_scheme, split, target=classes)
        aligning = dataset, align, face, face_detector
        networks = features, judges or (), au_reader, identity
        job = EvaluationJob(*aligning, *networks, person, subset, seed)
        result, table = evaluate_run(place.path, job, bundle, opener, on_progress)
        return Evaluation(file, write_evaluation(result, table, file), result)


def _evaluation_file(place: Place, out: Location | None) -> Path:
    """Where the evaluation of a run is written. Raises UserError, before it takes hours."""
    if place.address is not None and out is None:
        raise UserError("`out` must be given for a run in an object store; name a .json file.")
    settings_of(place.path)
    file = run_file.folder(place.path) / EVALUATION if out is None else local(out, "out")
    if file.suffix != ".json" or not is_folder(file.parent):
        raise UserError(f"`out` must be a .json file in a folder that is there, got {file}.")
    check_place(file)
    return file
