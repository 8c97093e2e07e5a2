"""A bundle's hash covers what samples depend on, and nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from synfer_rt.bundle import MANIFEST, Bundle, open_bundle
from tests.damaged_bundles import change, rehash


def test_its_hash_is_that_of_what_a_sample_depends_on(tiny_bundle: Bundle, copy: Path) -> None:
    def measure(fields: dict[str, Any]) -> None:
        fields["engines"]["decoder"]["parity_openvino"] = None
        fields["engines"]["decoder"]["parity"]["max_relative_error"] = 1e-5

    change(copy, measure)
    assert (copy / MANIFEST).read_bytes() != (tiny_bundle.path / MANIFEST).read_bytes()
    assert open_bundle(copy).bundle_hash == tiny_bundle.bundle_hash
    change(copy, lambda fields: fields["engines"]["decoder"].update(precision="fp16"))
    assert open_bundle(copy).bundle_hash != tiny_bundle.bundle_hash


def add_plan(directory: Path, data: bytes) -> None:
    (directory / "tensorrt-rtx").mkdir(exist_ok=True)
    (directory / "tensorrt-rtx/decoder.plan").write_bytes(data)
    source = hashlib.sha256((directory / "decoder.onnx").read_bytes()).hexdigest()
    plan = {
        "file": "tensorrt-rtx/decoder.plan",
        "version": "1.7.1",
        "compute_capabilities": ["sm90"],
        "profiles": {"latents": {"min": [1, 4, 8, 8], "opt": [8, 4, 8, 8], "max": [32, 4, 8, 8]}},
        "precision": "fp16",
        "source_sha256": source,
        "parity": None,
    }
    change(directory, lambda fields: fields.update(plans={"tensorrt-rtx": {"decoder": plan}}))
    rehash(directory, "tensorrt-rtx/decoder.plan")


def test_its_hash_does_not_depend_on_a_plans_bytes(tiny_bundle: Bundle, copy: Path) -> None:
    former = set()
    for data in (b"one build", b"another build"):
        add_plan(copy, data)
        bundle = open_bundle(copy)
        assert bundle.plans["tensorrt-rtx"]["decoder"].file == "tensorrt-rtx/decoder.plan"
        assert bundle.bundle_hash == tiny_bundle.bundle_hash
        former.add(bundle.former_hash)
    assert len(former) == 2


def test_its_hash_depends_on_every_engines_bytes(tiny_bundle: Bundle, copy: Path) -> None:
    with (copy / "denoiser.onnx").open("ab") as file:
        file.write(b"\0")
    rehash(copy, "denoiser.onnx")
    assert open_bundle(copy).bundle_hash != tiny_bundle.bundle_hash


def test_its_former_hash_is_that_of_the_manifests_bytes(copy: Path) -> None:
    fields = json.loads((copy / MANIFEST).read_text())
    for engine in fields["engines"].values():
        engine.pop("parity_openvino", None)
    text = json.dumps(fields, indent=1, ensure_ascii=False)
    (copy / MANIFEST).write_text(text, encoding="utf-8")
    change(copy, lambda f: f["engines"]["decoder"].update(parity_openvino=None))
    change(copy, lambda f: f.update(annotators_know="rendered faces"))
    assert open_bundle(copy).former_hash == hashlib.sha256(text.encode()).hexdigest()


def test_a_changed_manifest_changes_the_hash(tiny_bundle: Bundle, copy: Path) -> None:
    change(copy, lambda fields: fields.update(description="another"))
    assert open_bundle(copy).bundle_hash != tiny_bundle.bundle_hash
