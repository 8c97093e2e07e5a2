"""The file of a calibration: JSON that names the bundle and the annotators that it is for.

format        1
bundle        name, hash
label_scheme  the bundle's
annotators    by name: sha256 of the engine, temperature, images that it was fitted on
vote          temperature, images
scores        by class: probabilities of the true class in images of that class, rising
data          format, digest and number of images of the dataset, how its faces were aligned;
              log_loss before and after
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from synfer_rt.bundle import Bundle
from synfer_rt.data.datasets import Dataset
from synfer_rt.data.writers.atomic import check_writable, disk_errors, write_whole
from synfer_rt.errors import UserError
from synfer_rt.faces.alignment import Aligner
from synfer_rt.judging.calibration import Calibrated, Calibration, images_needed
from synfer_rt.judging.fitting import Fitted
from synfer_rt.judging.temperature import LARGEST
from synfer_rt.paths import local

LOG = logging.getLogger(__name__)
FORMAT = 1
COVERAGE = 0.9
"""The coverage of label sets, unless another is given."""
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


def check_place(path: Path) -> None:
    """Raise UserError if something is there that is no calibration, or none can be written."""
    try:
        known = not path.exists() or "temperature" in json.loads(path.read_bytes())["vote"]
    except (OSError, *_UNREADABLE):
        known = False
    if not known:
        raise UserError(f"{path} exists and is no calibration; choose another `out`.")
    check_writable(path)


def write_calibration(
    path: Path, bundle: Bundle, fitted: Fitted, dataset: Dataset, aligner: Aligner | None
) -> None:
    """Write what was fitted for `bundle` on `dataset`, as `aligner` aligned it if there is one."""
    found = fitted.calibration
    annotators = {
        name: {
            "sha256": sha256,
            "temperature": found.temperatures[name],
            "images": fitted.images[name],
        }
        for name, sha256 in _engines(bundle).items()
    }
    before, after = (round(loss, 6) for loss in fitted.losses)
    fields = {
        "format": FORMAT,
        "bundle": {"name": bundle.name, "hash": bundle.bundle_hash},
        "label_scheme": bundle.label_scheme,
        "annotators": annotators,
        "vote": {"temperature": found.vote, "images": fitted.fitted},
        "scores": {name: list(scores) for name, scores in found.scores.items()},
        "data": {
            "format": dataset.format,
            "sha256": dataset.digest,
            "images": len(dataset.items),
            "align": None if aligner is None else aligner.settings(),
            "log_loss": {"before": before, "after": after},
        },
    }
    with disk_errors(path, resumes=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(fields, ensure_ascii=False).encode() + b"\n")


def read_calibration(path: object, bundle: Bundle) -> tuple[Calibration, str]:
    """The calibration in a file, and the file's SHA-256.

    Raises UserError for a file that cannot be read, or that is for another bundle or annotators.
    """
    file = local(path, "calibration")
    try:
        text = file.read_bytes()
        fields = json.loads(text)
        if fields["format"] != FORMAT:
            raise ValueError(f"its format is {fields['format']!r}, not {FORMAT}")
        name, made_for = str(fields["bundle"]["name"]), str(fields["bundle"]["hash"])
        engines = fields["annotators"]
        hashes = {name: entry["sha256"] for name, entry in engines.items()}
        temperatures = {name: _temperature(entry) for name, entry in engines.items()}
        vote = _temperature(fields["vote"])
        scores = {name: _rising(found) for name, found in fields["scores"].items()}
    except OSError as error:
        raise UserError(
            f"The calibration {file} cannot be read ({error.strerror}); make one with `synfer-rt "
            "calibrate`."
        ) from None
    except _UNREADABLE as error:
        raise UserError(
            f"{file} is no calibration that can be read ({error}); make it again with `synfer-rt "
            "calibrate`."
        ) from None
    same = made_for == bundle.bundle_hash and hashes == _engines(bundle)
    if not same or scores.keys() != set(bundle.classes):
        raise UserError(
            f"{file} is the calibration of {name} ({made_for[:12]}), "
            f"not of {bundle.name} ({bundle.bundle_hash[:12]}); make one for this bundle with "
            "`synfer-rt calibrate`."
        )
    return Calibration(temperatures, vote, scores), hashlib.sha256(text).hexdigest()


def calibrated_at(path: object, coverage: float | None, bundle: Bundle) -> Calibrated | None:
    """The calibration in the file `path` at a coverage; None without a file.

    Warns of classes that have too few images for the coverage. Raises UserError for a coverage
    without a file, or outside its range, and as `read_calibration`.
    """
    if path is None:
        if coverage is not None:
            raise UserError("`coverage` needs a `calibration`; add one, or leave out `coverage`.")
        return None
    calibration, digest = read_calibration(path, bundle)
    calibrated = calibration.at(COVERAGE if coverage is None else coverage, digest)
    warn_of_too_few(calibration, calibrated.coverage)
    return calibrated


def warn_of_too_few(calibration: Calibration, coverage: float) -> None:
    """Warn of classes that are in every label set, because they had too few images."""
    if few := calibration.too_few(coverage):
        told = ", ".join(f"{name} {count}" for name, count in few.items())
        LOG.warning(
            f"Label sets of coverage {coverage:g} need {images_needed(coverage)} images of a class "
            f"to leave it out; these had fewer, and are in every set: {told}."
        )


def settings_of(calibrated: Calibrated) -> dict[str, Any]:
    """A calibration as the settings of a run hold it, as JSON values."""
    return {
        "sha256": calibrated.digest,
        "coverage": calibrated.coverage,
        "temperatures": dict(calibrated.temperatures),
        "vote": calibrated.vote,
        "thresholds": dict(calibrated.thresholds),
    }


def of_settings(fields: Mapping[str, Any]) -> Calibrated:
    """The calibration that `settings_of` made these settings of."""
    temperatures = {name: float(value) for name, value in fields["temperatures"].items()}
    thresholds = {name: float(value) for name, value in fields["thresholds"].items()}
    vote, digest = float(fields["vote"]), str(fields["sha256"])
    return Calibrated(float(fields["coverage"]), temperatures, vote, thresholds, digest)


def _engines(bundle: Bundle) -> dict[str, str]:
    """The SHA-256 of each annotator's engine, by the annotator's name."""
    files: Mapping[str, Any] = bundle.manifest["files"]
    return {
        head.annotator: str(files[bundle.engines[engine].file]["sha256"])
        for engine, head in bundle.heads
    }


def _temperature(fields: Mapping[str, Any]) -> float:
    value = float(fields["temperature"])
    if not 1 / LARGEST <= value <= LARGEST:
        raise ValueError(f"its temperature {value:g} is not from {1 / LARGEST:g} to {LARGEST:g}")
    return value


def _rising(found: Any) -> tuple[float, ...]:
    scores = tuple(map(float, cast("list[Any]", found)))
    if not all(math.isfinite(p) and 0 <= p <= 1 for p in scores) or list(scores) != sorted(scores):
        raise ValueError("its scores are no probabilities in rising order")
    return scores
