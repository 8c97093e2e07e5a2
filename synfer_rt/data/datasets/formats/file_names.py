"""Datasets that write the expression into the names of their image files.

JAFFE (Lyons et al. 1998), KDEF (Lundqvist et al. 1998), RaFD (Langner et al. 2010) and CREMA-D
(Cao et al. 2014), whose frames keep the name of their clip.
"""

from __future__ import annotations

import re

from synfer_rt.data.datasets.contents import Contents
from synfer_rt.data.datasets.formats.format import Format
from synfer_rt.data.datasets.items import IMAGES, Found
from synfer_rt.data.datasets.labels.label import Label
from synfer_rt.vocabulary import expressions

_RULES = (
    re.compile(r"(?P<person>[A-Z]{2})\.(?P<label>AN|DI|FE|HA|NE|SA|SU)\d\.\d{1,3}", re.ASCII),
    re.compile(
        r"[AB](?P<person>[FM]\d\d)(?P<label>AF|AN|DI|HA|NE|SA|SU)(?:FL|HL|S|HR|FR)", re.ASCII
    ),
    re.compile(
        r"Rafd\d{3}_(?P<person>\d\d)_[A-Za-z]+_(?:fe)?male_(?P<label>angry|contemptuous|"
        r"disgusted|fearful|happy|neutral|sad|surprised)_(?:left|frontal|right)",
        re.ASCII,
    ),
    re.compile(
        r"(?P<person>\d{4})_[A-Z]{3}_(?P<label>ANG|DIS|FEA|HAP|NEU|SAD)_(?:LO|MD|HI|XX?)"
        r"(?:\W|_|\Z).*",
        re.ASCII,
    ),
)
"""For each dataset the form of a file name without its suffix: its expression, and who shows it.

In KDEF the first letter is the session, A or B, of the same persons.
"""


def read(contents: Contents) -> Found:
    """The label of `KA.AN1.39.tiff` is anger, that of `AF01HAS.JPG` happy, and so on."""
    rule = _rule(contents)
    for file in contents.files:
        if file.suffix.lower() not in IMAGES:
            yield contents.skipped(file, "it is not an image")
        elif rule is not None and (named := rule.fullmatch(file.stem)):
            written = named["label"]
            label = Label(expressions.expression(written), None, written)
            yield contents.item(file, label, person=named["person"])
        else:
            why = "its file name has no expression where the others have one"
            yield contents.item(file, Label(None, why))


def _rule(contents: Contents) -> re.Pattern[str] | None:
    """The rule by which most of the images are named, if any."""
    stems = [file.stem for file in contents.images]
    for rule in _RULES:
        if 2 * sum(rule.fullmatch(stem) is not None for stem in stems) > len(stems):
            return rule
    return None


def follow_a_rule(contents: Contents) -> bool:
    """Whether most of the images are named by a rule of one of the datasets."""
    return _rule(contents) is not None


FORMAT = Format("file-names", read, possible=follow_a_rule)
