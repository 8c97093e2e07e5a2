"""What papers report of a run: distances, accuracy, action units, diversity, neighbours.

Every image is read once. Networks run on ONNX Runtime in calls of one size, and every sum is taken
in the order of the images, so that a result depends on the images, the networks and the seed alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from synfer_rt.backends.sessions import library
from synfer_rt.bundle import Bundle
from synfer_rt.data.datasets import Dataset
from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.atomic import check_writable, disk_errors, write_whole
from synfer_rt.errors import UserError
from synfer_rt.faces.alignment import Aligner
from synfer_rt.jobs.evaluation.features import numbers_of_people
from synfer_rt.jobs.evaluation.images import RunImages, first_images, fitted
from synfer_rt.jobs.evaluation.independence import Parts, not_comparable
from synfer_rt.jobs.evaluation.job import EvaluationJob, Networks, aligner_of, maker_of, networks_of
from synfer_rt.jobs.evaluation.networks import Opener
from synfer_rt.jobs.evaluation.passes import COLUMNS, Made, Pass, read_real
from synfer_rt.jobs.progress import OnProgress, reporter
from synfer_rt.jobs.run_status import run_status
from synfer_rt.jobs.verify import settings_of
from synfer_rt.paths import whole_name

FORMAT, VERSION = "synfer-rt-evaluation", 1
_MOST_FAULTS = 10
_HEAD = 1 << 10
"""Bytes in which an evaluation says what it is."""


def evaluate_run(
    out: Path,
    job: EvaluationJob,
    bundle: Bundle | Path | str | None,
    opener: Opener,
    on_progress: OnProgress | None = None,
) -> tuple[dict[str, Any], str]:
    """The evaluation of the run in `out` as JSON values, and its table of images as CSV.

    Raises UserError for a run without images, networks that cannot be used or had a part in the
    run, a bundle that did not make it, and an evaluation without anything to measure.
    """
    settings = settings_of(out)
    images = RunImages(out, settings)
    size = images.size()
    maker = maker_of(settings, bundle)
    parts = None if maker is None else Parts(maker, settings)
    aligner = aligner_of(job, maker)
    some, classes = first_images(images, size), list(settings["classes"])
    networks = networks_of(job, maker, parts, some, opener, classes)
    if job.real is not None:  # before hours of work, not after them
        items = job.real.items
        numbers_of_people([one.name for one in items], [one.person for one in items], job.person)
    real_count = 0 if job.real is None else len(job.real.items)
    count = real_count + run_file.count(settings)
    report = reporter(on_progress, 0, count)
    with TemporaryDirectory(prefix="synfer-rt-", ignore_cleanup_errors=True) as folder:
        real = None
        if job.real is not None:
            reads = fitted(size, aligner)
            real = read_real(job, job.real, networks, classes, reads, Path(folder), report)
        made = Made(job, networks, settings, Path(folder) if real else None)
        made.read(images, size, lambda done: report(real_count + done))
        result = {
            "format": FORMAT,
            "version": VERSION,
            "synfer_rt": metadata.version("synfer-rt"),
            "run": _about_run(out, settings, images, made),
            "real": _about_real(job.real, real, size, aligner),
            "networks": networks.settings(parts),
            "runtime": {
                "backend": opener.backend,
                "onnxruntime": library().__version__,
            },
            "subset": {"size": job.subset, "seed": job.seed},
            **made.result(real, job.person),
        }
        result["notes"] = _notes(result, networks, maker)
        return result, made.table(real)


def check_place(file: Path) -> None:
    """Raise UserError if `file`, or the table beside it, is of something else, or not writable."""
    check_writable(file)
    table = file.with_suffix(".csv")
    known = (file, f'"format": "{FORMAT}"'), (table, ",".join(COLUMNS))
    for path, said in known:
        if path.exists() and said.encode() not in _beginning(path):
            raise UserError(f"{path} exists and is no evaluation; choose another `out`.")


def _beginning(path: Path) -> bytes:
    with disk_errors(path, resumes=False), path.open("rb") as file:
        return file.read(_HEAD)


def write_evaluation(result: Mapping[str, Any], table: str, file: Path) -> Path:
    """Write an evaluation as `file`, and its table of images beside it, whose path is returned.

    Each file is whole under its name, or not there. Raises UserError.
    """
    beside = file.with_suffix(".csv")
    text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    with disk_errors(file, resumes=False):
        for path, data in (beside, table), (file, text):
            # Files that end in .partial would count as those of the run.
            grown = path.with_name(f"{path.name}.{os.getpid()}.new")
            write_whole(path, data.encode(), grown)
    return beside


def _about_run(
    out: Path, settings: Mapping[str, Any], images: RunImages, made: Made
) -> dict[str, Any]:
    damaged = [*images.faults, *made.own.unreadable]
    return {
        "name": whole_name(out).name,
        "format": settings["format"],
        "bundle": settings.get("bundle"),
        "seed": settings.get("seed"),
        "planned": run_file.count(settings),
        "images": len(made.indices),
        "finished": run_status(out).finished,
        "originals": images.originals,
        "damaged": len(damaged),
        "faults": damaged[:_MOST_FAULTS],
    }


def _about_real(
    dataset: Dataset | None, real: Pass | None, size: tuple[int, int], aligner: Aligner | None
) -> dict[str, Any] | None:
    if dataset is None or real is None:
        return None
    return {
        "name": whole_name(dataset.path).name,
        "format": dataset.format,
        "images": len(real.names),
        "unreadable": len(real.unreadable),
        "fitted_to": list(size),
        "align": None if aligner is None else aligner.settings(),
        "faults": real.unreadable[:_MOST_FAULTS],
    }


def _notes(result: Mapping[str, Any], networks: Networks, maker: Bundle | None) -> list[str]:
    """What a reader of the figures should know, as sentences."""
    notes: list[str] = []
    run, real, found = result["run"], result["real"], result["distances"]
    if not run["finished"]:
        notes.append(f"The run is not finished: {run['images']} of {run['planned']} images count.")
    if run["damaged"]:
        first = run["faults"][0]
        notes.append(f"{run['damaged']} images or files are missing or damaged; first: {first}.")
    if run["originals"]:
        notes.append(f"{run['originals']} originals that augment kept do not count.")
    if real and real["unreadable"]:
        first = real["faults"][0]
        notes.append(f"Real images: {real['unreadable']} left out; the first: {first}.")
    features = networks.features
    if features is not None and maker is not None and features.path.is_relative_to(maker.path):
        notes.append(
            f"The features are those of {features.path.name} of the bundle; papers use other "
            "networks, so compare distances and diversity only among evaluations with this file."
        )
    if found and min(found["images"].values()) < found["dimensions"]:
        notes.append(
            f"FID is far too large with fewer images than the {found['dimensions']} dimensions of "
            "the features; compare it only at the same numbers of images, or use KID."
        )
    if unknown := not_comparable([judge.network for judge in networks.judges]):
        notes.append(
            f"Whether {', '.join(unknown)} had a part in the run was told by the file alone: it "
            "has no weights that can be compared."
        )
    return notes
