"""Expression label schemes: class orders differ between datasets, so labels travel by name.

Orders follow AffectNet (Mollahosseini et al. 2017), RAF-DB (Li et al. 2017), FER2013 (Goodfellow
et al. 2013), FER+ (Barsoum et al. 2016) and HSEmotion (Savchenko 2021). The canonical names are
AffectNet's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synfer_rt.errors import UserError, nearest

SCHEMES: dict[str, tuple[str, ...]] = {
    "affectnet-8": (
        "neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt",
    ),
    "affectnet-7": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger"),
    "raf-db": ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral"),
    "fer2013-csv": ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    "fer2013-folders": ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
    "ferplus": (
        "neutral", "happy", "surprise", "sad", "anger", "disgust", "fear", "contempt",
    ),
    "hsemotion-8": (
        "anger", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise",
    ),
    "hsemotion-7": ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
}  # fmt: skip

_ALIASES = {
    "angry": "anger",
    "happiness": "happy",
    "sadness": "sad",
    "surprised": "surprise",
    "fearful": "fear",
    "afraid": "fear",
    "disgusted": "disgust",
    "contemptuous": "contempt",
}


def scheme(name: str) -> tuple[str, ...]:
    """The class names of a label scheme, in the order of its indices (0-based).

    Raises UserError for a name that is not in SCHEMES.
    """
    if not isinstance(name, str) or name not in SCHEMES:
        raise UserError(f"Unknown label scheme {name!r}; known are {', '.join(SCHEMES)}.")
    return SCHEMES[name]


def parse_labels(text: str, classes: Sequence[str]) -> tuple[str, ...]:
    """Read `all` or `happy,sad,…` into canonical names, in the order given, each once.

    Raises UserError for a label that is not one of `classes`, naming the nearest.
    """
    if text.strip().lower() == "all":
        return tuple(classes)
    labels: list[str] = []
    for word in (part.strip().lower() for part in text.split(",") if part.strip()):
        label = _ALIASES.get(word, word)
        if label not in classes:
            raise UserError(
                f"Unknown label {word!r}; the nearest of this model is {nearest(label, classes)} "
                f"(it knows {', '.join(classes)})."
            )
        if label not in labels:
            labels.append(label)
    if not labels:
        raise UserError(f"No label given; write all or some of {', '.join(classes)}.")
    return tuple(labels)


def parse_label(text: str, classes: Sequence[str]) -> str:
    """The one class that `text` names, in any of its spellings. Raises UserError for another."""
    label, *more = parse_labels(text, classes)
    if more:
        raise UserError(f"{text!r} is more than one label; write one of {', '.join(classes)}.")
    return label


def convert(probabilities: np.ndarray, source: str, target: str) -> np.ndarray:
    """Class probabilities [..., n] of one scheme in the order of another, [..., m].

    Classes that the target lacks are dropped and the rest renormalised; classes that the source
    lacks get 0. A row whose shared classes have no mass becomes uniform over them.
    """
    sources, targets = scheme(source), scheme(target)
    shared = [name for name in targets if name in sources]
    columns = np.stack([probabilities[..., sources.index(name)] for name in shared], -1)
    mass = columns.sum(-1, keepdims=True)
    uniform = np.full_like(columns, 1.0 / len(shared))
    columns = np.where(mass > 0, columns / np.where(mass > 0, mass, 1), uniform)
    result = np.zeros((*probabilities.shape[:-1], len(targets)), probabilities.dtype)
    for i, name in enumerate(shared):
        result[..., targets.index(name)] = columns[..., i]
    return result
