"""What a face detector is, and what it finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from synfer_rt.backends.sessions import open_session
from synfer_rt.errors import UserError
from synfer_rt.faces import similarity
from synfer_rt.faces.boxes import Box

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 640
"""The largest side of a square that a detector is shown."""
SAME = 0.3
"""Boxes that overlap more are one face."""


@dataclass(frozen=True)
class Face:
    """A face in a picture: its box, its five points (x, y) float64 [5, 2], and the confidence.

    The points are those of `face_template.POINTS`, in pixels from the upper left corner.
    """

    box: Box
    points: np.ndarray
    confidence: float


class FaceDetector(Protocol):
    """A network or several that find faces; several threads may call it at once.

    `sha256` is a hash of all that decides what it finds.
    """

    sha256: str

    def faces(self, image: Image, matrix: np.ndarray, side: int) -> list[Face]:
        """The faces in a part of an RGB picture, the most confident first, in its own pixels.

        `matrix` takes pixels of a square of `side` to those of the picture; the detector sees that
        square. `side` is a multiple of 32, at most LARGEST.
        """
        ...


def distinct(found: Iterable[Face]) -> list[Face]:
    """The faces, the most confident first, each once."""
    faces: list[Face] = []
    for face in sorted(found, key=lambda face: -face.confidence):
        if all(face.box.overlap(other.box) <= SAME for other in faces):
            faces.append(face)
    return faces


def in_picture(rows: np.ndarray, points: np.ndarray, matrix: np.ndarray) -> list[Face]:
    """The faces of a square, where `matrix` takes them, each once.

    `rows` float64 [N, 5] are confidences, then centres and sizes of boxes, and `points`
    float64 [N, 5, 2], both in the square's pixels. Boxes keep their shape. Rows that are not finite
    or have all points in one place are left out.
    """
    usable = np.isfinite(rows).all(1) & np.isfinite(points).all((1, 2))
    usable &= (np.ptp(points, 1) > 0).any(1)
    grown = similarity.scale(matrix)
    faces: list[Face] = []
    for (confidence, *middle, width, height), five in zip(
        rows[usable].tolist(), points[usable], strict=True
    ):
        x, y = similarity.moved(matrix, np.array([middle]))[0].tolist()
        size = width * grown, height * grown
        box = Box(x - size[0] / 2, y - size[1] / 2, *size)
        faces.append(Face(box, similarity.moved(matrix, five), confidence))
    return distinct(faces)


def open_network(file: Path) -> Any:
    """A session of one thread. Raises UserError if the file cannot be read or loaded."""
    try:
        file.open("rb").close()
        return open_session(file, "onnxruntime-cpu", 1)
    except OSError as error:
        raise UserError(
            f"The face detector {file} cannot be read ({error.strerror}); name another file with "
            "`face_detector`."
        ) from None
    except Exception as error:  # the runtime's exceptions share no base class but this
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(
            f"The face detector {file} cannot be loaded ({reason}); name a file of YuNet with "
            "`face_detector`."
        ) from None
