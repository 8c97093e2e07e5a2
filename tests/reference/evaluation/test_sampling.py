"""Images of given requests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="judging needs PyTorch (synfer-rt[reference])")

from reference.evaluation import sampling
from synfer_rt.diffusion.feature_caching import with_cached_features
from synfer_rt.diffusion.solvers import trajectory
from synfer_rt.sampling.requests import make_requests
from synfer_rt.sampling.sampler import Sampler
from tests.caching import with_caching


def test_images_are_kept_for_the_same_requests_only(
    tiny_bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, calls = Sampler.of(tiny_bundle, "onnxruntime-cpu", 1), []
    real = sampling.sample
    monkeypatch.setattr(sampling, "sample", lambda *a: calls.append(1) or real(*a))
    requests = make_requests(tiny_bundle, layout="none", seed=3)[:3]

    def kept(requests, steps: int = 2) -> np.ndarray:
        way = trajectory("ddim", tiny_bundle.schedule, steps, 1.0, tiny_bundle.prediction_type)
        return sampling.kept(sampler, requests, way, tmp_path, "sampling", batch=2)["images"]

    first, again = kept(requests), kept(requests)
    assert len(calls) == 2 and np.array_equal(first, again) and len(first) == 3
    assert not np.array_equal(kept(requests, steps=3), first)
    assert np.array_equal(kept(requests[::-1])[::-1], first) and len(calls) == 6


def test_faces_go_through_the_vae_and_back(tiny_bundle, tmp_path: Path) -> None:
    sampler = Sampler.of(tiny_bundle, "onnxruntime-cpu", 1)
    size = tiny_bundle.image_size
    faces = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    rebuilt = sampling.reconstructed(sampler, faces, tmp_path)
    pixels = faces.transpose(0, 3, 1, 2) / np.float32(255)
    wanted = sampler.decode(sampler.encode(pixels)[0]).clip(0, 1).transpose(0, 2, 3, 1) * 255
    np.testing.assert_allclose(rebuilt, wanted, atol=0.51)
    assert not np.array_equal(rebuilt, sampling.reconstructed(sampler, faces[::-1], tmp_path))


def test_samples_of_another_student_are_others(student_bundle, tmp_path: Path) -> None:
    requests = make_requests(student_bundle, layout="none", seed=3)[:1]
    sampler = Sampler.of(student_bundle, "onnxruntime-cpu", 1)
    ways = (student_bundle.trajectory(strength=1.0, quality=q) for q in ("best", "fast"))
    best, fast = (sampling.facts(sampler, requests, way)[0] for way in ways)
    assert best == student_bundle.bundle_hash != fast
    assert fast == student_bundle.hash_with("denoiser.distilled")


def test_samples_whose_features_are_reused_are_others(tiny_bundle, tmp_path: Path) -> None:
    bundle = with_caching(tiny_bundle, tmp_path / "bundle")
    requests = make_requests(bundle, layout="none", seed=3)[:1]
    sampler = Sampler.of(bundle, "onnxruntime-cpu", 1)
    whole = bundle.trajectory(steps=2, strength=1.0)
    ways = whole, with_cached_features(whole, 2)
    alone, reused = (sampling.facts(sampler, requests, way)[0] for way in ways)
    assert alone == bundle.bundle_hash != reused
    assert reused == bundle.hash_with("denoiser.reusing")
