"""Datasets whose file names say what the images show, by the rules of those that publish them.

JAFFE (Lyons et al. 1998), KDEF (Lundqvist et al. 1998), RaFD (Langner et al. 2010) and CREMA-D
(Cao et al. 2014), whose frames keep the name of their clip.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from synfer_rt.data.datasets.items import IMAGES, Found, Label, Skipped, item
from synfer_rt.vocabulary import label_schemes

_RULES = (
    re.compile(r"[A-Z]{2}\.(AN|DI|FE|HA|NE|SA|SU)\d\.\d{1,3}", re.ASCII),
    re.compile(r"[AB][FM]\d\d(AF|AN|DI|HA|NE|SA|SU)(?:FL|HL|S|HR|FR)", re.ASCII),
    re.compile(
        r"Rafd\d{3}_\d\d_[A-Za-z]+_(?:fe)?male_(angry|contemptuous|disgusted|fearful|happy|"
        r"neutral|sad|surprised)_(?:left|frontal|right)",
        re.ASCII,
    ),
    re.compile(r"\d{4}_[A-Z]{3}_(ANG|DIS|FEA|HAP|NEU|SAD)_(?:LO|MD|HI|XX?)(?:\W|_|\Z).*", re.ASCII),
)
"""The stems of the names, each with the code or word of its expression."""


def file_rule(files: Sequence[Path]) -> re.Pattern[str] | None:
    """The rule that most images among `files` are named by, or None."""
    stems = [file.stem for file in files if file.suffix.lower() in IMAGES]
    for rule in _RULES:
        if 2 * sum(rule.fullmatch(stem) is not None for stem in stems) > len(stems):
            return rule
    return None


def file_names(root: Path, files: Sequence[Path], _: str | None) -> Found:
    """`KA.AN1.39.tiff`, `AF01ANS.JPG` and the like: all images by one rule."""
    rule = file_rule(files)
    for file in files:
        if file.suffix.lower() not in IMAGES:
            yield Skipped(file.relative_to(root).as_posix(), "it is no image")
        elif rule is not None and (named := rule.fullmatch(file.stem)):
            yield item(root, file, Label(label_schemes.expression(named[1]), None, named[1]))
        else:
            yield item(root, file, Label(None, "its name has no expression in a known place"))
