"""synfer-rt as a benchmarked system takes the way that `sample` takes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("onnx_ir", reason="CUDA engines are made by synfer-rt[export]")

from synfer_rt.bench import runtime
from synfer_rt.bench.cuda_events import CudaEvents
from synfer_rt.bench.runtime import Runtime
from synfer_rt.bench.systems import EVENTS, HOST_CLOCK, Setup, Stopwatch
from synfer_rt.bundle import Bundle
from synfer_rt.sampling.observer import StageTimes
from synfer_rt.sampling.on_device import OnDevice
from tests.bench.fake_driver import FakeDriver
from tests.cuda_bundles import CPU, run_on_cpu, with_cuda_engines


@pytest.fixture(scope="module")
def cuda_bundle(voting_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_cuda_engines(voting_bundle, tmp_path_factory.mktemp("cuda") / "bundle")


def run(bundle: Bundle, out: Path, on_gpu: bool = False) -> tuple[Stopwatch, np.ndarray]:
    """Two batches of three images in four steps."""
    system = Runtime(Setup(bundle.path, "ddim", 4, CPU, 1, None))
    system._on_gpu = on_gpu
    watch = Stopwatch()
    system.run(3, 2, 4, watch, out)
    return watch, system.images(out)


def test_bound_engines_stay_bound_and_are_timed_by_events(
    voting_bundle: Bundle,
    cuda_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    _, plain = run(voting_bundle, tmp_path / "plain")
    run_on_cpu(monkeypatch)
    finished: list[int] = []
    finish = OnDevice.finish

    def counted(self: OnDevice, piece, *rest):  # type: ignore[no-untyped-def]
        finished.append(len(piece))
        return finish(self, piece, *rest)

    monkeypatch.setattr(OnDevice, "finish", counted)
    monkeypatch.setattr(runtime, "cuda_events", lambda: CudaEvents(FakeDriver(milliseconds=1.0)))
    watch, images = run(cuda_bundle, tmp_path / "bound", on_gpu=True)
    assert finished == [3, 3]
    assert np.abs(images.astype(int) - plain).max() <= 1
    calls = {"conditioner": 2, "denoiser": 8, "decoder": 2}
    calls |= dict.fromkeys(cuda_bundle.annotators, 2)
    assert watch.engines == {name: pytest.approx(n / 1000) for name, n in calls.items()}
    assert (watch.device, watch.clock) == (pytest.approx(sum(calls.values()) / 1000), EVENTS)


def test_without_events_the_device_takes_what_its_stages_take(
    cuda_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run_on_cpu(monkeypatch)
    monkeypatch.setattr(runtime, "cuda_events", lambda: CudaEvents(None))
    watch, _ = run(cuda_bundle, tmp_path / "out", on_gpu=True)
    stages = sum(watch.stages[name] for name in ("condition", "denoise", "decode", "label"))
    assert watch.engines == {}
    assert (watch.device, watch.clock) == (pytest.approx(stages), HOST_CLOCK)


def test_images_that_are_made_again_are_noted(
    tiny_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    made = SimpleNamespace(retried=1, times=StageTimes())
    monkeypatch.setattr(runtime, "execute", lambda *_: made)
    run_once = Runtime(Setup(tiny_bundle.path, "ddim", 4, CPU, 1, None)).run
    run_once(1, 1, 1, Stopwatch(), tmp_path)
    assert "were made again on the CPU" in caplog.text
    made.retried = 0
    caplog.clear()
    (tmp_path / "second").mkdir()
    run_once(1, 1, 1, Stopwatch(), tmp_path / "second")
    assert not caplog.text


def test_engines_that_wait_are_timed_by_their_calls(voting_bundle: Bundle, tmp_path: Path):
    watch, _ = run(voting_bundle, tmp_path / "out")
    assert set(watch.engines) == {"conditioner", "denoiser", "decoder", *voting_bundle.annotators}
    assert watch.clock is None and watch.stages["prepare"] > 0


def test_each_row_counts_the_engines_that_it_calls(student_bundle: Bundle, tmp_path: Path):
    setup = Setup(student_bundle.path, "ddim", 4, CPU, 1, None)
    guided, fast = Stopwatch(), Stopwatch()
    Runtime(setup).run(3, 2, 4, guided, tmp_path / "guided")
    Runtime(setup, {"quality": "fast"}).run(3, 2, 4, fast, tmp_path / "fast")
    assert student_bundle.distilled is not None
    assert guided.rows["denoiser"] == 6 * 4 and "denoiser.distilled" not in guided.rows
    assert fast.rows["denoiser.distilled"] == 6 * student_bundle.distilled.steps
    assert "denoiser" not in fast.rows and fast.rows["decoder"] == guided.rows["decoder"] == 6
