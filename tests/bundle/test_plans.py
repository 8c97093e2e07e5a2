"""The plans of a bundle."""

from __future__ import annotations

from pathlib import Path

from synfer_rt.bundle import Bundle, open_bundle
from tests import tiny_bundle as tiny


def test_a_bundle_without_plans_has_none(tiny_bundle: Bundle) -> None:
    assert tiny_bundle.plans == {}


def test_plans_are_found_by_target_and_engine(copy: Path) -> None:
    bundle = tiny.add_plans(open_bundle(copy), "tensorrt-rtx", "1.7.1")
    plan = tiny.add_plans(bundle, "tensorrt", "10.1").plans["tensorrt-rtx"]["denoiser"]
    assert plan.file == "tensorrt-rtx/denoiser.plan"
    assert plan.version == "1.7.1"
    assert plan.compute_capabilities == ("sm80", "sm89")
    assert plan.batches == (1, 4, 8)
    assert plan.source_sha256 == bundle.manifest["files"]["denoiser.onnx"]["sha256"]
