"""A bundle's hash covers what samples depend on, and nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from synfer_rt.bundle import MANIFEST, Bundle, open_bundle
from tests import tiny_bundle as tiny
from tests.damaged_bundles import change, rehash
from tests.students import with_student


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


def test_a_student_changes_no_hash_of_what_the_denoiser_makes(
    guided_bundle: Bundle, student_bundle: Bundle
) -> None:
    """Nor do the engine of the conditional branch and the default quality."""
    assert {"denoiser.distilled", "denoiser.conditional"} < student_bundle.engines.keys()
    assert student_bundle.bundle_hash == guided_bundle.bundle_hash
    assert student_bundle.former_hash == guided_bundle.former_hash
    for engines in ((), ("denoiser",), ("denoiser.conditional",)):
        assert student_bundle.hash_with(*engines) == guided_bundle.bundle_hash


def test_its_weight_files_are_no_source_of_what_the_denoiser_makes(copy: Path) -> None:
    before = open_bundle(copy).bundle_hash

    def hash_with_sources(**files: str) -> str:
        change(copy, lambda fields: fields.update(source={"name": "tiny", "sha256": files}))
        return open_bundle(copy).bundle_hash

    teacher = {"unet/model.safetensors": "ab"}
    both = teacher | {"distilled_unet/model.safetensors": "cd"}
    assert hash_with_sources(**both) == hash_with_sources(**teacher) != before


def test_a_students_images_are_named_by_another_hash(
    branched_bundle: Bundle, student_bundle: Bundle, tmp_path: Path
) -> None:
    fast = student_bundle.hash_with("denoiser.distilled")
    assert fast != student_bundle.bundle_hash
    other = with_student(branched_bundle, tmp_path / "other", "best")
    assert other.hash_with("denoiser.distilled") == fast  # whatever the default quality
    with (tmp_path / "other/denoiser.distilled.onnx").open("ab") as file:
        file.write(b"\0")
    rehash(tmp_path / "other", "denoiser.distilled.onnx")
    other = open_bundle(tmp_path / "other")
    assert other.hash_with("denoiser.distilled") != fast
    assert other.bundle_hash == student_bundle.bundle_hash


def test_plans_and_cuda_engines_of_a_student_change_no_hash(
    student_bundle: Bundle, tmp_path: Path
) -> None:
    bundle = open_bundle(shutil.copytree(student_bundle.path, tmp_path / "copy"))
    bundle = tiny.add_cuda_engines(tiny.add_plans(bundle))
    assert "denoiser.distilled" in bundle.cuda
    assert bundle.bundle_hash == student_bundle.bundle_hash
    assert bundle.hash_with("denoiser.distilled") == student_bundle.hash_with("denoiser.distilled")
