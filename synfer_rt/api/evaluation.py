"""What papers report of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from synfer_rt.backends import thread_count
from synfer_rt.bundle import Bundle
from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.working_copy import Place, opened
from synfer_rt.errors import UserError
from synfer_rt.jobs.aligning import aligning_of
from synfer_rt.jobs.evaluation.evaluate import check_place, evaluate_run, write_evaluation
from synfer_rt.jobs.evaluation.job import EvaluationJob
from synfer_rt.jobs.evaluation.networks import Opener
from synfer_rt.jobs.progress import OnProgress
from synfer_rt.jobs.reading_settings import DEFAULTS, ReadingSettings
from synfer_rt.jobs.verify import settings_of
from synfer_rt.paths import Location, is_folder, local
from synfer_rt.signatures import spelled_out
from synfer_rt.vocabulary import label_schemes

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


@spelled_out(ReadingSettings, DEFAULTS)
def evaluate(
    run: Location,
    *,
    real: Location | None = None,
    real_format: str = "auto",
    features: tuple[Location, str] | None = None,
    judges: Sequence[tuple[Location, str | Sequence[str], str]] | None = None,
    au_reader: tuple[Location, str | Sequence[str], str] | None = None,
    identity: tuple[Location, str] | None = None,
    person: str | None = None,
    bundle: Location | Bundle | None = None,
    subset: int = 10_000,
    seed: int = 0,
    out: Location | None = None,
    backend: str = "onnxruntime-cpu",
    threads: int | None = None,
    on_progress: OnProgress | None = None,
    **reading: Unpack[ReadingSettings],
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
    opener = Opener(backend, thread_count(threads))
    with opened(run, "run") as place:
        file = _evaluation_file(place, out)
        dataset = None
        if real is None:
            _refuse_reading(real_format, reading)
        else:
            classes = label_schemes.listed(settings_of(place.path)["classes"])
            where, split = local(real, "real"), reading.get("split")
            scheme = reading.get("label_scheme")
            dataset = read_dataset(where, real_format, scheme, split, target=classes)
        networks = features, judges or (), au_reader, identity
        job = EvaluationJob(dataset, *aligning_of(reading), *networks, person, subset, seed)
        result, table = evaluate_run(place.path, job, bundle, opener, on_progress)
        return Evaluation(file, write_evaluation(result, table, file), result)


def _refuse_reading(real_format: str, reading: ReadingSettings) -> None:
    """Raise UserError if it is said how real images are read, of which there are none."""
    given = {
        "real_format": None if real_format == "auto" else real_format,
        **{name: reading.get(name) for name in ("label_scheme", "split")},
    }
    for name, value in given.items():
        if value is not None:
            raise UserError(f"`{name}` is for real images; give them as `real`, or leave it out.")


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
