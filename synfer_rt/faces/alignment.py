"""Pictures cropped so that the face has its five points where a model expects them."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Aligner:
    """Aligns the face that counts by `rule`, one of `finding.RULES`, to `template`."""

    detector: FaceDetector
    template: FaceTemplate
    rule: str

    def __call__(self, image: Image, size: tuple[int, int], box: Box | None = None) -> Image:
        """An RGB picture's face as a picture of `size` (H, W).

        With a `box` it is the face in the box. A similarity takes the face's five points as near to
        the template's as it can. Parts outside the picture continue its edge. Raises NoFace for a
        picture without such a face.
        """
        if box is None:
            face = found_in(image, self.detector, self.rule)
        else:
            face = found_near(image, self.detector, box)
        points = np.round(face.points / _STEP) * _STEP
        matrix = similarity.fitted(points, self.template.at(size))
        return warped(image, similarity.inverse(matrix), size)

    def settings(self) -> dict[str, Any]:
        """What decides the aligned images, as JSON values."""
        return {
            "face": self.rule,
            "detector": self.detector.sha256,
            "template": [list(point) for point in self.template.points],
        }
