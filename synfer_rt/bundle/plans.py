"""Plans: engines that TensorRT compiled ahead of time, as bundle.json describes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from synfer_rt.bundle.engine_specs import BATCH, EngineSpec

PLAN_TARGETS = ("tensorrt-rtx", "tensorrt")
"""The libraries that engines are compiled for ahead of time."""


@dataclass(frozen=True)
class PlanSpec:
    """An engine compiled ahead of time for some GPUs.

    `target` is one of PLAN_TARGETS. `version` is that of the library that compiled it; no other
    version loads it. `compute_capabilities` are written like "sm89". `batches` are the smallest,
    the best and the largest number of images. `source_sha256` is that of the compiled ONNX file.
    """

    target: str
    engine: str
    file: str
    version: str
    compute_capabilities: tuple[str, ...]
    batches: tuple[int, int, int]
    precision: str
    source_sha256: str


def read_plans(
    section: Any,
    engines: Mapping[str, EngineSpec],
    files: Mapping[str, Any],
    axes: Mapping[str, tuple[int, int, int]],
) -> dict[str, dict[str, PlanSpec]]:
    """The manifest's `plans` by target and engine; `files` is the manifest's.

    `axes` are the smallest, best and largest length of dynamic heights and widths (Sizes.axes).
    Raises ValueError for the first fault, with a message that continues a sentence.
    """
    if not _is_object(section):
        raise ValueError("its plans are not an object")
    plans: dict[str, dict[str, PlanSpec]] = {}
    for target, entries in section.items():
        if target not in PLAN_TARGETS:
            raise ValueError(f"it has plans for the unknown target {target!r}")
        if not _is_object(entries):
            raise ValueError(f"its {target} plans are not an object")
        for engine, fields in entries.items():
            if engine not in engines:
                raise ValueError(f"it has a {target} plan for the unknown engine {engine!r}")
            plan = _plan(target, engine, fields, engines[engine], axes)
            subject = f"its {target} plan for {engine}"
            if plan.file not in files:
                raise ValueError(f"{subject} is {plan.file}, which has no hash")
            source = engines[engine].file
            if source in files and plan.source_sha256 != files[source]["sha256"]:
                raise ValueError(f"{subject} was compiled from another {source}")
            plans.setdefault(target, {})[engine] = plan
    return plans


def _plan(
    target: str,
    engine: str,
    fields: Any,
    spec: EngineSpec,
    axes: Mapping[str, tuple[int, int, int]],
) -> PlanSpec:
    subject = f"its {target} plan for {engine}"
    if not _is_object(fields):
        raise ValueError(f"{subject} is not an object")
    texts: dict[str, str] = {}
    for name in ("file", "version", "precision", "source_sha256"):
        text = fields.get(name)
        if not isinstance(text, str) or not text:
            raise ValueError(f"{subject} has no {name}")
        texts[name] = text
    capabilities = fields.get("compute_capabilities")
    if not _is_list(capabilities) or not capabilities or not all(map(_is_capability, capabilities)):
        raise ValueError(
            f"{subject} has compute capabilities {capabilities!r} instead of names such as sm89"
        )
    profiles = fields.get("profiles")
    if not _is_object(profiles):
        raise ValueError(f"{subject} has no profiles")
    return PlanSpec(
        target=target,
        engine=engine,
        compute_capabilities=tuple(capabilities),
        batches=_batches(subject, profiles, spec, axes),
        **texts,
    )


def _batches(
    subject: str,
    profiles: Mapping[str, Any],
    spec: EngineSpec,
    axes: Mapping[str, tuple[int, int, int]],
) -> tuple[int, int, int]:
    """The smallest, best and largest batch of a plan's profiles, which must fit the engine."""
    if set(profiles) != {tensor.name for tensor in spec.inputs}:
        names = ", ".join(sorted(tensor.name for tensor in spec.inputs))
        found = ", ".join(sorted(profiles))
        raise ValueError(f"{subject} has profiles for {found} instead of {names}")
    batches: set[tuple[int, ...]] = set()
    for tensor in spec.inputs:
        profile = profiles[tensor.name]
        if not _is_object(profile) or set(profile) != {"min", "opt", "max"}:
            raise ValueError(f"{subject} has no min, opt and max for {tensor.name}")
        sizes: list[int] = []
        for i, key in enumerate(("min", "opt", "max")):
            shape = profile[key]
            wanted = [axes[str(size)][i] if size in axes else size for size in tensor.shape]
            if not _is_list(shape) or len(shape) != len(tensor.shape):
                raise ValueError(f"{subject} has the shape {shape!r} for {tensor}")
            for found, size in zip(shape, wanted, strict=True):
                if type(found) is not int or found < 1 or size not in (BATCH, found):
                    raise ValueError(f"{subject} has the shape {shape} for {tensor}")
            sizes += shape[:1] if tensor.shape[:1] == (BATCH,) else []
        if sizes:
            batches.add(tuple(sizes))
    if len(batches) != 1:
        raise ValueError(f"{subject} has profiles with different batches")
    smallest, best, largest = batches.pop()
    if not smallest <= best <= largest:
        raise ValueError(
            f"{subject} has batches {smallest}, {best}, {largest}, which do not increase from min "
            "to opt to max"
        )
    return smallest, best, largest


def _is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _is_capability(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"sm\d{2,3}", value) is not None
