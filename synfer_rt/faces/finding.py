"""The face of a picture: found at any size and angle, and chosen among several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from synfer_rt.bundle.face_template import ARCFACE
from synfer_rt.errors import UserError
from synfer_rt.faces import similarity
from synfer_rt.faces.boxes import Box
from synfer_rt.faces.detection import SAME, Face, FaceDetector, distinct

if TYPE_CHECKING:
    from PIL.Image import Image

RULES = ("largest", "centre", "only")
"""Which face counts: that of the largest box, that whose box is nearest to the picture's centre, or
the only one, so that pictures of several are refused."""
_WHOLE = ((640, 512), (256, 160))
"""How large the detector sees a picture: the side of the square, and of the picture in it.

Detectors find faces of about 20 to 300 pixels. In the larger square a face may be a thirtieth of
the picture, in the smaller one it may fill it. The margin surrounds a tight crop.
"""
_CLOSE = 256, 128
"""The side of the square in which a face is looked at again, and of ArcFace's frame in it."""
_AROUND = 2.0
"""How much larger than a given box the part is in which its face is searched."""


class NoFace(UserError):
    """A picture without a face, or without the one that is asked for."""


def faces_in(image: Image, detector: FaceDetector) -> list[Face]:
    """Every face in an RGB picture, the most confident first."""
    found: list[Face] = []
    for side, part in _WHOLE:
        middle = Box(0, 0, image.width, image.height).centre
        factor = max(image.size) / part
        matrix = similarity.placed(middle, factor, (side / 2, side / 2))
        found += detector.faces(image, matrix, side)
    return distinct(face for face in found if _has(image, face))


def chosen(faces: Sequence[Face], rule: str, size: tuple[int, int]) -> Face:
    """The face of a picture of `size` (H, W) that counts by one of RULES.

    Of equal ones it is the first. Raises NoFace for none, and for several where the rule is "only".
    """
    if not faces:
        raise NoFace("It shows no face; leave it out, or read it without `align`.")
    if rule == "only" and len(faces) > 1:
        raise NoFace(
            f"It shows {len(faces)} faces, not only one; leave it out, or choose the largest face "
            "or that in the centre with `face`."
        )
    if rule == "centre":
        height, width = size
        return min(faces, key=lambda face: math.dist(face.box.centre, (width / 2, height / 2)))
    return max(faces, key=lambda face: face.box.area)


def found_in(image: Image, detector: FaceDetector, rule: str) -> Face:
    """The face of an RGB picture that counts by one of RULES. Raises NoFace as `chosen`."""
    faces = faces_in(image, detector)
    return refined(image, detector, chosen(faces, rule, (image.height, image.width)))


def found_near(image: Image, detector: FaceDetector, box: Box) -> Face:
    """The face in a box of an RGB picture: that which overlaps most with it.

    Raises NoFace if no face has its centre in the box.
    """
    side, _ = _CLOSE
    factor = _AROUND * max(box.width, box.height) / side
    matrix = similarity.placed(box.centre, factor, (side / 2, side / 2))
    faces = [
        face
        for face in detector.faces(image, matrix, side)
        if _has(image, face) and box.holds(face.box.centre)
    ]
    if not faces:
        raise NoFace("It shows no face in its box; leave it out, or read it without `align`.")
    return refined(image, detector, max(faces, key=lambda face: face.box.overlap(box)))


def refined(image: Image, detector: FaceDetector, face: Face) -> Face:
    """The face as the detector sees it upright and at a size that it sees well.

    Small and rotated faces have their points in the wrong places at first. A face that is not seen
    again is returned as it is.
    """
    side, frame = _CLOSE
    upright = ARCFACE.at((frame, frame)) + (side - frame) / 2
    matrix = similarity.inverse(similarity.fitted(face.points, upright))
    again = detector.faces(image, matrix, side)
    best = max(again, key=lambda other: face.box.overlap(other.box), default=face)
    return best if face.box.overlap(best.box) > SAME else face


def _has(image: Image, face: Face) -> bool:
    """Whether the middle of a face is in the picture, and not beside it."""
    return Box(0, 0, image.width, image.height).holds(face.box.centre)
