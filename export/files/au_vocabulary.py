"""AU vocabularies in JSON files: the key of a known one, or a list of names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from synfer_rt.errors import UserError, nearest
from synfer_rt.vocabulary import facs

_UNIT = re.compile(r"(?:[Aa][Uu])?([LR]?)0*([1-9]\d*)([LR]?)(?:_[rc])?")
_FACS = {*range(1, 3), *range(4, 47), *range(51, 59), *range(61, 67)}
"""The numbers of the action units and descriptors of FACS."""


def au_names(path: Path, vocabulary: Any) -> tuple[str, ...]:
    """The AU names of the `vocabulary` in the file `path`, in its order, as facs.py spells them.

    A vocabulary is a key of facs.VOCABULARIES or a list of names; AU01, AU12L and OpenFace's AU01_r
    are read as AU1, L12 and AU1. Raises UserError for anything else, for an action unit that is
    named twice, and for a name that is not an action unit of FACS.
    """
    if isinstance(vocabulary, str) and vocabulary in facs.VOCABULARIES:
        return facs.VOCABULARIES[vocabulary]
    names = vocabulary if isinstance(vocabulary, (list, tuple)) else ()
    units = [_unit(path, name) for name in names if isinstance(name, str)]
    if not units or len(set(units)) < len(names):
        raise UserError(
            f"The au_vocabulary {vocabulary!r} in {path} is not a list of different action units; "
            f"write such a list, or one of {', '.join(facs.VOCABULARIES)}."
        )
    return tuple(units)


def _unit(path: Path, name: str) -> str:
    found = _UNIT.fullmatch(name)
    if found is None or int(found[2]) not in _FACS or (found[1] and found[3]):
        raise UserError(
            f"The au_vocabulary in {path} names {name!r}, which is not an action unit of FACS; the "
            f"nearest known is {nearest(name, facs.ACTION_UNITS)}."
        )
    return f"{found[1] or found[3] or 'AU'}{found[2]}"
