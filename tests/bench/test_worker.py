"""Systems in environments of their own, run by an interpreter that stands in for theirs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from synfer_rt.bench import worker
from synfer_rt.bench.compared import RELEASE
from synfer_rt.bench.systems import Compared, Setup, Stopwatch
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError
from tests.bench.fake_python import fake_python


@pytest.fixture
def setup(mini_bundle: Bundle, mini_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    monkeypatch.setattr(worker, "_converted", lambda setup, library: Path("/no/converted"))
    return Setup(mini_bundle.path, "ddim", 6, "onnxruntime-cpu", 1, mini_checkpoint)


def test_a_peer_gets_the_samples_of_synfer_rt_and_tells_its_stages(setup: Setup, tmp_path: Path):
    python = fake_python(tmp_path / "bin" / "python")
    peer = worker.load(setup, "optimum-onnx", Compared(python, "pipelines", ("numpy",)))
    watch, out = Stopwatch(), tmp_path / "out"
    out.mkdir()
    peer.run(2, 2, 6, watch, out)
    assert watch.stages == {"condition": 1.0, "denoise": 4.0, "decode": 3.0}
    assert watch.rows == {"conditioner": 4, "denoiser": 24, "decoder": 4}
    assert np.load(out / "start.npy").shape == (4, *setup.open().latent.shape)
    assert peer.peak_rss_bytes() == 1234 and peer.ran["runtime"] == "fake 1"
    assert any("without the AU adapter" in note for note in peer.notes)
    assert peer.images(out).shape == (0, 16, 16, 3)  # others than synfer-rt's
    peer.close()


def test_a_checkpoint_without_adapter_has_images_to_compare(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain = dataclasses.replace(setup.open(), au_names=())
    monkeypatch.setattr(Setup, "open", lambda self: plain)
    for alike, count in ((None, 3), (1, 1), (0, 0)):
        python = fake_python(tmp_path / str(alike) / "python", alike=alike)
        peer = worker.load(setup, "optimum-onnx", Compared(python, "pipelines", ()))
        out = tmp_path / f"out{alike}"
        out.mkdir()
        peer.run(3, 1, 6, Stopwatch(), out)
        assert [image[0, 0, 0] for image in peer.images(out)] == list(range(count))
        assert not peer.notes
        peer.close()


def test_a_peer_that_dies_is_a_sentence_with_its_last_words(setup: Setup, tmp_path: Path):
    dying = "print('no such file: unet', file=sys.stderr); sys.exit(3)"
    python = fake_python(tmp_path / "python", load=dying)
    with pytest.raises(UserError, match=r"ended \(exit code 3\).* said last: no such file: unet"):
        worker.load(setup, "optimum-onnx", Compared(python, "pipelines", ()))


def test_a_release_runs_its_own_steps_on_its_own_bundle(
    setup: Setup, mini_bundle: Bundle, tmp_path: Path
):
    python = fake_python(tmp_path / "python", bundle=str(mini_bundle.path))
    release = worker.load(setup, "synfer-rt 0.1.0", Compared(python, RELEASE, ()))
    watch = Stopwatch()
    release.run(4, 2, 2, watch, tmp_path)
    assert watch.total == 1.0 and watch.stages == {}
    denoisers = {name: n for name, n in watch.rows.items() if name.startswith("denoiser")}
    assert sum(denoisers.values()) == 8 * mini_bundle.defaults.steps
    flops = release.flops()
    assert flops is not None and watch.rows.keys() <= flops.keys()
    assert len(release.images(tmp_path)) == 0
    release.close()
