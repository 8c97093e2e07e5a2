"""The numbers of bundle.json: where they stand, and which can be.

A number out of its range would be found by an engine, a solver or a reader of records long after,
if at all: so a manifest that holds one is refused when it is opened.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from synfer_rt import ranges

_LENGTH = 1 << 20
"""Of any axis, and of counts that are held in memory."""

_WHOLE: Mapping[str, tuple[int, int | None]] = {
    "format": (1, None),
    "image_size.*": (1, _LENGTH),
    "sizes.*": (1, _LENGTH),
    "latent.channels": (1, _LENGTH),
    "latent.height": (1, _LENGTH),
    "latent.width": (1, _LENGTH),
    "schedule.num_train_timesteps": (1, _LENGTH),
    "schedule.steps_offset": (0, _LENGTH),
    "history_slots": (1, None),
    "tokenizer.max_length": (1, _LENGTH),
    "defaults.steps": (1, _LENGTH),
    "layouts.count": (0, None),
    "engines.*.opset": (1, None),
    "engines.*.parity.batches.*": (1, None),
    "engines.*.parity_openvino.batches.*": (1, None),
    "engines.*.parity_openvino.bf16.batches.*": (1, None),
    "files.*.bytes": (0, None),
}
"""Whole numbers by their place, `*` for any name or position: the least and the largest."""

_REAL: Mapping[str, tuple[float, float]] = {
    "latent.scaling_factor": (1e-6, 1e6),
    "schedule.beta_start": (0, 1),
    "schedule.beta_end": (0, 1),
    "schedule.trained_betas.*": (0, 1),
    "schedule.sigma_min": (0, 1e6),
    "schedule.sigma_max": (0, 1e6),
    "defaults.guidance": (0, ranges.LARGEST_SCALE),
    "defaults.au_scale": (-ranges.LARGEST_SCALE, ranges.LARGEST_SCALE),
    "defaults.layout_strength": (0, 1),
    "engines.*.parity.tolerance": (0, 1e6),
    "engines.*.parity.max_relative_error": (0, 1e6),
    "engines.*.parity_openvino.tolerance": (0, 1e6),
    "engines.*.parity_openvino.max_relative_error": (0, 1e6),
    "engines.*.parity_openvino.bf16.tolerance": (0, 1e6),
    "engines.*.parity_openvino.bf16.max_relative_error": (0, 1e6),
}
_YES_OR_NO = ("schedule.rescale_zero_terminal_snr", "schedule.set_alpha_to_one")
_OPTIONAL = (
    *("schedule.sigma_min", "schedule.sigma_max"),
    "engines.*.parity_openvino.max_relative_error",
    "engines.*.parity_openvino.bf16.max_relative_error",
)
"""Places that may hold null."""


def parse(text: str | bytes) -> Any:
    """The JSON value in `text`. Raises ValueError for what is none.

    NaN and infinities are none, nor are numbers that would become one (1e999).
    """
    return json.loads(text, parse_constant=_refuse, parse_float=_finite)


def check(fields: Mapping[str, Any]) -> None:
    """Raise ValueError for the first number of a manifest that is none or outside its range.

    What is not there is not checked.
    """
    for place, (least, most) in _WHOLE.items():
        allowed = f"{least} or more" if most is None else f"{least} to {most}"
        for name, value in _found(fields, place):
            if not ranges.is_whole(value, least, most):
                raise ValueError(f"{name} is {value!r}, not a whole number of {allowed}")
    for place, (low, high) in _REAL.items():
        for name, value in _found(fields, place):
            if not ranges.is_real(value, low, high) and not (value is None and place in _OPTIONAL):
                raise ValueError(f"{name} is {value!r}, not a number of {low:g} to {high:g}")
    for place in _YES_OR_NO:
        for name, value in _found(fields, place):
            if not isinstance(value, bool):
                raise ValueError(f"{name} is {value!r}, neither true nor false")
    for side in ("inputs", "outputs"):
        for name, size in _found(fields, f"engines.*.{side}.*.shape.*"):
            if not isinstance(size, str) and not ranges.is_whole(size):
                raise ValueError(f"{name} is {size!r}, neither a length nor a name")


def _found(fields: Any, place: str, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value at `place`, with its own place in words."""
    key, _, rest = place.partition(".")
    if isinstance(fields, list):
        inside: Mapping[str, Any] = {str(i): value for i, value in enumerate(fields)}
    else:
        inside = fields if isinstance(fields, dict) else {}
    for found in inside if key == "*" else [key] if key in inside else []:
        where = f"{name}.{found}".lstrip(".")
        if rest:
            yield from _found(inside[found], rest, where)
        else:
            yield where, inside[found]


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)
