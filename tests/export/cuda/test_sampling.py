"""Sampling with real CUDA engines, in float16, makes the images of the engines that run on CPUs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the build side needs synfer-rt[export]")

from synfer_rt.backends.cuda_engine import CudaEngine
from synfer_rt.bundle import open_bundle
from synfer_rt.sampling.requests import make_requests
from synfer_rt.sampling.sampler import Sampler
from tests.cuda_bundles import CPU, reference_cuda_engine, run_on_cpu, with_cuda_engines


def test_synfer_minis_images_differ_by_a_level_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle()
    used = {"conditioner", "denoiser", "decoder", *bundle.annotators}
    unused = sorted(bundle.engines.keys() - used)
    cuda = with_cuda_engines(bundle, tmp_path / "cuda", unused, reference_cuda_engine)
    requests, way = make_requests(bundle, seed=3)[:3], bundle.trajectory()
    wanted = Sampler.of(bundle, CPU, threads=1).sample(requests, way, 3)
    run_on_cpu(monkeypatch)
    sampler = Sampler.of(cuda, CPU, threads=1)
    assert isinstance(sampler.engines["denoiser"], CudaEngine)
    for one, other in zip(sampler.sample(requests, way, 3), wanted, strict=True):
        assert np.abs(one.image.astype(int) - other.image).max() <= 1
        assert (one.label, one.accepted) == (other.label, other.accepted)
        for name, probability in other.probabilities.items():
            assert one.probabilities[name] == pytest.approx(probability, abs=5e-3)
