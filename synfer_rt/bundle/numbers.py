"""The numbers of bundle.json: where they stand, and their ranges.

An engine, a solver or a reader of records would notice a number outside its range late or never,
so a manifest that holds one is refused when it is opened.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

from synfer_rt import ranges
from synfer_rt.diffusion.schedule import SCALINGS

_LENGTH = 1 << 20
"""The largest length of an axis, and the largest count of what is held in memory."""

_WHOLE: Mapping[str, tuple[int, int | None]] = {
    "format": (1, None),
    "image_size.*": (1, _LENGTH),
    "sizes.*": (1, _LENGTH),
    "latent.channels": (1, _LENGTH),
    "latent.height": (1, _LENGTH),
    "latent.width": (1, _LENGTH),
    "schedule.num_train_timesteps": (1, _LENGTH),
    "schedule.steps_offset": (0, _LENGTH),
    "schedule.original_inference_steps": (1, _LENGTH),
    "history_slots": (1, None),
    "tokenizer.max_length": (1, _LENGTH),
    "defaults.steps": (1, _LENGTH),
    "qualities.*.steps": (1, _LENGTH),
    "qualities.*.timesteps.*.*": (0, _LENGTH),
    "layouts.count": (0, None),
    "engines.*.opset": (1, None),
    "engines.*.parity.batches.*": (1, None),
    "engines.*.parity_openvino.batches.*": (1, None),
    "engines.*.parity_openvino.bf16.batches.*": (1, None),
    "cuda.*.nodes": (1, None),
    "cuda.*.parity.batches.*": (1, None),
    "files.*.bytes": (0, None),
}
"""The least and the largest value of whole numbers, by place; `*` is any name or position."""

_REAL: Mapping[str, tuple[float, float]] = {
    "latent.scaling_factor": (1e-6, 1e6),
    "schedule.beta_start": (0, 1),
    "schedule.beta_end": (0, 1),
    "schedule.trained_betas.*": (0, 1),
    "schedule.sigma_min": (0, 1e6),
    "schedule.sigma_max": (0, 1e6),
    "schedule.timestep_scaling": SCALINGS,
    "defaults.guidance": (0, ranges.LARGEST_SCALE),
    "defaults.au_scale": (-ranges.LARGEST_SCALE, ranges.LARGEST_SCALE),
    "defaults.layout_strength": (0, 1),
    "qualities.*.guidance": (1, ranges.LARGEST_SCALE),
    "qualities.*.strengths.*": (0, 1),
    "engines.*.parity.tolerance": (0, 1e6),
    "engines.*.parity.max_relative_error": (0, 1e6),
    "engines.*.parity_openvino.tolerance": (0, 1e6),
    "engines.*.parity_openvino.max_relative_error": (0, 1e6),
    "engines.*.parity_openvino.bf16.tolerance": (0, 1e6),
    "engines.*.parity_openvino.bf16.max_relative_error": (0, 1e6),
    "cuda.*.parity.tolerance": (0, 1e6),
    "cuda.*.parity.max_relative_error": (0, 1e6),
}
_SHAPES = [
    f"{kind}.*.{side}.*.shape.*" for kind in ("engines", "cuda") for side in ("inputs", "outputs")
]
_YES_OR_NO = ("schedule.rescale_zero_terminal_snr", "schedule.set_alpha_to_one")
_OPTIONAL = (
    *("schedule.sigma_min", "schedule.sigma_max"),
    "engines.*.parity_openvino.max_relative_error",
    "engines.*.parity_openvino.bf16.max_relative_error",
)
"""Places that may hold null."""


def parse(text: str | bytes) -> Any:
    """The JSON value in `text`. Raises ValueError for a text that is not JSON.

    NaN and infinities are not JSON, and numbers that would become infinite (1e999) are refused too.
    """
    return json.loads(text, parse_constant=_refuse, parse_float=_finite)


def check(fields: Mapping[str, Any]) -> None:
    """Raise ValueError for the first value of a manifest that is not a number within its range.

    Missing fields are not checked.
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
    for place in _SHAPES:
        for name, size in _found(fields, place):
            if not isinstance(size, str) and not ranges.is_whole(size):
                raise ValueError(f"{name} is {size!r}, neither a length nor a name")


def _found(fields: Any, place: str, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value at `place`, with its full name, such as `engines.decoder.opset`."""
    key, _, rest = place.partition(".")
    inside: Mapping[str, Any] = {}
    if isinstance(fields, list):
        inside = {str(i): value for i, value in enumerate(cast("list[Any]", fields))}
    elif isinstance(fields, dict):
        inside = cast("dict[str, Any]", fields)
    for found in inside if key == "*" else [key] if key in inside else []:
        where = f"{name}.{found}".lstrip(".")
        if rest:
            yield from _found(inside[found], rest, where)
        else:
            yield where, inside[found]


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)
