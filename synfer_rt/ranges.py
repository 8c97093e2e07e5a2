"""Ranges of numbers that come from a caller or a file.

NumPy's numbers are accepted like Python's. Booleans, texts and NaN are not numbers here, and 1.0 is
not a whole number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from synfer_rt.errors import UserError

LARGEST_SEED = 2**63 - 1
"""The largest seed and index: what an int64 column holds."""
LARGEST_SCALE = 1000.0
"""The largest scale: far beyond any useful one, and far from an overflow in float32."""


def is_whole(value: Any, least: int = 0, most: int | None = LARGEST_SEED) -> bool:
    """Whether `value` is a whole number from `least` to `most`; None means no upper limit."""
    return _is_int(value) and bool(least <= value and (most is None or value <= most))


def is_number(value: Any) -> bool:
    """Whether `value` is a number; NaN and infinities are."""
    known = isinstance(value, (int, float, np.integer, np.floating))
    return known and not isinstance(value, bool)


def is_real(value: Any, least: float, most: float) -> bool:
    """Whether `value` is a number from `least` to `most`, whole or not."""
    return is_number(value) and bool(least <= value <= most)


def whole(name: str, value: Any, least: int = 0, most: int | None = LARGEST_SEED) -> int:
    """`value` as an int. Raises UserError, which names the argument `name`, unless `is_whole`."""
    if is_whole(value, least, most):
        return int(value)
    limits = f"from {least} to {_power(most)}"
    if most is None:
        limits = f"at least {least}" if _is_int(value) else f"of at least {least}"
    wanted = limits if _is_int(value) else f"a whole number {limits}"
    got = value if is_number(value) else repr(value)  # 1.0 is not written as 1 here
    raise UserError(f"`{name}` must be {wanted}, got {got}.")


def real(
    name: str, value: Any, least: float = -LARGEST_SCALE, most: float = LARGEST_SCALE
) -> float:
    """`value` as a float. Raises UserError, which names the argument `name`, unless `is_real`."""
    if is_real(value, least, most):
        return float(value)
    wanted = f"from {least:g} to {most:g}" if is_number(value) else "a number"
    raise UserError(f"`{name}` must be {wanted}, got {shown(value)}.")


def part(name: str, value: Any) -> float:
    """`value` as a float above 0 and at most 1. Raises UserError, which names `name`, otherwise."""
    if is_real(value, 0, 1) and value != 0:
        return float(value)
    raise UserError(f"`{name}` must be above 0 and at most 1, got {shown(value)}.")


def plain(value: Any) -> Any:
    """A number of NumPy as Python's, which JSON holds; anything else as it is."""
    return value.item() if isinstance(value, (np.integer, np.floating)) else value


def flag(name: str, value: Any) -> bool:
    """`value` as a bool. Raises UserError, which names the argument `name`, for anything else."""
    known: object = value
    if isinstance(known, bool):
        return known
    raise UserError(f"`{name}` must be True or False, got {value!r}.")


def guidance(value: Any) -> float:
    """The scale of classifier-free guidance that a request for `value` means, 1 or more.

    At 1 the prediction is that of the prompt alone (Ho and Salimans, arXiv 2207.12598, with w =
    scale - 1). Smaller values, above all 0, mean "no guidance" to those who write them, as in
    diffusers, and become 1. By the formula, 0 would follow the negative prompt alone, whatever the
    label. Raises UserError unless `value` is a number from 0 to LARGEST_SCALE.
    """
    return max(1.0, real("guidance", value, 0))


def shown(value: Any) -> str:
    """`value` as a message has it: numbers in few digits, anything else as its repr."""
    return f"{value:g}" if is_number(value) else repr(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _power(most: int | None) -> str:
    return "2^63 - 1" if most == LARGEST_SEED else str(most)
