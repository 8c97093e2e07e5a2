"""From a render's annotations to the sentence that a user would have typed for it."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from reference.faces.appearance import HAIR_COLORS
from synfer_rt import labels, prompts

_CLASSES = labels.scheme("affectnet-8")
_CLAUSES = [f.name for f in fields(prompts.Attributes) if f.name not in ("age", "gender")]


def attributes(row: dict[str, np.ndarray]) -> prompts.Attributes:
    """The words for one row of annotations; mirrored rows must have been mirrored before."""
    age = prompts.AGES[int(np.searchsorted((0.19, 0.45, 0.73), float(row["age"])))]
    gender = prompts.GENDERS[int(row["gender"] > 0.5)]
    main = int(np.argmax(row["ancestry"]))
    ancestry = prompts.ANCESTRIES[main] if row["ancestry"][main] > 0.6 else ""
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
        age,
        gender,
        ancestry,
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
    face: prompts.Attributes, label: int, uniforms: np.ndarray, silence: float = 0.25
) -> str:
    """A training sentence: each clause is left out with probability `silence`.

    So the model reads short prompts too, and AUs are seen without the word that implies them.
    A face of random AUs (label -1) never names an expression. `uniforms` are 12 numbers in [0, 1).
    """
    quiet = {name: "" for name, u in zip(_CLAUSES, uniforms[4:], strict=False) if u < silence}
    expression = None if label < 0 or uniforms[3] < silence else _CLASSES[label]
    return prompts.describe(replace(face, **quiet), expression, uniforms[:3])
