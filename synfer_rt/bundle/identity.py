"""What tells one bundle from another: all that a sample depends on, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

CARD = "README.md"
"""A bundle's model card, which decides no sample."""
_MEASURED = ("parity", "parity_openvino")
"""What a manifest says of an engine that was found out when it was whole."""
_SINCE_0_11 = ("annotators_know",)
"""The fields that a manifest has had since."""


def identity(fields: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest without what decides no sample.

    Not the exporter's versions, the model card, or what was measured of the engines. Not the plans
    either: a library writes other bytes at each build of the same engine, and where a plan ran is
    said by a run's backend, precision and version.
    """
    plans = {
        entry["file"] for entries in fields.get("plans", {}).values() for entry in entries.values()
    }
    left_out = {CARD, *plans} - {entry["file"] for entry in fields["engines"].values()}
    kept = {name: value for name, value in fields.items() if name not in ("plans", "exporter")}
    kept["engines"] = _without(fields["engines"], _MEASURED)
    kept["files"] = {name: e for name, e in fields["files"].items() if name not in left_out}
    return _sha256(json.dumps(kept, sort_keys=True))


def former_identity(fields: Mapping[str, Any]) -> str:
    """What releases up to 0.11 took for the identity: the SHA-256 of bundle.json as they wrote it.

    It covers the plans, so that it fits only while they are what they were.
    """
    kept = {name: value for name, value in fields.items() if name not in _SINCE_0_11}
    kept["engines"] = _without(fields["engines"], ("parity_openvino",))
    return _sha256(json.dumps(kept, indent=1, ensure_ascii=False))


def _without(engines: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in entry.items() if key not in keys}
        for name, entry in engines.items()
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
