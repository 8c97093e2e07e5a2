"""The names that older releases gave to engines: FERAnno was `annotator` at first.

A manifest, a record or a table that an older release wrote is read with today's names. Identities
are computed with the former ones, so that a bundle is the same one whichever release wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from synfer_rt.bundle.engine_specs import FERANNO

FORMER = {FERANNO: "annotator"}
"""Former names by today's."""
_CURRENT = {former: name for name, former in FORMER.items()}
_Value = TypeVar("_Value")


def current_name(engine: str) -> str:
    """Today's name of an engine."""
    return _CURRENT.get(engine, engine)


def current_names(by_engine: Mapping[str, _Value]) -> dict[str, _Value]:
    """A mapping by engine, with today's names. Raises ValueError where it has both names of one."""
    return _renamed(by_engine, _CURRENT)


def current_manifest(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with today's names of engines; its files keep theirs.

    Raises ValueError where it has an engine by both names.
    """
    return _manifest(fields, _CURRENT)


def former_manifest(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest as older releases wrote it for the same engines, and their files' names."""
    fields = _manifest(fields, FORMER)
    for name, former in FORMER.items():
        file, data = f"{name}.onnx", f"{name}.onnx.data"
        if fields["engines"].get(former, {}).get("file") != file:
            continue
        fields["engines"][former] = {**fields["engines"][former], "file": f"{former}.onnx"}
        renamed = _renamed(fields["files"], {n: n.replace(name, former) for n in (file, data)})
        fields["files"] = dict(sorted(renamed.items()))
    return fields


def _manifest(fields: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    renamed = {**fields, "engines": _renamed(fields["engines"], names)}
    if isinstance(cuda := fields.get("cuda"), dict):
        renamed["cuda"] = _renamed(cast("dict[str, Any]", cuda), names)
    if isinstance(plans := fields.get("plans"), dict):
        renamed["plans"] = {
            target: _renamed(cast("dict[str, Any]", entries), names)
            if isinstance(entries, dict)
            else entries
            for target, entries in cast("dict[str, Any]", plans).items()
        }
    return renamed


def _renamed(mapping: Mapping[str, _Value], names: Mapping[str, str]) -> dict[str, _Value]:
    """`mapping` in its order, with `names` for those keys that have another one."""
    for name, other in names.items():
        if name in mapping and other in mapping:
            raise ValueError(f"it has both {name} and {other}, which are one")
    return {names.get(name, name): value for name, value in mapping.items()}
