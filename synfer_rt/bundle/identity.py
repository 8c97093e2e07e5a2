"""The identity of a bundle: a hash of all that a sample depends on, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from synfer_rt.bundle.former_names import former_manifest

CARD = "README.md"
"""A bundle's model card."""
CHECKPOINT_INDEX, CHECKPOINT_TENSORS = "checkpoint.json", "checkpoint.safetensors"
"""What a bundle keeps of its checkpoint, so that the checkpoint can be unpacked again."""
NOT_SAMPLED = (CARD, CHECKPOINT_INDEX, CHECKPOINT_TENSORS)
"""Files that samples do not depend on."""
_MEASURED = ("parity", "parity_openvino")
"""The fields of an engine that hold measurements of the finished engine."""
_SINCE_0_11 = ("annotators_know", "cuda")
"""The fields that later releases added to the manifest."""


def identity(fields: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest without the fields that samples do not depend on.

    These are the exporter's versions, the model card, what is kept of the checkpoint, and what was
    measured of the engines. Plans and CUDA engines are left out too: they compute what the engines
    do, a library writes other bytes of a plan at each build, and a run's backend, precision and
    version say where they ran. The names of engines are those that older releases wrote
    (former_names.py).
    """
    fields = former_manifest(fields)
    made = _cuda_files(fields) | {
        entry["file"] for entries in fields.get("plans", {}).values() for entry in entries.values()
    }
    left_out = {*NOT_SAMPLED, *made} - {entry["file"] for entry in fields["engines"].values()}
    kept = {k: value for k, value in fields.items() if k not in ("plans", "cuda", "exporter")}
    kept["engines"] = _without(fields["engines"], _MEASURED)
    kept["files"] = {name: e for name, e in fields["files"].items() if name not in left_out}
    return _sha256(json.dumps(kept, sort_keys=True))


def former_identity(fields: Mapping[str, Any]) -> str:
    """The identity by the rule of releases up to 0.11: the SHA-256 of bundle.json as they wrote it.

    It covers the plans and the model card, so it holds only while these stay the same; CUDA engines
    came later.
    """
    fields = former_manifest(fields)
    kept = {name: value for name, value in fields.items() if name not in _SINCE_0_11}
    kept["engines"] = _without(fields["engines"], ("parity_openvino",))
    added = {CHECKPOINT_INDEX, CHECKPOINT_TENSORS, *_cuda_files(fields)}
    kept["files"] = {name: e for name, e in fields["files"].items() if name not in added}
    return _sha256(json.dumps(kept, indent=1, ensure_ascii=False))


def _cuda_files(fields: Mapping[str, Any]) -> set[str]:
    return {entry["file"] for entry in fields.get("cuda", {}).values()}


def _without(engines: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in entry.items() if key not in keys}
        for name, entry in engines.items()
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
