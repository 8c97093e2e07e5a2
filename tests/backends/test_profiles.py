"""Which batches and image sizes a compiled plan takes, and how a sampler fits into them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from synfer_rt.backends import batch_limits, open_engine, tensorrt
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.bundle.engine_specs import TensorSpec
from synfer_rt.diffusion.solvers import trajectory
from synfer_rt.errors import UserError
from synfer_rt.sampling.sampler import Sampler
from tests import tiny_bundle as tiny
from tests.backends.test_openvino import ENGINES, inputs
from tests.samples import request

CPU = "onnxruntime-cpu"
SMALLEST, LARGEST = 1, 8


@pytest.fixture(scope="module")
def dressed(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with plans in its manifest, for batches of 1 to 8."""
    copy = shutil.copytree(tiny_bundle_path, tmp_path_factory.mktemp("plans") / "tiny")
    return tiny.add_plans(open_bundle(copy))


def test_a_tensor_has_the_sizes_of_the_batch_and_of_its_images() -> None:
    free = {"B": 3, "h": 6}
    assert tensorrt.sized(TensorSpec("latents", "float32", ("B", 4, "h", 8)), free) == (3, 4, 6, 8)
    assert tensorrt.sized(TensorSpec("timestep", "float32", ()), free) == ()
    assert tensorrt.sized(TensorSpec("coefficients", "float32", (4, 5)), free) == (4, 5)


@pytest.mark.parametrize("batch", [SMALLEST, 3, LARGEST])
def test_a_batch_within_the_profile_is_taken(dressed: Bundle, batch: int) -> None:
    plan, spec = dressed.plans["tensorrt-rtx"]["denoiser"], dressed.engines["denoiser"]
    assert tensorrt.batch_size(plan, spec.inputs, inputs(spec, batch)) == batch


@pytest.mark.parametrize("batch", [0, LARGEST + 1, 100])
def test_a_batch_outside_the_profile_is_refused(dressed: Bundle, batch: int) -> None:
    plan, spec = dressed.plans["tensorrt-rtx"]["denoiser"], dressed.engines["denoiser"]
    with pytest.raises(
        UserError, match=f"runs 1 to 8 images at once, not {batch}; write such a `batch`, .*--batch"
    ):
        tensorrt.batch_size(plan, spec.inputs, inputs(spec, batch))


def test_the_limits_of_a_batch_are_the_profile_s(dressed: Bundle) -> None:
    assert batch_limits(dressed, "denoiser", "tensorrt-rtx-cuda") == (SMALLEST, LARGEST)
    assert batch_limits(dressed, "denoiser", "tensorrt-cuda") == (1, None)
    assert batch_limits(dressed, "denoiser", CPU) == (1, None)


@pytest.mark.parametrize(
    ("batches", "count", "sizes"),
    [
        ((1, 4, 8), 20, [7, 7, 7]),
        ((1, 4, 8), 8, [8]),
        ((4, 4, 8), 2, [4]),
        ((3, 3, 3), 7, [3, 3, 3]),
    ],
)
def test_a_sampler_fits_a_batch_into_the_profile(
    tiny_bundle_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batches: tuple[int, int, int],
    count: int,
    sizes: list[int],
) -> None:
    """The engines here are those of the CPU; how a batch is split is settled before they run."""
    copy = open_bundle(shutil.copytree(tiny_bundle_path, tmp_path / "copy"))
    bundle = tiny.add_plans(copy, batches=batches)
    sampler = Sampler.of(bundle, CPU, threads=1)
    sampler.engines.backend = "tensorrt-rtx-cuda"
    monkeypatch.setattr("synfer_rt.backends.loaded_engines.free_memory", lambda backend: None)
    found: list[int] = []

    class Counting:
        def __init__(self, name: str) -> None:
            self.engine = open_engine(bundle, name, CPU, 1)

        def run(self, given: dict[str, Any]) -> dict[str, Any]:
            found.append(len(next(iter(given.values()))))
            return self.engine.run(given)

        def run_on_device(self, given: dict[str, Any]) -> dict[str, Any]:
            found.append(len(given["tokens"] if "tokens" in given else given["guidance"]))
            return self.engine.run_on_device(given)

    for name in ENGINES:
        monkeypatch.setitem(sampler.engines._loaded, name, Counting(name))
    way = trajectory("ddim", bundle.schedule, 1, 1.0, bundle.prediction_type)
    samples = sampler.sample([request(i) for i in range(count)], way, batch=count)
    assert [sample.request.index for sample in samples] == list(range(count))
    each = [size for size in sizes for _ in ("conditioner", "denoiser")]
    assert found == each + sizes + sizes  # then all of them decoded, then all judged
