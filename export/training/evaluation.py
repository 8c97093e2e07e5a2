"""What a trained network is worth on held-out images, beside its weights and in sentences.

evaluation.json has the figures, held-out.jsonl a line for each held-out image (and noise level), so
that anybody can count again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt.data.writers.atomic import write_whole
from synfer_rt.export.files.json_files import read_json
from synfer_rt.export.training.cache import writing
from synfer_rt.export.training.calibration import BINS, calibration_error, scores
from synfer_rt.export.training.faces import Faces
from synfer_rt.judging import temperature as temperatures
from synfer_rt.judging.temperature import fitted_temperature, softmax
from synfer_rt.vocabulary import label_schemes

FILE, LINES = "evaluation.json", "held-out.jsonl"
_DIGITS = 6
_BY = {
    "val": "images of the split val",
    "test": "images of the split test",
    "persons": "images of persons",
    "images": "images",
}


@dataclass(frozen=True)
class Evaluation:
    """A trained network in `folder`, and its `figures` on held-out images as evaluation.json."""

    folder: Path
    figures: Mapping[str, Any]

    def sentences(self) -> list[str]:
        """The figures in words, a line each."""
        figures, said = self.figures, list[str]()
        by = f"{figures['held_out']} {_BY[figures['held_out_by']]} held out"
        for part in figures.get("levels", [figures]):
            where = f", noise of {part['level']:.2f} of the schedule" if "level" in part else ""
            low, high = part["accuracy_interval"]
            mean = part["balanced_accuracy"]
            said.append(
                f"held-out accuracy {part['accuracy']:.3f} (95 % interval {low:.3f} to "
                f"{high:.3f}), mean over the classes {mean:.3f}, on {by}{where}"
            )
            said.append(_calibration(part["calibration"]))
        recall = figures.get("levels", [figures])[0]["recall"]
        said.append(", ".join(f"{name} {share:.2f}" for name, share in recall.items()))
        return said


def _calibration(found: Mapping[str, Any]) -> str:
    said = f"expected calibration error ({found['bins']} bins) {found['ece']:.3f}"
    on = f"on {found['measured_on']} images"
    if found["fitted_on"]:
        before = found["ece_without_temperature"]
        fitted = f"temperature {found['temperature']:.2f} fitted on {found['fitted_on']} others"
        return f"{said} {on}; {fitted}, without it {before:.3f}"
    return f"{said} {on}, without a temperature"


def temperature_of(logits: np.ndarray, faces: Faces) -> float | None:
    """The temperature that fits the half of the held-out images for it; None if they are few."""
    if faces.fitting.sum() < temperatures.FEWEST or faces.fitting.all():
        return None
    return fitted_temperature(logits[faces.fitting], _truth(faces)[faces.fitting])


def measured(logits: np.ndarray, faces: Faces, temperature: float | None) -> dict[str, Any]:
    """Accuracy and calibration of held-out logits [n, classes], as JSON.

    The accuracy is that of all held-out images. The calibration error is that of the half on which
    no temperature was fitted, or of all of them without a temperature.
    """
    truth, names = _truth(faces), label_schemes.scheme(faces.scheme)
    rest = np.ones(len(truth), bool) if temperature is None else ~faces.fitting
    calibration: dict[str, Any] = {
        "measure": "expected calibration error, bins of equal width",
        "bins": BINS,
        "temperature": temperature or 1.0,
        "fitted_on": int((~rest).sum()),
        "measured_on": int(rest.sum()),
        "ece": round(
            calibration_error(softmax(logits / (temperature or 1.0))[rest], truth[rest]), _DIGITS
        ),
    }
    if temperature is not None:
        before = calibration_error(softmax(logits)[rest], truth[rest])
        calibration["ece_without_temperature"] = round(before, _DIGITS)
    return {**scores(softmax(logits), truth, names), "calibration": calibration}


def figures_of(faces: Faces, trained_on: int, epochs: int, **found: Any) -> dict[str, Any]:
    """The content of evaluation.json: what was trained on what, and what was `found`."""
    return {
        "label_scheme": faces.scheme,
        "epochs": epochs,
        "trained_on": trained_on,
        "held_out": len(faces.held),
        "held_out_by": faces.by,
        **found,
    }


def lines_of(
    logits: np.ndarray, faces: Faces, temperature: float | None, **more: Any
) -> list[dict[str, Any]]:
    """A line of held-out.jsonl for each held-out image; `more` fields are the same in all."""
    names = label_schemes.scheme(faces.scheme)
    return [
        {
            "file_name": faces.names[row],
            "label": names[faces.classes[row]],
            **more,
            "fitted": bool(fitted) and temperature is not None,
            "probabilities": dict(zip(names, np.round(given, _DIGITS).tolist(), strict=True)),
        }
        for row, given, fitted in zip(
            faces.held, softmax(logits / (temperature or 1.0)), faces.fitting, strict=True
        )
    ]


def write(
    folder: Path, figures: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]
) -> Evaluation:
    """Write the figures and the lines into `folder`. Raises UserError where that fails."""
    content = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
    with writing(folder):
        write_whole(folder / LINES, content.encode())
        write_whole(folder / FILE, (json.dumps(figures, indent=2) + "\n").encode())
    return Evaluation(folder, figures)


def finished(folder: Path, epochs: int) -> Evaluation | None:
    """The evaluation in `folder` after so many epochs, if it is there."""
    if not (folder / FILE).is_file():
        return None
    figures = read_json(folder / FILE, "remove it, and run the same again")
    return Evaluation(folder, figures) if figures.get("epochs") == epochs else None


def _truth(faces: Faces) -> np.ndarray:
    return faces.classes[faces.held]
