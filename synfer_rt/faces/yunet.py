"""YuNet (Wu et al. 2023, Machine Intelligence Research 20), a detector that users may name.

For each square of 8, 16 and 32 pixels the network says whether a face is there, its box and its
five points. A file of that form has the input `input` float32 [1, 3, H, W], which is BGR from 0 to
255, and for each stride s the outputs `cls_s` and `obj_s` [1, N, 1] (probabilities), `bbox_s`
[1, N, 4] and `kps_s` [1, N, 10], with a row for each square, line by line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from synfer_rt.errors import UserError
from synfer_rt.faces.detection import LARGEST, Face, in_picture, open_network
from synfer_rt.faces.warp import warped

if TYPE_CHECKING:
    from PIL.Image import Image

_STRIDES = (8, 16, 32)
_OUTPUTS = tuple(f"{kind}_{s}" for kind in ("cls", "obj", "bbox", "kps") for s in _STRIDES)
_CONFIDENCE = 0.6
"""The least confidence of a face."""


class Yunet:
    """The detector in an ONNX file. See `detection.FaceDetector`.

    Raises UserError if the file cannot be loaded or has another form.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._session = open_network(file)
        self.sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        inputs = self._session.get_inputs()
        outputs = {node.name for node in self._session.get_outputs()}
        if len(inputs) != 1 or not outputs.issuperset(_OUTPUTS):
            raise UserError(
                f"The face detector {file} has not the outputs of YuNet ({', '.join(_OUTPUTS)}); "
                "name a file of OpenCV's face_detection_yunet with `face_detector`."
            )
        self._input = inputs[0].name
        sides = [side for side in inputs[0].shape[2:] if isinstance(side, int)]
        if sides and (len({*sides}) > 1 or sides[0] < LARGEST):
            raise UserError(
                f"The face detector {file} is made for images of {sides[0]} pixels; name one for "
                f"{LARGEST} pixels or for any size with `face_detector`."
            )
        self._fixed = sides[0] if sides else None

    def __reduce__(self) -> tuple[type[Yunet], tuple[Path]]:
        return Yunet, (self._file,)  # sessions do not travel to other processes

    def faces(self, image: Image, matrix: np.ndarray, side: int) -> list[Face]:
        """See `FaceDetector.faces`."""
        seen = warped(image, matrix, (side, side))
        pixels = np.asarray(seen)[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32)
        beside = 0 if self._fixed is None else self._fixed - side
        pixels = np.pad(pixels, [(0, 0), (0, 0), (0, beside), (0, beside)], "edge")
        values = self._session.run(list(_OUTPUTS), {self._input: np.ascontiguousarray(pixels)})
        named = {name: array[0] for name, array in zip(_OUTPUTS, values, strict=True)}
        return in_picture(*_decoded(named, pixels.shape[3]), matrix)


def _decoded(values: Mapping[str, np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows and points of `in_picture` of the squares in which a face is.

    The confidence is the geometric mean of both probabilities, as in OpenCV's FaceDetectorYN.
    """
    rows: list[np.ndarray] = []
    for stride in _STRIDES:
        classes, objects, boxes, points = (
            values[f"{kind}_{stride}"].astype(np.float64) for kind in ("cls", "obj", "bbox", "kps")
        )
        confidence = np.sqrt(np.clip(classes, 0, 1) * np.clip(objects, 0, 1))
        kept = np.flatnonzero(confidence[:, 0] >= _CONFIDENCE)
        square = np.column_stack([kept % (width // stride), kept // (width // stride)])
        centres = (boxes[kept, :2] + square) * stride
        with np.errstate(over="ignore"):  # what is not finite is left out
            sizes = np.exp(boxes[kept, 2:]) * stride
        landmarks = (points[kept] + np.tile(square, 5)) * stride
        rows.append(np.hstack([confidence[kept], centres, sizes, landmarks]))
    found = np.concatenate(rows)
    return found[:, :5], found[:, 5:].reshape(-1, 5, 2)
