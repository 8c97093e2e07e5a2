"""An ONNX network that reads action units from images, as the engine `au-reader`.

A checkpoint holds it as au_reader.onnx, beside it au_reader.json:

    au_vocabulary   a key of facs.VOCABULARIES or a list of names, in the order of the scores; "-"
                    is a score that is not an action unit
    input_size, channels, mean, std    of its images, as for a classifier
    output          "logits" (before a sigmoid) or "intensities" (in [0, 1])
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import helper

from synfer_rt.errors import UserError
from synfer_rt.export.files.au_vocabulary import au_names
from synfer_rt.export.files.json_files import check_fields
from synfer_rt.export.networks.image_network import INPUT_FIELDS, Ending, ImageNetwork

_NO_UNIT = "-"
_OFF = 0.01
"""How far rounding may put intensities outside [0, 1]."""


@dataclass(frozen=True)
class AUReaderSource(ImageNetwork):
    """An ONNX AU reader: `units` are its own in their order, `wanted` those of the model."""

    KIND = "AU reader"
    OUTPUTS = ("logits", "intensities")
    INPUT_REMEDY = "correct the JSON file beside it"
    OUTPUT_NAME = "write output_name in the JSON file beside it"

    units: tuple[str, ...] = field(kw_only=True)
    wanted: tuple[str, ...] = field(kw_only=True)

    @property
    def columns(self) -> list[int]:
        """The indices of the model's units among its own."""
        return [self.units.index(name) for name in self.wanted]

    def ending(self) -> Ending:
        """Sigmoid, unless the scores are intensities; then the model's units."""
        op = "Sigmoid" if self.output == "logits" else "Identity"
        nodes = [
            helper.make_node(op, ["scores"], ["intensities"], "intensities"),
            helper.make_node("Gather", ["intensities", "columns"], ["aus"], "aus", axis=1),
        ]
        columns = {"columns": np.array(self.columns, np.int64)}
        count = len(self.units)
        return Ending("aus", "outputs", "its description", count, len(self.wanted), nodes, columns)

    def finish(self, scores: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Intensities of the model's units."""
        intensities = scores.sigmoid() if self.output == "logits" else scores
        return (intensities[:, self.columns],)

    def count_remedy(self, found: int) -> str:
        """What to do if the file has `found` scores and its vocabulary another number."""
        return "correct its au_vocabulary, with - for each score that is not an action unit"

    def doubt(self, scores: np.ndarray) -> str | None:
        """Whether intensities are outside [0, 1]."""
        scores = scores[:, [i for i, name in enumerate(self.units) if name != _NO_UNIT]]
        if self.output == "logits" or ((scores >= -_OFF).all() and (scores <= 1 + _OFF).all()):
            return None
        remedy = "describe its output as logits"
        if scores.min() >= 0:
            remedy = "divide by the largest intensity in the network"
        return (
            f"is described as giving intensities, but its scores, {scores.min():.3g} to "
            f"{scores.max():.3g}, are not all in [0, 1]; {remedy}"
        )


def read_au_reader(path: Path, wanted: tuple[str, ...]) -> AUReaderSource:
    """The AU reader `path` for a model of the units `wanted`, described by its JSON file.

    Raises UserError if that file is missing or wrong, for a model without AUs, and for a reader
    that does not read each of the model's AUs.
    """
    file = path.with_suffix(".json")
    try:
        fields = json.loads(file.read_bytes())
        check_fields(file, fields, ("au_vocabulary", *INPUT_FIELDS))
        known = _vocabulary(file, fields["au_vocabulary"])
        source = AUReaderSource(
            path.stem, path, **AUReaderSource.input_fields(fields), units=known, wanted=wanted
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{file} does not describe {path.name} ({type(error).__name__}: {error}); it needs "
            "au_vocabulary, input_size, mean and std."
        ) from None
    if not wanted:
        raise UserError(f"The model has no action units for {path} to read; remove the file.")
    missing = [name for name in wanted if name not in known]
    if missing:
        raise UserError(
            f"{path} does not read {', '.join(missing)}, which the model has; give an AU reader "
            "that does, or remove the file."
        )
    return source


def _vocabulary(file: Path, given: Any) -> tuple[str, ...]:
    """The names of the scores in `given`, _NO_UNIT among them."""
    if not isinstance(given, list):
        return au_names(file, given)
    names = iter(au_names(file, [name for name in given if name != _NO_UNIT]))
    return tuple(_NO_UNIT if name == _NO_UNIT else next(names) for name in given)
