"""A run whose images break too often for an accident stops, and says what to try."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from synfer_rt.backends import open_engine, status
from synfer_rt.backends.computation import Computation
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.commands.cli import main
from synfer_rt.data.writers import open_output, read
from synfer_rt.errors import UserError
from synfer_rt.jobs.sample import execute, make_samples
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.soundness import Soundness
from synfer_rt.sampling.requests import make_requests
from tests.damaged_bundles import rehash

CPU, OPENVINO = "onnxruntime-cpu", "openvino-cpu"
needs_openvino = pytest.mark.skipif(not status(OPENVINO).works, reason="needs openvino")


@pytest.fixture
def run(tiny_bundle: Bundle) -> Run:
    return Run(tiny_bundle, make_requests(tiny_bundle, seed=5), 24, "dpmpp-2m", 2, 0.9)


@pytest.fixture
def engines(tiny_bundle: Bundle) -> LoadedEngines:
    return LoadedEngines(tiny_bundle, CPU, threads=1)


def piece(images: int, broken: int) -> np.ndarray:
    return np.arange(images) >= broken


def stops(engines: LoadedEngines, *pieces: tuple[int, int]) -> bool:
    """Whether these pieces, (images, broken ones), stop a run, with the last of them."""
    soundness = Soundness(engines)
    *before, last = [piece(*counts) for counts in pieces]
    for sound in before:
        soundness.judge(sound)
    try:
        soundness.judge(last)
    except UserError:
        return True
    return False


def test_more_than_one_in_a_hundred_of_the_first_images_stops_a_run(
    engines: LoadedEngines,
) -> None:
    assert not stops(engines, (500, 5))
    assert stops(engines, (500, 6))
    assert not stops(engines, (250, 2), (250, 3))
    assert stops(engines, (250, 2), (250, 4))
    assert stops(engines, (256, 256))


def test_a_few_unlucky_images_stop_no_run(engines: LoadedEngines) -> None:
    assert not stops(engines, (1, 1))
    assert not stops(engines, (3, 3))
    assert not stops(engines, (2, 1), (2, 1), (2, 1))
    assert stops(engines, (4, 4))
    assert stops(engines, (2, 2), (2, 2))


def test_only_the_first_thousand_images_are_watched(engines: LoadedEngines) -> None:
    assert stops(engines, (999, 0), (64, 64))
    assert not stops(engines, (1000, 0), (64, 64))


def test_the_sentence_says_what_computed_and_what_to_try(tiny_bundle: Bundle) -> None:
    with pytest.raises(UserError) as error:
        Soundness(LoadedEngines(tiny_bundle, CPU, threads=1)).judge(piece(16, 5))
    said = str(error.value)
    assert said.startswith("5 of the first 16 images are broken (flat or not finite)")
    assert f"{tiny_bundle.name} on {CPU}, the denoiser in fp32; lower `guidance`" in said
    assert "verify-engines" in said and f'`backend="{CPU}"`' not in said


@needs_openvino
def test_another_backend_is_named_where_the_images_came_from_a_faster_one(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synfer_rt.backends.openvino.has_bfloat16", lambda: True)
    with pytest.raises(UserError, match=r"denoiser in bf16; try `backend=\"onnxruntime-cpu\"`; if"):
        Soundness(LoadedEngines(tiny_bundle, OPENVINO, threads=1)).judge(piece(16, 5))


@pytest.mark.parametrize(
    ("backend", "precision", "remedy"),
    [
        ("onnxruntime-cuda", "fp16", ", or build the bundle without `--target cuda`;"),
        ("onnxruntime-cuda", "fp32", ";"),
        ("onnxruntime-tensorrt", "fp16", ", or build the bundle with `--precision fp32`;"),
        ("tensorrt-rtx-cuda", "fp16", ", or build the bundle with `--precision fp32`;"),
    ],
)
def test_the_remedy_changes_what_computes(
    engines: LoadedEngines,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    precision: str,
    remedy: str,
) -> None:
    where = Computation(backend, precision, "", "gpu", ())
    monkeypatch.setattr("synfer_rt.jobs.soundness.computation", lambda *_: where)
    with pytest.raises(UserError) as error:
        Soundness(engines).judge(piece(16, 5))
    assert f'try `backend="{CPU}"`{remedy} if they are broken there too' in str(error.value)


def breaking(engines: LoadedEngines, monkeypatch: pytest.MonkeyPatch, calls: range) -> None:
    """Let the decoder give flat images in these of its calls."""
    decoder = open_engine(engines.bundle, "decoder", CPU, threads=1)
    decode, number = decoder.run, iter(range(1000))

    def flat(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        images = decode(inputs)["images"]
        return {"images": np.full_like(images, 0.5) if next(number) in calls else images}

    monkeypatch.setattr(decoder, "run", flat)
    engines._loaded["decoder"] = decoder


@needs_openvino
def test_a_run_stops_before_it_makes_its_images_again_on_the_cpu(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = LoadedEngines(run.bundle, OPENVINO, threads=1)
    breaking(engines, monkeypatch, range(1000))
    made_again: list[int] = []
    fallback = LoadedEngines.fallback.func
    monkeypatch.setattr(
        LoadedEngines, "fallback", property(lambda e: made_again.append(1) or fallback(e))
    )
    out = open_output(tmp_path / "out", run.settings("imagefolder"), resume=False)
    with pytest.raises(UserError, match="8 of the first 8 images are broken"):
        execute(run, engines, out, batch=8)
    assert out.done == 0 and made_again == []


def test_what_was_written_stays_and_the_run_goes_on_from_there(
    run: Run, engines: LoadedEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = run.settings("imagefolder")
    breaking(engines, monkeypatch, range(1, 3))
    with pytest.raises(UserError, match="8 of the first 16 images are broken"):
        execute(run, engines, open_output(tmp_path / "out", settings, resume=False), batch=8)
    writer = open_output(tmp_path / "out", settings, resume=True)
    assert writer.done == 8
    # The call that resumes counts anew: what it makes first breaks, too.
    with pytest.raises(UserError, match="8 of the first 8 images are broken"):
        execute(run, engines, writer, batch=8)
    writer = open_output(tmp_path / "out", settings, resume=True)
    summary = execute(run, engines, writer, batch=8)
    assert summary.images == 16 and len(list(read(tmp_path / "out"))) == 24


def test_samples_in_memory_stop_as_well(
    run: Run, engines: LoadedEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(engines, monkeypatch, range(1000))
    with pytest.raises(UserError, match="8 of the first 8 images are broken"):
        make_samples(run, engines, batch=8)


def test_the_command_exits_with_2_and_names_its_options(
    tiny_bundle_path: Path, tmp_path: Path
) -> None:
    grey = Path(shutil.copytree(tiny_bundle_path, tmp_path / "grey"))
    model = onnx.load(grey / "decoder.onnx")
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(0 * values, tensor.name))
    onnx.save(model, grey / "decoder.onnx")
    rehash(grey, "decoder.onnx")
    options = ["--count", "8", "--threads", "1", "--backend", CPU, "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, ["sample", "--bundle", str(grey), *options])
    assert result.exit_code == 2
    assert "8 of the first 8 images are broken" in result.output
    assert "lower --guidance or --au-scale, or raise --steps" in result.output
    assert open_bundle(grey).name in result.output
    assert not list(tmp_path.rglob("*out*/*"))
