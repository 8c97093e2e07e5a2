"""Backends: what works here, why the rest does not, and engines that compute."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from synfer_rt import backends
from synfer_rt.backends import (
    BACKENDS,
    TARGETS,
    BackendStatus,
    choice,
    choose,
    default_threads,
    memory,
    open_engine,
    to_numpy,
)
from synfer_rt.backends import onnxruntime as ort_backend
from synfer_rt.backends.caches import cache_directory
from synfer_rt.backends.memory import free_memory
from synfer_rt.bundle import MANIFEST, Bundle, open_bundle
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.errors import UserError
from synfer_rt.sampling.guidance import semantic_guidance
from synfer_rt.sampling.sampler import Sampler
from tests.damaged_bundles import rehash
from tests.samples import difference, request

CPU = "onnxruntime-cpu"


def decoder_inputs(count: int = 2) -> dict[str, np.ndarray]:
    draws = np.random.default_rng(3)
    return {"latents": draws.standard_normal((count, 4, 8, 8)).astype(np.float32)}


def gpu_works() -> bool:
    return any(s.works for s in backends.statuses() if not s.name.endswith("-cpu"))


def test_every_backend_has_a_status_and_the_cpu_works() -> None:
    found = {status.name: status for status in backends.statuses()}
    assert tuple(found) == BACKENDS
    assert found[CPU].works


def test_a_backend_that_does_not_work_says_why_and_what_to_do() -> None:
    for status in backends.statuses():
        if not status.works:
            assert status.reason
            assert "pip" in status.remedy


def test_auto_takes_the_best_that_works_and_names_others_that_do(tiny_bundle: Bundle) -> None:
    plain = [s.name for s in backends.statuses() if s.works and s.name not in TARGETS]
    name, why = choose("auto", tiny_bundle)
    assert name == plain[0]
    for better in BACKENDS[: BACKENDS.index(name)]:
        works = next(s.works for s in backends.statuses() if s.name == better)
        assert (f"not {better}: " in why) == works


def test_a_backend_that_is_not_here_makes_no_sentence_longer(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_the_cpu(name: str) -> BackendStatus:
        return BackendStatus(name, name == CPU, "it is not installed " * 9, "install it")

    monkeypatch.setattr(choice, "status", only_the_cpu)
    assert choose("auto", tiny_bundle) == (CPU, CPU)


def test_auto_never_takes_or_tries_a_backend_that_compiles_when_engines_run(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def works(name: str) -> BackendStatus:
        tried.append(name)
        return BackendStatus(name, name not in TARGETS, "works", "")

    monkeypatch.setattr(choice, "status", works)
    assert choose("auto", tiny_bundle) == ("onnxruntime-cuda", "onnxruntime-cuda")
    assert "onnxruntime-tensorrt" not in tried
    name, why = choose("onnxruntime-tensorrt", tiny_bundle)
    assert name == "onnxruntime-tensorrt"
    assert "as requested; TensorRT first compiles each engine, which takes minutes" in why


@pytest.mark.skipif(gpu_works(), reason="a GPU works here")
@pytest.mark.parametrize("backend", [name for name in BACKENDS if not name.endswith("-cpu")])
def test_asking_for_a_backend_that_does_not_work_is_refused_with_the_reason(backend: str) -> None:
    status = next(s for s in backends.statuses() if s.name == backend)
    with pytest.raises(UserError, match=f"{backend} does not work here: ") as error:
        choose(backend)
    assert str(error.value).count(status.reason) == 1
    assert str(error.value).count(status.remedy) == 1
    assert str(error.value).count("pip install") == 1


def test_an_unknown_backend_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="nearest is onnxruntime-cpu"):
        choose("onnxruntime_cpu")


def install(folder: Path, package: str, version: str) -> None:
    info = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")


def test_both_packages_installed_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "onnxruntime", "1.31.0")
    install(tmp_path, "onnxruntime-gpu", "1.30.0")
    monkeypatch.syspath_prepend(tmp_path)
    problem = ort_backend.installation_problem()
    assert problem is not None
    assert "onnxruntime 1.31.0 and onnxruntime-gpu 1.30.0 are both installed" in problem
    remedy = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu[cuda,"
    assert remedy in problem
    if not gpu_works():
        assert "both installed" in ort_backend.status("onnxruntime-cuda").reason


def test_an_engine_computes_the_same_for_one_image_and_for_many(tiny_bundle: Bundle) -> None:
    engine = open_engine(tiny_bundle, "decoder", CPU, threads=1)
    inputs = decoder_inputs(5)
    together = engine.run(inputs)["images"]
    alone = engine.run({"latents": inputs["latents"][3:4]})["images"]
    assert together.shape == (5, 3, 32, 32)
    np.testing.assert_allclose(together[3:4], alone, atol=1e-6)


def test_values_go_from_engine_to_engine(tiny_bundle: Bundle) -> None:
    decoder = open_engine(tiny_bundle, "decoder", CPU, threads=1)
    encoder = open_engine(tiny_bundle, "encoder", CPU, threads=1)
    images = decoder.run_on_device(decoder_inputs())["images"]
    mean = to_numpy(encoder.run_on_device({"images": images})["mean"])
    expected = encoder.run(decoder.run(decoder_inputs()))["mean"]
    np.testing.assert_array_equal(mean, expected)


def test_what_does_not_lie_in_one_piece_in_memory_is_taken_too(tiny_bundle: Bundle) -> None:
    engine = open_engine(tiny_bundle, "decoder", CPU, threads=1)
    strided = np.repeat(decoder_inputs()["latents"], 2, -1)[..., ::2]
    assert not strided.flags.c_contiguous
    images = to_numpy(engine.run_on_device({"latents": strided})["images"])
    np.testing.assert_array_equal(images, engine.run(decoder_inputs())["images"])


def test_extra_inputs_are_ignored(tiny_bundle: Bundle) -> None:
    engine = open_engine(tiny_bundle, "decoder", CPU, threads=1)
    more = decoder_inputs() | {"stranger": np.zeros(1, np.float32)}
    np.testing.assert_array_equal(
        engine.run(more)["images"], engine.run(decoder_inputs())["images"]
    )


def test_an_engine_that_the_bundle_lacks_is_refused(tiny_bundle: Bundle) -> None:
    with pytest.raises(UserError, match="has no engine guide; it has conditioner, denoiser"):
        open_engine(tiny_bundle, "guide", CPU)


@pytest.mark.parametrize("threads", [0, -2, 1025])
def test_numbers_of_threads_beyond_sense_are_refused(tiny_bundle: Bundle, threads: int) -> None:
    with pytest.raises(UserError, match="`threads` must be from 1 to 1024, got"):
        open_engine(tiny_bundle, "decoder", CPU, threads)


@pytest.mark.parametrize("data", [b"", b"no protobuf at all", b"\x08\x0a"])
def test_a_corrupt_engine_with_the_right_hash_is_refused(
    tiny_bundle_path: Path, tmp_path: Path, data: bytes
) -> None:
    copy = Path(shutil.copytree(tiny_bundle_path, tmp_path / "copy"))
    (copy / "decoder.onnx").write_bytes(data)
    rehash(copy, "decoder.onnx")
    assert (copy / MANIFEST).exists()
    with pytest.raises(UserError, match=r"decoder.onnx cannot be loaded .*build-engines"):
        open_engine(open_bundle(copy), "decoder", CPU)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_threads_default_to_the_cores_that_this_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert default_threads() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert default_threads() == len(before)


def test_nothing_is_printed_while_an_engine_loads(
    tiny_bundle: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    open_engine(tiny_bundle, "denoiser", CPU, threads=1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("runtime", ["openvino", "tensorrt-rtx"])
def test_what_a_runtime_compiles_is_kept_by_bundle(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    directory = tmp_path / "synfer-rt" / runtime / tiny_bundle.bundle_hash
    assert cache_directory(runtime, tiny_bundle) == directory
    assert directory.is_dir()


def test_what_it_compiles_of_another_student_is_kept_elsewhere(
    tiny_bundle: Bundle, student_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folders = {cache_directory("tensorrt-rtx", bundle) for bundle in (tiny_bundle, student_bundle)}
    assert len(folders) == 2


def test_where_nothing_can_be_written_nothing_is_kept(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache_directory("openvino", tiny_bundle) is None


def test_a_cpu_backend_tells_how_much_memory_is_free() -> None:
    free = free_memory(CPU)
    if Path("/proc/meminfo").exists():
        assert free is not None
        assert 0 < free < 1 << 50


def test_a_container_s_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert free_memory(CPU) == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(CPU) != 3000


@pytest.mark.gpu
@pytest.mark.skipif(not gpu_works(), reason="no GPU works here")
@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_onnxruntime_on_a_gpu_agrees_with_the_cpu(tiny_bundle: Bundle, backend: str) -> None:
    if not backends.status(backend).works:
        pytest.skip(backends.status(backend).reason)
    on_cpu = open_engine(tiny_bundle, "decoder", CPU).run(decoder_inputs())["images"]
    on_gpu = open_engine(tiny_bundle, "decoder", backend).run_on_device(decoder_inputs())["images"]
    assert on_gpu.device_name() == "cuda"
    np.testing.assert_allclose(to_numpy(on_gpu), on_cpu, atol=2e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not gpu_works(), reason="no GPU works here")
@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
@pytest.mark.parametrize("form", [None, "latent", "text-latent"])
def test_a_sample_of_onnxruntime_on_a_gpu_stays_there_and_is_that_of_the_cpu(
    guided_bundle: Bundle, way: Trajectory, backend: str, form: str | None
) -> None:
    if not backends.status(backend).works:
        pytest.skip(backends.status(backend).reason)
    requests = [request(i) for i in range(5)]
    sampler = Sampler.of(guided_bundle, backend)
    conditioning, latents = sampler.condition(requests), sampler.start(requests, way)
    for step in sampler.denoise(latents, conditioning, np.ones(5, "f4"), way):
        assert isinstance(step, onnxruntime.OrtValue) and step.device_name() == "cuda"
    guidance = form and semantic_guidance(guided_bundle, 0.1, form)
    found = sampler.sample(requests, way, 5, guidance or None)
    wanted = Sampler.of(guided_bundle, CPU, threads=1).sample(requests, way, 5, guidance or None)
    for a, b in zip(wanted, found, strict=True):
        assert difference(a, b) <= 3
        assert a.probabilities == pytest.approx(b.probabilities, abs=0.02)
