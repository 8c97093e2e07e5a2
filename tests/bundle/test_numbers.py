"""Every number of a manifest is checked when it is opened."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from synfer_rt.bundle import MANIFEST, numbers, open_bundle, write_manifest
from synfer_rt.errors import UserError
from tests import tiny_bundle as tiny

NEVER: list[Any] = [float("nan"), float("inf"), float("-inf"), -1e300, 1e300, "7", True, [], {}]


def places(fields: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the numbers of a manifest are."""
    pairs = fields.items() if isinstance(fields, dict) else enumerate(fields)
    for key, value in pairs:
        if isinstance(value, (dict, list)):
            yield from places(value, (*way, key))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield (*way, key)


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    bundle = tiny.build(
        tmp_path_factory.mktemp("bundle") / "free", sizes={"min": 16, "max": 48, "multiple_of": 8}
    )
    return json.loads((bundle.path / MANIFEST).read_text())


def changed(fields: dict[str, Any], way: tuple[Any, ...], value: Any) -> dict[str, Any]:
    fields = copy.deepcopy(fields)
    part: Any = fields
    for key in way[:-1]:
        part = part[key]
    part[way[-1]] = value
    return fields


def test_the_manifest_of_a_bundle_passes(fields: dict[str, Any]) -> None:
    numbers.check(numbers.parse(json.dumps(fields)))


def test_no_number_may_be_what_none_can_be(fields: dict[str, Any]) -> None:
    found = list(places(fields))
    assert len(found) > 100  # shapes, bytes, defaults, schedule
    for way in found:
        for value in NEVER:
            if value == "7" and "shape" in way:
                continue  # a name
            with pytest.raises((ValueError, TypeError)):
                numbers.check(changed(fields, way, value))


@pytest.mark.parametrize(
    ("way", "value"),
    [
        (("defaults", "steps"), 0),
        (("defaults", "steps"), 8.0),
        (("defaults", "guidance"), -0.5),
        (("defaults", "guidance"), 1000.5),
        (("defaults", "layout_strength"), 1.5),
        (("image_size", 0), 0),
        (("latent", "channels"), 2.5),
        (("latent", "scaling_factor"), 0),
        (("schedule", "num_train_timesteps"), "1000"),
        (("schedule", "beta_end"), -0.02),
        (("schedule", "steps_offset"), -1),
        (("schedule", "set_alpha_to_one"), 1),
        (("schedule", "rescale_zero_terminal_snr"), None),
        (("tokenizer", "max_length"), 0),
        (("layouts", "count"), -1),
        (("engines", "denoiser", "opset"), 0),
        (("engines", "denoiser", "inputs", 0, "shape", 1), -1),
        (("engines", "denoiser", "parity", "max_relative_error"), -1e-3),
        (("files", "layouts.npz", "bytes"), -1),
        (("sizes", "min"), 16.0),
    ],
)
def test_a_number_outside_its_range_is_named(
    fields: dict[str, Any], way: tuple[Any, ...], value: Any
) -> None:
    name = ".".join(map(str, way)).replace(".", r"\.")
    with pytest.raises(ValueError, match=rf"{name} is {value!r}, n(ot|either) "):
        numbers.check(changed(fields, way, value))


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "[1e999]", "-1e400"])
def test_json_has_no_such_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="is not a JSON number"):
        numbers.parse(text)


def test_a_bundle_is_not_written_with_such_a_number(tmp_path: Path) -> None:
    bundle = tiny.build(tmp_path / "bundle")
    fields = {k: v for k, v in bundle.manifest.items() if k not in ("format", "files")}
    before = (bundle.path / MANIFEST).read_bytes()
    with pytest.raises(UserError, match=r"NaN is not a JSON number.*; build the bundle again"):
        write_manifest(
            bundle.path, {**fields, "defaults": {**fields["defaults"], "au_scale": float("nan")}}
        )
    assert (bundle.path / MANIFEST).read_bytes() == before
    assert open_bundle(bundle.path).bundle_hash == bundle.bundle_hash
