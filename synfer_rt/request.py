"""One image to make, and what of it a bundle can be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from synfer_rt import facs, labels
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError, nearest

LARGEST_SEED = 2**63 - 1
"""Of seeds and indices: what int64 columns hold."""
LARGEST_SCALE = 1000.0
"""Far beyond use, and far from overflow in float32."""


@dataclass(frozen=True)
class Request:
    """One image to make.

    `aus` are intensities in [0, 1] by AU name; `guidance` is the classifier-free guidance scale
    (1 leaves the conditional prediction as it is); `au_scale` multiplies the AUs' influence;
    `layout` is a row of the bundle's layout bank (or the number of the photo that a run starts
    from), or None to start from noise alone.
    """

    index: int
    seed: int
    label: str
    prompt: str
    negative_prompt: str
    aus: Mapping[str, float]
    guidance: float
    au_scale: float
    layout: int | None


def check(request: Request, bundle: Bundle) -> None:
    """Raise UserError for the first thing in a request that `bundle` cannot make.

    That is a seed or index outside 0 to 2^63 - 1, a scale outside -1000 to 1000, an intensity
    outside 0 to 1, an unknown unit (units beyond the model's own are left out, see
    `facs.au_vector`), and a label that is not spelt as in `bundle.classes`.
    """
    check_whole("index", request.index)
    check_whole("seed", request.seed)
    check_scale("guidance", request.guidance)
    check_scale("AU scale", request.au_scale)
    facs.check_intensities(request.aus)
    known = {name.upper() for name in bundle.au_names} | facs.ACTION_UNITS.keys()
    for name in request.aus:
        if name.upper() not in known:
            raise UserError(
                f"Unknown action unit {name!r}; the nearest known is {nearest(name, known)}."
            )
    if request.label not in bundle.classes:
        label = labels.parse_label(request.label, bundle.classes)
        raise UserError(f"The label {request.label!r} is called {label!r} here; write it so.")


def check_whole(what: str, number: int) -> None:
    """Raise UserError unless a seed or an index is one of 0 to 2^63 - 1."""
    if not 0 <= number <= LARGEST_SEED:
        raise UserError(f"The {what} {number} is outside its range; write one of 0 to 2^63 - 1.")


def check_scale(what: str, value: float) -> None:
    """Raise UserError unless a scale is a number of -1000 to 1000."""
    if not abs(value) <= LARGEST_SCALE:
        raise UserError(
            f"The {what} {value:g} is outside its range; write a number of "
            f"{-LARGEST_SCALE:g} to {LARGEST_SCALE:g}."
        )
