"""Pictures cropped so that the face has its five points where a model expects them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from synfer_rt.bundle.face_template import FaceTemplate
from synfer_rt.faces import similarity
from synfer_rt.faces.boxes import Box
from synfer_rt.faces.detection import FaceDetector
from synfer_rt.faces.finding import found_in, found_near
from synfer_rt.faces.warp import warped

if TYPE_CHECKING:
    from PIL.Image import Image

_STEP = 1 / 16
"""Points are rounded to this part of a pixel, so that the last bits of a detector's output, in
which processors differ, change no image."""

HASH, POINTS = 16, 80
"""Bytes of the hash of a picture and its box, and of the points float64 [5, 2] of its face."""


@dataclass(frozen=True)
class Aligner:
    """Aligns the face that counts by `rule`, one of `finding.RULES`, to `template`.

    `known`, if it is there, holds the points of each face that was found, by the hash of its
    picture and box, and gets those that are found; about 200 bytes for each.
    """

    detector: FaceDetector
    template: FaceTemplate
    rule: str
    known: dict[bytes, bytes] | None = field(default=None, repr=False, compare=False)

    def remembering(self, known: Mapping[bytes, bytes] | None = None) -> Aligner:
        """The same, which finds the face of each picture only once, however often it is read.

        Those that are `known` it does not find at all.
        """
        return replace(self, known=dict(known or {}))

    def __call__(self, image: Image, size: tuple[int, int], box: Box | None = None) -> Image:
        """An RGB picture's face as a picture of `size` (H, W).

        With a `box` it is the face in the box. A similarity takes the face's five points as near to
        the template's as it can. Parts outside the picture continue its edge. Raises NoFace for a
        picture without such a face.
        """
        matrix = similarity.fitted(self._points(image, box), self.template.at(size))
        return warped(image, similarity.inverse(matrix), size)

    def _points(self, image: Image, box: Box | None) -> np.ndarray:
        """The five points float64 [5, 2] of a face, as they are known or found."""
        if self.known is None:
            return self._found(image, box)
        key = _key(image, box)
        if key not in self.known:
            self.known[key] = self._found(image, box).tobytes()
        return np.frombuffer(self.known[key]).reshape(5, 2)

    def _found(self, image: Image, box: Box | None) -> np.ndarray:
        if box is None:
            face = found_in(image, self.detector, self.rule)
        else:
            face = found_near(image, self.detector, box)
        return np.round(face.points / _STEP) * _STEP

    def settings(self) -> dict[str, Any]:
        """What decides the aligned images, as JSON values."""
        return {
            "face": self.rule,
            "detector": self.detector.sha256,
            "template": [list(point) for point in self.template.points],
        }


def _key(image: Image, box: Box | None) -> bytes:
    """A hash of an RGB picture and of the box that holds its face."""
    whole = hashlib.sha256(repr((image.size, box)).encode())
    whole.update(image.tobytes())
    return whole.digest()[:HASH]
