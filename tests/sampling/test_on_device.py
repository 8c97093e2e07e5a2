"""Bound engines, from buffers to buffers, give what engines give that are called one by one."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import sleep
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("onnx_ir", reason="CUDA engines are made by synfer-rt[export]")

from synfer_rt.backends import open_engine, to_numpy
from synfer_rt.backends.cuda_engine import CudaEngine
from synfer_rt.backends.engine import Buffer, Engine
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle
from synfer_rt.diffusion.solvers import Trajectory, trajectory
from synfer_rt.sampling.guidance import SemanticGuidance
from synfer_rt.sampling.inversion import invert
from synfer_rt.sampling.observer import Observer
from synfer_rt.sampling.on_device import OnDevice
from synfer_rt.sampling.requests import Request
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.sampling.samples import Sample
from tests import tiny_bundle as tiny
from tests.cuda_bundles import CPU, run_on_cpu, with_cuda_engines
from tests.samples import request


@pytest.fixture(scope="module")
def cuda_bundle(guided_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_cuda_engines(guided_bundle, tmp_path_factory.mktemp("cuda") / "bundle")


@pytest.fixture(scope="module")
def plain(guided_bundle: Bundle) -> Sampler:
    return Sampler.of(guided_bundle, CPU, threads=1)


@pytest.fixture
def bound(cuda_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Sampler:
    run_on_cpu(monkeypatch)
    return Sampler.of(cuda_bundle, CPU, threads=1)


class Recorded:
    """A bound engine that keeps the addresses of each call."""

    def __init__(self, engine: CudaEngine) -> None:
        self._engine, self.calls = engine, list[tuple[tuple[int, ...], tuple[int, ...]]]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def allocate(self, shape: tuple[int, ...], dtype: str) -> Buffer:
        return self._engine.allocate(shape, dtype)

    def enqueue(
        self, inputs: Mapping[str, Any], outputs: Mapping[str, Any], *, wait: bool = False
    ) -> None:
        read = tuple(inputs[t.name].address for t in self._engine._cuda.inputs)
        self.calls.append((read, tuple(buffer.address for buffer in outputs.values())))
        self._engine.enqueue(inputs, outputs, wait=wait)


def recorded(sampler: Sampler, *names: str) -> list[Recorded]:
    engines: dict[str, Any] = sampler.engines._loaded
    for name in names:
        engines[name] = Recorded(cast(CudaEngine, sampler.engines[name]))
    return [engines[name] for name in names]


def assert_equal(found: list[Sample], wanted: list[Sample]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        assert replace(one, image=other.image) == other


def test_engines_that_can_be_bound_are(bound: Sampler, plain: Sampler) -> None:
    assert isinstance(bound.engines["denoiser"], CudaEngine)
    assert OnDevice.of(bound.engines, ["denoiser"], None, Observer()) is not None
    assert OnDevice.of(plain.engines, ["denoiser"], None, Observer()) is None


@pytest.mark.parametrize("count", [1, 5])
def test_samples_are_those_of_the_plain_engines(
    bound: Sampler, plain: Sampler, way: Trajectory, count: int
) -> None:
    requests = [request(i) for i in range(count)]
    assert_equal(bound.sample(requests, way, 3), plain.sample(requests, way, 3))


@pytest.mark.parametrize("solver", ["lcm", "dpmpp-sde"])
def test_fresh_noise_is_added_on_the_host(bound: Sampler, plain: Sampler, solver: str) -> None:
    bundle = plain.bundle
    noisy = trajectory(solver, bundle.schedule, 3, 1.0, bundle.prediction_type)
    requests = [request(i) for i in range(4)]
    assert_equal(bound.sample(requests, noisy, 3), plain.sample(requests, noisy, 3))


def test_threads_take_turns(bound: Sampler, plain: Sampler, way: Trajectory) -> None:
    parts = [[request(i) for i in range(first, first + 3)] for first in range(0, 36, 3)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda part: bound.sample(part, way, 3), parts))
    for samples, part in zip(found, parts, strict=True):
        assert_equal(samples, plain.sample(part, way, 3))


def test_threads_load_an_engine_once(bound: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def slow(bundle: Bundle, name: str, *others: Any) -> Engine:
        loaded.append(name)
        sleep(0.02)
        return open_engine(bundle, name, *others)

    monkeypatch.setattr("synfer_rt.backends.loaded_engines.open_engine", slow)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: bound.engines["decoder"], range(4)))
    assert loaded == ["decoder"] and len(set(map(id, found))) == 1


@pytest.mark.parametrize("form", ["latent", "text-latent"])
@pytest.mark.parametrize(("start", "every"), [(0.0, 1), (0.4, 1), (0.3, 2), (0.0, 3), (0.8, 1)])
def test_guided_samples_are_those_of_the_plain_engines(
    bound: Sampler, plain: Sampler, form: str, start: float, every: int
) -> None:
    bundle = plain.bundle
    way = trajectory("unipc", bundle.schedule, 7, 0.9, bundle.prediction_type)
    semantic = SemanticGuidance(form, 0.2, start, every)
    requests = [request(i) for i in range(4)]
    wanted = plain.sample(requests, way, 2, semantic)
    assert_equal(bound.sample(requests, way, 2, semantic), wanted)
    free = plain.sample(requests, way, 2)
    assert any((a.image != b.image).any() for a, b in zip(wanted, free, strict=True))


@pytest.mark.parametrize("form", [None, "latent", "text-latent"])
@pytest.mark.parametrize("without", ["", "denoiser.conditional"])
def test_steps_may_change_their_engine(
    guided_bundle: Bundle,
    branched_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str | None,
    without: str,
) -> None:
    """A bundle without the engine of one branch runs those steps with guidance 1."""
    source = guided_bundle if without else branched_bundle
    run_on_cpu(monkeypatch)
    bound = Sampler.of(with_cuda_engines(source, tmp_path / "cuda"), CPU, threads=1)
    plain = Sampler.of(source, CPU, threads=1)
    way = trajectory("unipc", source.schedule, 7, 0.9, source.prediction_type)
    part = replace(way, guided=np.array([False, True, True, False, True, False, False]))
    semantic = None if form is None else SemanticGuidance(form, 0.3, 0.2)
    requests = [request(i) for i in range(4)]
    wanted = plain.sample(requests, part, 2, semantic)
    assert_equal(bound.sample(requests, part, 2, semantic), wanted)
    assert all(isinstance(bound.engines[name], CudaEngine) for name in bound.engines._loaded)
    assert ("denoiser.conditional" in bound.engines._loaded) == (not without)
    free = plain.sample(requests, way, 2, semantic)
    assert any((a.image != b.image).any() for a, b in zip(wanted, free, strict=True))
    student = replace(way, denoiser="denoiser.distilled")
    for other in (way, *([] if without else [student]), part):
        wanted = plain.sample(requests, other, 4, semantic)
        assert_equal(bound.sample(requests, other, 4, semantic), wanted)


def test_a_later_batch_may_have_another_trajectory_guide_and_size(
    bound: Sampler, plain: Sampler
) -> None:
    bundle, made = plain.bundle, []
    for seed, (solver, steps, strength, count, form) in enumerate(
        [
            ("ddim", 3, 0.9, 4, None),
            ("unipc", 6, 0.5, 4, "latent"),
            ("dpmpp-3m", 2, 0.9, 1, None),
            ("ddim", 70, 0.9, 2, None),
            ("euler", 5, 0.7, 4, "text-latent"),
            ("ddim", 3, 0.9, 4, None),
        ]
    ):
        way = trajectory(solver, bundle.schedule, steps, strength, bundle.prediction_type)
        semantic = None if form is None else SemanticGuidance(form, 0.3, 0.2)
        requests = [request(i, seed=seed) for i in range(count)]
        wanted = plain.sample(requests, way, count, semantic)
        assert_equal(bound.sample(requests, way, count, semantic), wanted)
        made.append(solver)
    assert len(set(made)) == 4


@pytest.mark.parametrize("sizes", [[1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 3, 1], [16, 8, 4, 2, 1, 3]])
def test_batches_of_many_sizes_are_right_and_need_few_buffers(
    bound: Sampler, plain: Sampler, way: Trajectory, sizes: list[int]
) -> None:
    for size in sizes:
        requests = [request(i) for i in range(size)]
        assert_equal(bound.sample(requests, way, size), plain.sample(requests, way, size))
    batches = bound.engines._batches
    assert len(batches) <= 4 + len({1 << (size - 1).bit_length() for size in sizes})
    assert max(batches) < 2 * max(sizes)


def test_a_thousand_pieces_need_few_buffers_and_none_is_twice_too_large(
    bound: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines, draws, most = bound.engines, np.random.default_rng(0), 50
    monkeypatch.setitem(engines._most, "denoiser", most)
    for count in draws.integers(1, most + 1, 1000).tolist():
        assert count <= engines.bound_batch(count, "denoiser") < max(2 * count, 2)
    assert len(engines._batches) <= 4 + np.ceil(np.log2(most)) + 1
    assert max(engines._batches) <= most


def test_a_piece_is_decoded_in_parts_that_fit(
    bound: Sampler, plain: Sampler, way: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [request(i) for i in range(7)]
    wanted = plain.sample(requests, way, 7)
    for most in (1, 2, 3, 4, 6):
        monkeypatch.setitem(bound.engines._most, "decoder", most)
        assert_equal(bound.sample(requests, way, 7), wanted)


def test_photos_are_inverted_as_by_the_plain_engines(
    bound: Sampler, plain: Sampler, way: Trajectory
) -> None:
    images = np.random.default_rng(3).random((3, 3, *tiny.IMAGE), np.float32)
    np.testing.assert_array_equal(invert(bound, images, way), invert(plain, images, way))


def test_steps_and_conditions_can_still_be_run_one_by_one(
    bound: Sampler, plain: Sampler, way: Trajectory
) -> None:
    requests = [request(0), request(1)]
    ends: list[np.ndarray] = []
    for sampler in (bound, plain):
        given = sampler.condition(requests)
        *_, end = sampler.denoise(sampler.start(requests, way), given, np.ones(2, "f4"), way)
        ends.append(to_numpy(end))
    np.testing.assert_array_equal(ends[0], ends[1])


@pytest.mark.parametrize("size", [(32, 32), (16, 40)])
def test_a_bundle_of_any_size_is_right_at_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    sizes = {"min": 16, "max": 48, "multiple_of": 8}
    bundle = tiny.build(tmp_path / "free", sizes=sizes)
    requests = [request(i, layout=None) for i in range(3)]
    way = trajectory("ddim", bundle.schedule, 3, 1.0, bundle.prediction_type)
    plain = Sampler.of(bundle.resized(size), CPU, threads=1)
    wanted = plain.sample(requests, way, 2)
    run_on_cpu(monkeypatch)
    made = with_cuda_engines(bundle, tmp_path / "cuda").resized(size)
    sampler = Sampler.of(made, CPU, threads=1)
    found = sampler.sample(requests, way, 2)
    assert_equal(found, wanted)
    assert found[0].image.shape == (*size, 3)
    for name in ("decoder", "encoder"):
        given = {"latents": np.ones((2, *made.latent.shape), np.float32)}
        given |= {"images": np.ones((2, 3, *size), np.float32)}
        values = sampler.engines[name].run_on_device(given)
        for key, value in plain.engines[name].run_on_device(given).items():
            np.testing.assert_array_equal(to_numpy(values[key]), to_numpy(value))


def test_calls_repeat_so_that_their_graphs_are_replayed(bound: Sampler, way: Trajectory) -> None:
    """A CUDA graph holds addresses: a step whose addresses are new is captured anew."""
    names = ("conditioner", "denoiser", "decoder", *bound.bundle.annotators)
    engines = recorded(bound, *names)
    for seed in range(3):
        bound.sample([request(i, seed=seed) for i in range(2)], way, 2)
    conditioner, denoiser, decoder, *members = engines
    assert len(denoiser.calls) == 3 * len(way.timesteps)
    assert len(set(denoiser.calls)) == 3  # from the start, and two sets that alternate
    for engine in (conditioner, decoder, *members):
        assert len(engine.calls) == 3 and len(set(engine.calls)) == 1


@pytest.mark.parametrize("form", ["latent", "text-latent"])
def test_guided_calls_repeat_too_and_nothing_is_written_where_it_is_read(
    bound: Sampler, form: str
) -> None:
    bundle = bound.bundle
    way = trajectory("ddim", bundle.schedule, 12, 0.9, bundle.prediction_type)
    engines = recorded(bound, "denoiser", f"guide.{form}")
    bound.sample([request(0)], way, 1, SemanticGuidance(form, 0.1, 0.0))
    for engine in engines:
        assert len(engine.calls) == 12 and len(set(engine.calls)) <= 4
    for engine in engines:
        for read, written in engine.calls:
            assert not set(read) & set(written) and len(set(written)) == len(written)


@pytest.mark.parametrize(
    "without", [["classifier"], ["feranno"], ["classifier", "feranno"], ["conditioner"]]
)
def test_engines_without_a_cuda_engine_run_as_they_are_beside_the_others(
    guided_bundle: Bundle,
    plain: Sampler,
    way: Trajectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    without: list[str],
) -> None:
    names = [name for name in guided_bundle.engines if name.split(".")[0] in without]
    assert len(names) >= len(without)
    run_on_cpu(monkeypatch)
    bundle = with_cuda_engines(guided_bundle, tmp_path / "b", without=names)
    sampler = Sampler.of(bundle, CPU, threads=1)
    assert OnDevice.of(sampler.engines, ["denoiser"], None, Observer()) is not None
    requests = [request(i) for i in range(5)]
    assert_equal(sampler.sample(requests, way, 3), plain.sample(requests, way, 3))
    monkeypatch.setitem(sampler.engines._most, "decoder", 2)
    assert_equal(sampler.sample(requests, way, 5), plain.sample(requests, way, 5))
    files = {name: placed.file for name, placed in sampler.engines.placements().items()}
    for name, file in files.items():
        assert file == (guided_bundle.engines if name in names else bundle.cuda)[name].file


@pytest.mark.parametrize("stage", ["denoiser", "decoder", "guide.latent"])
def test_without_the_cuda_engine_of_a_stage_all_run_plainly(
    guided_bundle: Bundle,
    plain: Sampler,
    way: Trajectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
) -> None:
    run_on_cpu(monkeypatch)
    bundle = with_cuda_engines(guided_bundle, tmp_path / "b", without=(stage,))
    sampler = Sampler.of(bundle, CPU, threads=1)
    semantic = SemanticGuidance("latent", 0.2, 0.0)
    assert OnDevice.of(sampler.engines, ["denoiser"], semantic, Observer()) is None
    requests = [request(i) for i in range(3)]
    wanted = plain.sample(requests, way, 2, semantic)
    assert_equal(sampler.sample(requests, way, 2, semantic), wanted)


def test_broken_images_are_made_again_by_the_fallback(
    tmp_path: Path, way: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder overflows in float16; the fallback's does not."""
    sound = tiny.build(tmp_path / "sound")
    broken = tiny.build(tmp_path / "broken", decoder_overflows=True)
    run_on_cpu(monkeypatch)
    sampler = Sampler.of(with_cuda_engines(broken, tmp_path / "cuda"), CPU, threads=1)
    fallback = LoadedEngines(sound, CPU, threads=1)

    class Told(Observer):
        def decoded(self, sound: np.ndarray) -> None:
            found.append(sound.tolist())

    found: list[list[bool]] = []
    sampler._observer = Told()
    requests: list[Request] = [request(i) for i in range(3)]
    wanted = Sampler(fallback).sample(requests, way, 3)
    sampler.__dict__["_fallback"] = Sampler(fallback)
    assert_equal(sampler.sample(requests, way, 3), wanted)
    assert found == [[False] * 3]


def test_a_bundle_without_annotators_gives_images_alone(
    tmp_path: Path, way: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tiny.build(tmp_path / "plain", with_classifier=False)
    requests = [request(i) for i in range(3)]
    wanted = Sampler.of(bundle, CPU, threads=1).sample(requests, way, 2)
    run_on_cpu(monkeypatch)
    sampler = Sampler.of(with_cuda_engines(bundle, tmp_path / "cuda"), CPU, threads=1)
    found = sampler.sample(requests, way, 2)
    assert_equal(found, wanted)
    assert found[0].probabilities == {} and not found[0].accepted
