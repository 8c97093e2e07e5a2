"""The identity of a bundle: a hash of all that a sample depends on, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from synfer_rt.bundle.engine_specs import DISTILLED, REUSING
from synfer_rt.bundle.former_names import former_manifest

CARD = "README.md"
"""A bundle's model card."""
CHECKPOINT_INDEX, CHECKPOINT_TENSORS = "checkpoint.json", "checkpoint.safetensors"
"""What a bundle keeps of its checkpoint, so that the checkpoint can be unpacked again."""
GUIDE, GUIDE_WEIGHTS = "image_classifier.onnx", "image_classifier.onnx.data"
"""The ONNX file that the gradient of guide.text was made of, kept for the same purpose; the second
holds its weights if they are large."""
NOT_SAMPLED = (CARD, CHECKPOINT_INDEX, CHECKPOINT_TENSORS, GUIDE, GUIDE_WEIGHTS)
"""Files that samples do not depend on."""
_MEASURED = ("parity", "parity_openvino")
"""The fields of an engine that hold measurements of the finished engine."""
_NOT_SAMPLED_FIELDS = ("plans", "cuda", "exporter", "face_template")
"""The fields that samples do not depend on."""
_SINCE_0_11 = ("annotators_know", "cuda", "face_template")
"""The fields that later releases added to the manifest."""
_STUDENT = "distilled_unet/"
"""A student's folder in the checkpoint."""
_IN_ITS_PLACE = "denoiser."
"""How the names of engines begin that denoise in the denoiser's place."""
DIFFERING = frozenset({DISTILLED, REUSING})
"""Those of them that predict otherwise than the denoiser; the others compute what it computes."""


def identity(fields: Mapping[str, Any], differing: Collection[str] = ()) -> str:
    """SHA-256 of a manifest without the fields that samples do not depend on.

    The samples are those of the denoiser or, if `differing` names some of DIFFERING, those in which
    these engines have a part. So a bundle that gets a student makes the samples that it made
    before under the same hash.

    These are the exporter's versions, where aligned faces have their points, the model card, what
    is kept of the checkpoint, and what was measured of the engines. Plans and CUDA engines are left
    out too: they compute what the engines do, a library writes other bytes of a plan at each build,
    and a run's backend, precision and version say where they ran. The names of engines are those
    that older releases wrote (former_names.py).
    """
    fields = former_manifest(_without_others(fields, differing))
    made = _cuda_files(fields) | {
        entry["file"] for entries in fields.get("plans", {}).values() for entry in entries.values()
    }
    left_out = {*NOT_SAMPLED, *made} - {entry["file"] for entry in fields["engines"].values()}
    kept = {k: value for k, value in fields.items() if k not in _NOT_SAMPLED_FIELDS}
    kept["engines"] = _without(fields["engines"], _MEASURED)
    kept["files"] = {name: e for name, e in fields["files"].items() if name not in left_out}
    return _sha256(json.dumps(kept, sort_keys=True))


def former_identity(fields: Mapping[str, Any]) -> str:
    """The identity by the rule of releases up to 0.11: the SHA-256 of bundle.json as they wrote it.

    It covers the plans and the model card, so it holds only while these stay the same; CUDA engines
    came later.
    """
    fields = former_manifest(_without_others(fields, ()))
    kept = {name: value for name, value in fields.items() if name not in _SINCE_0_11}
    kept["engines"] = _without(fields["engines"], ("parity_openvino",))
    added = {*NOT_SAMPLED, *_cuda_files(fields)} - {CARD}
    kept["files"] = {name: e for name, e in fields["files"].items() if name not in added}
    return _sha256(json.dumps(kept, indent=1, ensure_ascii=False))


def _without_others(fields: Mapping[str, Any], used: Collection[str]) -> dict[str, Any]:
    """A manifest without the engines in the denoiser's place that are not `used`.

    That is without their files and plans, the qualities unless they name one that is used, and the
    file of weights that a student comes from.
    """
    others = {name for name in fields["engines"] if name.startswith(_IN_ITS_PLACE)} - {*used}
    kept = {k: value for k, value in fields.items() if k != "qualities" or DISTILLED in used}
    files: set[str] = set()

    def without(entries: Mapping[str, Any]) -> dict[str, Any]:
        files.update(entries[name]["file"] for name in others & entries.keys())
        return {name: value for name, value in entries.items() if name not in others}

    kept["engines"] = without(fields["engines"])
    files |= {f"{file}.data" for file in files}
    if "cuda" in fields:
        kept["cuda"] = without(fields["cuda"])
    if "plans" in fields:
        kept["plans"] = {target: without(entries) for target, entries in fields["plans"].items()}
    kept["files"] = {name: value for name, value in fields["files"].items() if name not in files}
    kept["defaults"] = {k: value for k, value in fields["defaults"].items() if k != "quality"}
    if hashes := fields["source"].get("sha256"):
        weights = {k: value for k, value in hashes.items() if not k.startswith(_STUDENT)}
        kept["source"] = {**fields["source"], "sha256": weights}
    return kept


def _cuda_files(fields: Mapping[str, Any]) -> set[str]:
    return {entry["file"] for entry in fields.get("cuda", {}).values()}


def _without(engines: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in entry.items() if key not in keys}
        for name, entry in engines.items()
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
