"""From a render's annotations to the sentence that a user would have typed for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

import numpy as np

from reference.faces.appearance import HAIR_COLORS
from synfer_rt.vocabulary import label_schemes, prompts
from synfer_rt.vocabulary.described_people import OF_A_PERSON

_CLASSES = label_schemes.scheme("affectnet-8")
_CLAUSES = [f.name for f in fields(prompts.Attributes) if f.name not in ("age", "gender")]


BANDS = OF_A_PERSON
_AGE_EDGES = (0.12, 0.20, 0.45, 0.53, 0.72, 0.75)
"""The end of each band of age and the beginning of the next; what lies between has no word."""


def bands(annotations: Mapping[str, np.ndarray]) -> np.ndarray:
    """Indices into each of BANDS, int64 [..., 3], of rows of annotations or of one row.

    An age of -1 is between two bands and an ancestry of -1 is mixed: captions leave both out,
    because no word would be right.
    """
    passed = np.searchsorted(_AGE_EDGES, np.asarray(annotations["age"], float))
    age = np.where(passed % 2, -1, passed // 2)
    gender = np.asarray(annotations["gender"]) > 0.5
    weights = np.asarray(annotations["ancestry"])
    ancestry = np.where(weights.max(-1) > 0.6, weights.argmax(-1), -1)
    return np.stack([age, gender, ancestry], -1).astype(np.int64)


def attributes(row: Mapping[str, np.ndarray]) -> prompts.Attributes:
    """The words for one row of annotations; mirrored rows must have been mirrored before."""
    age, gender, ancestry = bands(row).tolist()
    style = prompts.HAIR_STYLES[int(row["hair_style"])]
    closed = float(row["eye_closure"])
    azimuth, _, strength, ambient = (float(v) for v in row["light"])
    yaw = float(row["pose"][0])
    if abs(azimuth) > 0.7:
        light = "light from the right" if azimuth > 0 else "light from the left"
    elif strength + 2 * ambient < 1.75:
        light = "dim light"
    else:
        light = "bright light" if strength + 2 * ambient > 2.4 else ""
    background = float(row["background"])
    return prompts.Attributes(
        "" if age < 0 else prompts.AGES[age],
        prompts.GENDERS[gender],
        "" if ancestry < 0 else prompts.ANCESTRIES[ancestry],
        prompts.hair_phrase(style, HAIR_COLORS[int(row["hair_color"])]),
        "beard" if row["beard"] > 0.4 else "stubble" if row["beard"] > 0.05 else "",
        "closed eyes" if closed > 0.7 else "half-closed eyes" if closed > 0.3 else "",
        "" if abs(yaw) < 0.12 else "head turned right" if yaw > 0 else "head turned left",
        light,
        "dark background" if background < 0.3 else "bright background" if background > 0.65 else "",
    )


def mirrored(face: prompts.Attributes) -> prompts.Attributes:
    """The same words for the mirrored image."""

    def swap(phrase: str) -> str:
        if "left" in phrase:
            return phrase.replace("left", "right")
        return phrase.replace("right", "left") if " right" in phrase else phrase

    return replace(face, pose=swap(face.pose), light=swap(face.light))


def caption(
    face: prompts.Attributes,
    label: int,
    uniforms: np.ndarray,
    silence: float = 0.25,
    always_named: bool = False,
) -> str:
    """A training sentence: each clause is left out with probability `silence`.

    So the model also learns short prompts, and AUs occur without the word that implies them,
    unless the expression is `always_named`. A face with random AUs (label -1) has none to name.
    `uniforms` are 12 numbers in [0, 1).
    """
    quiet = {name: "" for name, u in zip(_CLAUSES, uniforms[4:], strict=False) if u < silence}
    named = label >= 0 and (always_named or uniforms[3] >= silence)
    expression = _CLASSES[label] if named else None
    return prompts.describe(replace(face, **quiet), expression, uniforms[:3].tolist())
