"""One image to make, and what of it a bundle can be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from synfer_rt import facs, labels, ranges
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError, nearest


@dataclass(frozen=True)
class Request:
    """One image to make.

    `aus` are intensities in [0, 1] by AU name; `guidance` is the classifier-free guidance scale,
    which up to 1 leaves the conditional prediction as it is (0 to 1 become 1 here, see
    `ranges.guidance`); `au_scale` multiplies the AUs' influence; `layout` is a row of the bundle's
    layout bank (or the number of the photo that a run starts from), or None to start from noise
    alone.
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

    def __post_init__(self) -> None:
        if ranges.is_real(self.guidance, 0, 1):
            object.__setattr__(self, "guidance", ranges.guidance(self.guidance))


def check(request: Request, bundle: Bundle) -> None:
    """Raise UserError for the first thing in a request that `bundle` cannot make.

    That is what is no request, a seed or index outside 0 to 2^63 - 1, a guidance outside 0 to 1000,
    an AU scale outside -1000 to 1000, an intensity outside 0 to 1, an unknown unit (units beyond
    the model's own are left out, see `facs.au_vector`), a label that is not spelt as in
    `bundle.classes`, and any value of another type.
    """
    if not isinstance(request, Request):
        raise UserError(f"{request!r} is no request; give those of a plan, plan.request(index).")
    ranges.whole("index", request.index)
    ranges.whole("seed", request.seed)
    ranges.guidance(request.guidance)
    ranges.real("AU scale", request.au_scale)
    facs.intensities(request.aus)
    if request.layout is not None and not ranges.is_whole(request.layout, -ranges.LARGEST_SEED):
        raise UserError(f"The layout {request.layout!r} is no row of the bank; write one, or None.")
    for name in ("label", "prompt", "negative_prompt"):
        check_text(f"The {name}", getattr(request, name))
    known = {name.upper() for name in bundle.au_names} | facs.ACTION_UNITS.keys()
    for name in request.aus:
        if name.upper() not in known:
            raise UserError(
                f"Unknown action unit {name!r}; the nearest known is {nearest(name, known)}."
            )
    if request.label not in bundle.classes:
        label = labels.parse_label(request.label, bundle.classes)
        raise UserError(f"The label {request.label!r} is called {label!r} here; write it so.")


def check_text(what: str, text: str) -> None:
    """Raise UserError, naming `what` it is, for what is no text or cannot be written as UTF-8."""
    if not isinstance(text, str):
        raise UserError(f"{what} {text!r} is no text; write one, in quotes.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{what} is not valid text; write it in UTF-8.") from None
