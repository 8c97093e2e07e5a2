"""The alignment of a job's images: what its settings ask for, and a warning where none is asked."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synfer_rt import ranges
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.face_template import FaceTemplate
from synfer_rt.bundle.sizes import Size
from synfer_rt.data import pixels
from synfer_rt.data.datasets.items import Item, load
from synfer_rt.errors import UserError
from synfer_rt.faces import weights
from synfer_rt.faces.alignment import Aligner
from synfer_rt.faces.detection import FaceDetector
from synfer_rt.faces.finding import RULES, chosen, faces_in
from synfer_rt.paths import Location, local

LOG = logging.getLogger(__name__)
OF_ALIGNING = ("face", "face_detector")
"""The settings that need `align`."""
_LOOKED_AT = 8
"""Images that are looked at to find out whether they are aligned."""
_SEEN_AT = 256
"""The larger side in pixels at which they are looked at."""
_OFF = 0.3
"""Mean distance of the points from the template's, in distances of its eyes, from which on a face
is not aligned. That of synfer-mini's own images is about 0.15, for faces differ in shape."""


def aligner_for(
    bundle: Bundle, align: bool, face: str | None, face_detector: Location | None
) -> Aligner | None:
    """What aligns a job's images as a bundle's model expects them; see `aligner_to`."""
    return aligner_to(bundle.face_template, align, face, face_detector)


def aligner_to(
    template: FaceTemplate, align: bool, face: str | None, face_detector: Location | None
) -> Aligner | None:
    """What aligns a job's images to `template`; None without `align`.

    `face` is one of RULES, by default the first. `face_detector` is a file of YuNet's form, by
    default the installed one. Raises UserError for values that do not fit, for a file that is no
    such detector, and where none is installed.
    """
    if not ranges.flag("align", align):
        for name, value in zip(OF_ALIGNING, (face, face_detector), strict=True):
            if value is not None:
                raise UserError(f"`{name}` needs `align`; add `align=True`, or leave out `{name}`.")
        return None
    if face is not None and face not in RULES:
        raise UserError(f"`face` must be one of {', '.join(RULES)}, got {face!r}.")
    given = None if face_detector is None else local(face_detector, "face_detector")
    return Aligner(weights.detector(given), template, face or RULES[0])


def aligner_of(settings: Mapping[str, Any], bundle: Bundle) -> Aligner | None:
    """What aligns images as `ReadingSettings` says; see `aligner_for`."""
    return aligner_for(bundle, *aligning_of(settings))


def aligning_of(settings: Mapping[str, Any]) -> tuple[bool, str | None, Location | None]:
    """`align`, `face` and `face_detector` of `ReadingSettings`, where None is the default."""
    align = settings.get("align")
    return False if align is None else align, settings.get("face"), settings.get("face_detector")


def warn_of_unaligned(items: Sequence[Item], bundle: Bundle) -> None:
    """Warn if most faces of some images do not lie where a bundle says that it expects them."""
    if "face_template" in bundle.manifest:
        warn_of_faces_elsewhere(items, bundle.name, bundle.image_size, bundle.face_template)


def warn_of_faces_elsewhere(
    items: Sequence[Item], model: str, size: Size, template: FaceTemplate
) -> None:
    """Warn if most faces of some images do not lie where `model` expects them, by `template`.

    `size` is that of the model's images. It is found out where the detector is installed, by a few
    images from first to last. Those that cannot be read and those without a face are passed over.
    """
    detector = weights.installed()
    if detector is None:
        return
    some = items[:: -(-len(items) // _LOOKED_AT) or 1]
    found = (_off(item, size, template, detector) for item in some)
    off = [distance for distance in found if distance is not None]
    wrong = sum(distance > _OFF for distance in off)
    if 2 * wrong > len(off):
        LOG.warning(
            f"{wrong} of {len(off)} faces that were looked at do not lie where {model} expects "
            "them; align them with `align`."
        )


def _off(
    item: Item, model_size: Size, template: FaceTemplate, detector: FaceDetector
) -> float | None:
    """How far an image's largest face is from the template, in distances of its eyes."""
    from PIL import Image

    factor = _SEEN_AT / max(model_size)
    size = round(model_size[0] * factor), round(model_size[1] * factor)
    image = load(item, size)
    if isinstance(image, str):
        return None
    faces = faces_in(Image.fromarray(pixels.in_8_bits(image[None])[0]), detector)
    if not faces:
        return None
    expected = template.at(size)
    eyes = np.linalg.norm(expected[1] - expected[0])
    apart = np.linalg.norm(chosen(faces, RULES[0], size).points - expected, axis=1)
    return float(apart.mean() / eyes)
