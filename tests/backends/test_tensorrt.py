"""Plans of TensorRT and TensorRT-RTX, run.

This is what to run where there is a GPU, with `pytest -m gpu`: it compiles the tiny bundle for that
GPU and holds it against ONNX Runtime on the CPU, engine by engine and for whole samples. Without a
GPU the same tests run on a simulated one (host_gpu.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from synfer_rt import backends
from synfer_rt.backends import (
    TARGETS,
    BackendStatus,
    choice,
    choose,
    cuda,
    open_engine,
    runtimes,
    tensorrt,
    tensorrt_library,
    to_numpy,
)
from synfer_rt.backends.computation import computation
from synfer_rt.bundle import Bundle, open_bundle, write_manifest
from synfer_rt.diffusion.solvers import Trajectory, trajectory
from synfer_rt.errors import UserError
from synfer_rt.sampling.guidance import semantic_guidance
from synfer_rt.sampling.requests import make_requests
from synfer_rt.sampling.sampler import Sampler
from tests import tiny_bundle as tiny
from tests.backends.host_gpu import (
    HostLibrary,
    HostRuntime,
    IExecutionContext,
)
from tests.backends.test_openvino import ENGINES, inputs
from tests.samples import difference, request

CPU = "onnxruntime-cpu"
SMALLEST, BEST, LARGEST = 1, 4, 8
READERS = ("classifier.seven", "feranno", "au-reader")


ON = [
    *(pytest.param((name, False), marks=pytest.mark.gpu, id=name) for name in TARGETS),
    *(pytest.param((name, True), id=f"{name}-simulated") for name in TARGETS),
]


@pytest.fixture(scope="module", params=ON)
def gpu(request: pytest.FixtureRequest) -> Iterator[tuple[str, bool]]:
    """The backend, and whether its GPU is simulated."""
    name, simulated = request.param
    if not simulated:
        status = backends.status(name)
        if not status.works:
            pytest.skip(f"{name}: {status.reason}")
        yield request.param
        return
    runtime = HostRuntime()
    device = cuda.Device(runtime)
    library = HostLibrary(runtime, with_kernels=name == "tensorrt-rtx-cuda")

    def works(other: str) -> BackendStatus:
        return BackendStatus(other, other == name or other.endswith("-cpu"), "not simulated", "")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "device", lambda: device)
        patch.setattr(cuda, "problem", lambda: None)
        patch.setattr(tensorrt_library, "load", lambda target: library)
        patch.setattr(choice, "status", works)
        yield request.param


@pytest.fixture(scope="module")
def backend(gpu: tuple[str, bool]) -> str:
    return gpu[0]


@pytest.fixture(scope="module")
def planned(
    gpu: tuple[str, bool],
    guided_bundle: Bundle,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    """The tiny bundle with annotators and guides, compiled for this GPU in float32."""
    copy = tmp_path_factory.mktemp("planned") / "tiny"
    return compiled_for(gpu, open_bundle(shutil.copytree(guided_bundle.path, copy)))


def compiled_for(gpu: tuple[str, bool], bundle: Bundle, precision: str = "fp32") -> Bundle:
    """`bundle` with plans for this GPU, of its guides in float32 always."""
    target, simulated = TARGETS[gpu[0]], gpu[1]
    if simulated:
        return tiny.add_plans(bundle, target, HostLibrary.__version__)
    from synfer_rt.export.tensorrt.compile import compile_plan

    copy, latent = bundle.path, (bundle.latent.height, bundle.latent.width)
    entries = {}
    for name, spec in bundle.engines.items():
        gradient = name.startswith("guide.")
        made = compile_plan(
            name,
            copy / spec.file,
            copy,
            target,
            [cuda.device().compute_capability],
            (SMALLEST, BEST, LARGEST),
            "fp32" if gradient else precision,
            copy.with_suffix(".log"),
            axes=bundle.sizes and bundle.sizes.axes(bundle.image_size, latent),
        )
        digest = bundle.manifest["files"][spec.file]["sha256"]
        entries[name] = {**made.entry, "source_sha256": digest}
    fields = {k: v for k, v in bundle.manifest.items() if k not in ("format", "files")}
    return write_manifest(copy, {**fields, "plans": {target: entries}})


@pytest.fixture
def transfers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The sizes in bytes of what is brought home from the GPU."""
    sizes: list[int] = []
    download = cuda.Device.download

    def counting(self: cuda.Device, pointer: int, target: np.ndarray) -> None:
        sizes.append(target.nbytes)
        download(self, pointer, target)

    monkeypatch.setattr(cuda.Device, "download", counting)
    yield sizes


@pytest.mark.parametrize("batch", [SMALLEST, 3, LARGEST])
@pytest.mark.parametrize("name", (*ENGINES, *READERS, "guide.latent", "guide.text-latent"))
def test_every_engine_gives_what_onnxruntime_gives_on_the_cpu(
    planned: Bundle, backend: str, name: str, batch: int
) -> None:
    given = inputs(planned.engines[name], batch)
    wanted = open_engine(planned, name, CPU, 1).run(given)
    found = open_engine(planned, name, backend).run(given)
    assert list(found) == list(wanted)
    for output, array in wanted.items():
        assert found[output].dtype == array.dtype
        np.testing.assert_allclose(found[output], array, atol=2e-3 * np.abs(array).max())


@pytest.mark.parametrize("batch", [1, 3, LARGEST, 20])
def test_a_whole_sample_is_that_of_the_cpu(
    planned: Bundle, backend: str, way: Trajectory, batch: int
) -> None:
    requests = [request(i) for i in range(batch)]
    one, other = (
        Sampler.of(planned, name, threads=1).sample(requests, way, batch) for name in (CPU, backend)
    )
    assert all(difference(a, b) <= 3 for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("form", ["latent", "text-latent"])
def test_a_guided_sample_and_its_labels_are_those_of_the_cpu(
    planned: Bundle, backend: str, way: Trajectory, form: str
) -> None:
    requests = [request(i) for i in range(5)]
    guidance = semantic_guidance(planned, 0.1, form)
    plain, wanted, found = (
        Sampler.of(planned, name, threads=1).sample(requests, way, 5, how)
        for name, how in ((CPU, None), (CPU, guidance), (backend, guidance))
    )
    assert any(difference(a, b) > 3 for a, b in zip(plain, wanted, strict=True))
    for a, b in zip(wanted, found, strict=True):
        assert difference(a, b) <= 3
        assert a.probabilities == pytest.approx(b.probabilities, abs=0.02)


@pytest.mark.slow
def test_synfer_mini_in_float16_shows_what_it_shows_on_the_cpu(
    gpu: tuple[str, bool], backend: str, tmp_path: Path
) -> None:
    copy = shutil.copytree(open_bundle().path, tmp_path / "mini")
    mini = compiled_for(gpu, open_bundle(copy), "fp16")
    requests, way = make_requests(mini)[:LARGEST], mini.defaults
    steps = trajectory(
        way.solver, mini.schedule, way.steps, way.layout_strength, mini.prediction_type
    )
    wanted, found = (
        Sampler.of(mini, name).sample(requests, steps, LARGEST) for name in (CPU, backend)
    )
    for a, b in zip(wanted, found, strict=True):
        assert np.abs(a.image.astype(int) - b.image).mean() < 2
        assert (a.label, a.accepted) == (b.label, b.accepted)


def test_samples_of_free_sizes_are_those_of_the_cpu(
    gpu: tuple[str, bool], backend: str, tmp_path: Path
) -> None:
    sizes = {"min": 16, "max": 48, "multiple_of": 8}
    bundle = compiled_for(gpu, tiny.build(tmp_path / "free", sizes=sizes))
    way = trajectory("ddim", bundle.schedule, 3, prediction_type=bundle.prediction_type)
    requests = [replace(request(i), layout=None) for i in range(3)]
    for size in ((32, 32), (24, 40), (48, 16)):
        other = bundle.resized(size)
        one, two = (
            Sampler.of(other, name, threads=1).sample(requests, way, 3) for name in (CPU, backend)
        )
        assert one[0].image.shape == (*size, 3)
        assert all(difference(a, b) <= 3 for a, b in zip(one, two, strict=True))


def test_the_same_requests_give_the_same_bits(
    planned: Bundle, backend: str, way: Trajectory
) -> None:
    requests = [request(i) for i in range(5)]
    sampler = Sampler.of(planned, backend)
    runs = [sampler.sample(requests, way, 5) for _ in range(3)]
    runs.append(Sampler.of(planned, backend).sample(requests, way, 5))
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            np.testing.assert_array_equal(one.image, other.image)


@pytest.mark.parametrize("batch", [1, 3, LARGEST])
def test_with_and_without_graphs_the_outputs_are_equal(
    planned: Bundle, backend: str, batch: int
) -> None:
    given = inputs(planned.engines["denoiser"], batch)
    with_graphs, without = (
        tensorrt.TensorRTEngine(planned, "denoiser", backend, graphs) for graphs in (True, False)
    )
    wanted = without.run(given)
    for _ in range(4):  # run, recorded, replayed, replayed
        found = with_graphs.run(given)
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array)


def test_a_replayed_graph_reads_the_inputs_of_its_call(planned: Bundle, backend: str) -> None:
    spec = planned.engines["denoiser"]
    engine, wanted = (
        open_engine(planned, "denoiser", backend),
        open_engine(planned, "denoiser", CPU),
    )
    for seed, batch in enumerate((3, 3, 1, 3, 8, 1, 3)):
        given = inputs(spec, batch, seed)
        expected = wanted.run(given)["next_latents"]
        found = engine.run(given)["next_latents"]
        np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_many_batch_sizes_in_turn_leave_memory_for_a_few(planned: Bundle, backend: str) -> None:
    engine = tensorrt.TensorRTEngine(planned, "decoder", backend)
    spec = planned.engines["decoder"]
    first = engine.run(inputs(spec, 1))["images"]
    for batch in range(1, LARGEST + 1):
        engine.run(inputs(spec, batch))
    assert len(engine._batches) == tensorrt._MOST_BATCHES
    np.testing.assert_array_equal(engine.run(inputs(spec, 1))["images"], first)


def test_latents_do_not_leave_the_gpu_between_steps(
    planned: Bundle, backend: str, way: Trajectory, transfers: list[int]
) -> None:
    sampler = Sampler.of(planned, backend)
    requests = [request(i) for i in range(4)]
    conditioning, latents = sampler.condition(requests), sampler.start(requests, way)
    steps = list(sampler.denoise(latents, conditioning, np.ones(4, "f4"), way))
    assert transfers == []
    final = to_numpy(steps[-1])
    assert transfers == [final.nbytes]
    assert final.shape == (4, *tiny.LATENT)


def test_what_a_step_gave_stays_as_it_is_while_others_run(
    planned: Bundle, backend: str, way: Trajectory
) -> None:
    sampler = Sampler.of(planned, backend)
    requests = [request(i) for i in range(2)]
    conditioning, latents = sampler.condition(requests), sampler.start(requests, way)
    at_once, in_the_end = [], []
    for step in sampler.denoise(latents, conditioning, np.ones(2, "f4"), way):
        at_once.append(to_numpy(step))
        in_the_end.append(step)
    for early, late in zip(at_once, in_the_end, strict=True):
        np.testing.assert_array_equal(to_numpy(late), early)


def test_buffers_are_used_again(
    planned: Bundle, backend: str, way: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = Sampler.of(planned, backend)
    requests = [request(i) for i in range(4)]
    for _ in range(2):  # the first gives up what is idle, to learn how much memory is free
        sampler.sample(requests, way, 4)
    allocated: list[int] = []
    pool = cuda.device().pool
    allocate = pool._allocate
    monkeypatch.setattr(pool, "_allocate", lambda size: (allocated.append(size), allocate(size))[1])
    for _ in range(3):
        sampler.sample(requests, way, 4)
    assert allocated == []


def test_a_graph_is_recorded_once_for_each_batch_size(
    planned: Bundle, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "tensorrt-rtx-cuda":
        pytest.skip("TensorRT-RTX records its graphs itself")
    recorded: list[int] = []
    record = cuda.Device.record

    def counting(self: cuda.Device, work: Any) -> cuda.Graph:
        recorded.append(1)
        return record(self, work)

    monkeypatch.setattr(cuda.Device, "record", counting)
    engine = open_engine(planned, "denoiser", backend)
    for batch in (2, 2, 2, 5, 5, 2):
        engine.run(inputs(planned.engines["denoiser"], batch))
    assert len(recorded) == 2


def test_kernels_compiled_for_this_gpu_are_kept(
    planned: Bundle, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "tensorrt-cuda":
        pytest.skip("TensorRT compiles nothing when a plan runs")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    given = inputs(planned.engines["decoder"], 2)
    cold = open_engine(planned, "decoder", backend).run(given)["images"]
    (file,) = tmp_path.rglob("decoder-*.kernels")
    assert file.stat().st_size > 0
    warm = open_engine(planned, "decoder", backend).run(given)["images"]
    np.testing.assert_array_equal(warm, cold)


def test_more_images_than_the_profile_has_are_refused(planned: Bundle, backend: str) -> None:
    engine = open_engine(planned, "decoder", backend)
    with pytest.raises(UserError, match="runs 1 to 8 images at once, not 9"):
        engine.run(inputs(planned.engines["decoder"], 9))


def test_small_networks_compiled_here_are_right(backend: str, gpu: tuple[str, bool]) -> None:
    assert runtimes.probed.__wrapped__(backend) == BackendStatus(backend, True, "works", "")


def test_a_gpu_that_computes_nothing_is_noticed(
    backend: str, gpu: tuple[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not gpu[1]:
        pytest.skip("a real GPU computes")
    monkeypatch.setattr(IExecutionContext, "execute_async_v3", lambda *_: True)
    found = runtimes.probed.__wrapped__(backend)
    assert not found.works
    assert found.reason == "convolution, group normalisation, attention: wrong values"


def test_a_plan_is_built_as_the_library_wants_it(
    guided_bundle: Bundle, backend: str, gpu: tuple[str, bool], tmp_path: Path
) -> None:
    """The build side's own steps, which a machine with the library runs in a process apart."""
    from synfer_rt.export.tensorrt import compile

    if not gpu[1]:
        pytest.skip("compiled_for does the same on a real GPU")
    target, cache = TARGETS[backend], tmp_path / "timing"
    file, plan = guided_bundle.path / "decoder.onnx", tmp_path / "decoder.plan"
    free = {"B": (1, 2, 4)}
    job = compile._Job(target, ("sm89",), free, "fp32", str(file), str(plan), str(cache), None)
    profiles = compile._compile(tensorrt_library.load(target), job, file)
    assert isinstance(profiles, dict)
    assert [shape[0] for shape in profiles["latents"].values()] == [1, 2, 4]
    assert onnx.load(plan) == onnx.load(file)
    assert cache.exists() == (target == "tensorrt")


def test_a_run_says_with_what_plans_compute(planned: Bundle, gpu: tuple[str, bool]) -> None:
    name = gpu[0]
    found = computation(planned, name)
    plan = planned.plans[TARGETS[name]]["denoiser"]
    assert (found.backend, found.precision, found.elsewhere) == (name, plan.precision, ())
    assert found.runtime == f"{TARGETS[name]} {plan.version}"
    assert found.device in plan.compute_capabilities


def test_every_denoiser_needs_its_plan(branched_bundle: Bundle, tmp_path: Path) -> None:
    """A run can use any of them."""
    copy = open_bundle(Path(shutil.copytree(branched_bundle.path, tmp_path / "copy")))
    whole = tiny.add_plans(copy, "tensorrt-rtx", "1.7.1")
    assert tensorrt.plans_obstacle(whole, "tensorrt-rtx", "1.7.1", "sm89") is None
    plans = dict(whole.plans["tensorrt-rtx"])
    del plans["denoiser.conditional"]
    less = replace(whole, plans={"tensorrt-rtx": plans})
    found = tensorrt.plans_obstacle(less, "tensorrt-rtx", "1.7.1", "sm89")
    assert found is not None and found.endswith("plan for denoiser.conditional")


def test_auto_takes_the_plans(planned: Bundle, backend: str) -> None:
    name, _ = choose("auto", planned)
    assert name == backend
