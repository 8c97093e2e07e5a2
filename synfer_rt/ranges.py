"""Numbers from outside, a caller's or a file's: which are taken, and as what.

numpy's numbers are numbers; true and false, texts and NaN are none, and 1.0 is no whole number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from synfer_rt.errors import UserError

LARGEST_SEED = 2**63 - 1
"""Of seeds and indices: what int64 columns hold."""
LARGEST_SCALE = 1000.0
"""Far beyond use, and far from overflow in float32."""


def is_whole(value: Any, least: int = 0, most: int | None = LARGEST_SEED) -> bool:
    """Whether `value` is a whole number of `least` to `most` (None: without end)."""
    known = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return known and bool(least <= value and (most is None or value <= most))


def is_number(value: Any) -> bool:
    """Whether `value` is a number, NaN and infinities among them."""
    known = isinstance(value, (int, float, np.integer, np.floating))
    return known and not isinstance(value, bool)


def is_real(value: Any, least: float, most: float) -> bool:
    """Whether `value` is a number of `least` to `most`, whole or not."""
    return is_number(value) and bool(least <= value <= most)


def whole(what: str, value: Any, least: int = 0, most: int | None = LARGEST_SEED) -> int:
    """`value` as an int. Raises UserError, naming `what` it is, unless `is_whole`."""
    if is_whole(value, least, most):
        return int(value)
    allowed = f"{least} or more" if most is None else f"one of {least} to {_written(most)}"
    is_int = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    problem = "outside its range" if is_int else "no whole number"
    written = str(value) if is_number(value) else repr(value)  # 1.0 is not written as 1 here
    raise UserError(f"The {what} {written} is {problem}; write {allowed}.")


def real(
    what: str, value: Any, least: float = -LARGEST_SCALE, most: float = LARGEST_SCALE
) -> float:
    """`value` as a float. Raises UserError, naming `what` it is, unless `is_real`."""
    if is_real(value, least, most):
        return float(value)
    problem = "outside its range" if is_number(value) else "no number"
    raise UserError(
        f"The {what} {shown(value)} is {problem}; write a number of {least:g} to {most:g}."
    )


def guidance(value: Any) -> float:
    """The scale of classifier-free guidance that a request for `value` means.

    At 1 the prediction is that of the prompt alone (Ho and Salimans, arXiv 2207.12598, with w =
    scale - 1). Less, 0 above all, means "no guidance" to those who write it, as in diffusers, and
    is 1 too: by the formula 0 would leave the negative prompt alone, whatever the label. Raises
    UserError unless it is a number of 0 to LARGEST_SCALE.
    """
    return max(1.0, real("guidance", value, 0))


def _written(most: int) -> str:
    return "2^63 - 1" if most == LARGEST_SEED else str(most)


def shown(value: Any) -> str:
    """`value` as a sentence has it: floats in few digits, what is no number in quotes."""
    return f"{value:g}" if is_number(value) else repr(value)
