"""build-engines: a checkpoint becomes a whole bundle, or nothing under its name."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import torch
from click.testing import CliRunner

from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError
from synfer_rt.export.build import Built, build_bundle, finished_directory
from synfer_rt.export.checkpoint import Checkpoint, read_checkpoint
from synfer_rt.export.cli import build_engines


def test_every_engine_is_there_and_was_held_against_pytorch(mini_bundle: Bundle) -> None:
    names = ["conditioner", "denoiser", "decoder", "encoder", "classifier.small"]
    assert list(mini_bundle.engines) == names
    for engine in mini_bundle.engines.values():
        assert 0 < engine.parity["max_relative_error"] < 1e-4 == engine.parity["tolerance"]
        assert engine.parity["batches"] == [1, 3]


def test_the_manifest_says_what_the_checkpoint_says(
    mini_bundle: Bundle, mini_checkpoint: Path
) -> None:
    assert (mini_bundle.name, mini_bundle.version) == ("mini", "3")
    assert mini_bundle.image_size == (16, 16) and mini_bundle.latent.shape == (4, 8, 8)
    assert mini_bundle.latent.scaling_factor == 0.4
    assert mini_bundle.prediction_type == "v_prediction"
    assert mini_bundle.defaults.steps == 6 and mini_bundle.defaults.layout == "bank"
    assert len(mini_bundle.layouts) == 5
    weights = (mini_checkpoint / "au_adapter.safetensors").read_bytes()
    source = mini_bundle.manifest["source"]["sha256"]
    assert source["au_adapter.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert len(source) == 5


def test_the_batch_is_truly_dynamic_and_samples_do_not_mix(
    mini_bundle: Bundle, engine: Callable
) -> None:
    draw = np.random.default_rng(0)
    shapes = {
        "tokens": (5, 2, 24),
        "aus": (5, 2, 41),
        "au_scale": (5,),
    }
    given = {k: draw.random(shape, np.float32) for k, shape in shapes.items()}
    given["tokens"] = (given["tokens"] * 30).astype(np.int64)
    condition, denoise = engine(mini_bundle, "conditioner"), engine(mini_bundle, "denoiser")
    given |= condition(**given)
    given |= {
        "latents": draw.standard_normal((5, 4, 8, 8), np.float32),
        "history": draw.standard_normal((5, 3, 4, 8, 8), np.float32),
        "guidance": draw.random(5, np.float32) * 4,
    }
    once = {
        "timestep": np.array(700, np.float32),
        "coefficients": draw.standard_normal((4, 5), np.float32),
    }
    for name in shapes:
        given.pop(name)
    together = denoise(**given, **once)
    for i in range(5):
        alone = denoise(**{k: v[i : i + 1] for k, v in given.items()}, **once)
        for name, value in alone.items():
            np.testing.assert_allclose(value[0], together[name][i], atol=2e-5)


def test_conditioning_of_a_model_without_aus_is_text_alone(
    plain_bundle: Bundle, engine: Callable
) -> None:
    assert plain_bundle.au_names == ()
    conditioner = plain_bundle.engines["conditioner"]
    assert [tensor.name for tensor in conditioner.inputs] == ["tokens"]
    tokens = plain_bundle.tokenize(["", "photo"]).reshape(1, 2, -1)
    assert list(engine(plain_bundle, "conditioner")(tokens=tokens)) == ["text"]


def test_no_engine_tells_where_it_was_built(mini_bundle: Bundle, mini_checkpoint: Path) -> None:
    traces = [str(Path(torch.__file__).parent), str(Path.home()), str(mini_checkpoint.parent)]
    traces += ["site-packages", ".py", 'File "']
    for file in mini_bundle.path.iterdir():
        content = file.read_bytes()
        assert [trace for trace in traces if trace.encode() in content] == [], file.name


@pytest.fixture
def checkpoint(plain_checkpoint: Path) -> Checkpoint:
    return read_checkpoint(plain_checkpoint)


def test_an_interrupted_build_leaves_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    def interrupt(engine: Built) -> None:
        assert list(tmp_path.iterdir()) and not (tmp_path / "out").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_bundle(checkpoint, tmp_path / "out", report=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_an_engine_above_the_tolerance_fails_the_build(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"conditioner differs from PyTorch by .*--tolerance"):
        build_bundle(checkpoint, tmp_path / "out", "fp16", tolerance=1e-9)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_directory_is_kept(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--force"):
        build_bundle(checkpoint, tmp_path)


def test_force_replaces_a_bundle_but_nothing_else(mini_bundle: Bundle, tmp_path: Path) -> None:
    out = Path(shutil.copytree(mini_bundle.path, tmp_path / "out"))
    with finished_directory(out, force=True) as making:
        (making / "new").touch()
        assert (out / "bundle.json").exists()
    assert [file.name for file in out.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(UserError, match="no bundle"), finished_directory(out, force=True):
        pass
    assert (out / "new").exists()


def test_a_place_that_cannot_be_written_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        build_bundle(checkpoint, tmp_path / "file" / "out")


def test_layouts_of_another_model_are_refused(mini_checkpoint: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(mini_checkpoint, tmp_path / "mini"))
    words = np.array(["a", "b"])
    latents = np.zeros((2, 4, 16, 16), np.float16)
    np.savez(copy / "layouts.npz", latents=latents, age=words, gender=words, ancestry=words)
    with pytest.raises(UserError, match="this model needs"):
        build_bundle(read_checkpoint(copy), tmp_path / "out")


def test_each_classifier_needs_its_labels_and_its_input(tmp_path: Path) -> None:
    arguments = [str(tmp_path), "--out", str(tmp_path / "out"), "--classifier", "x.onnx"]
    result = CliRunner().invoke(build_engines, arguments)
    assert isinstance(result.exception, UserError)
    assert "1 --classifier, 0 --classifier-labels" in str(result.exception)


@pytest.mark.parametrize("tolerance", ["0", "-1", "nan"])
def test_a_tolerance_that_is_no_error_is_refused(tmp_path: Path, tolerance: str) -> None:
    arguments = [str(tmp_path), "--out", str(tmp_path / "out"), "--tolerance", tolerance]
    result = CliRunner().invoke(build_engines, arguments)
    assert isinstance(result.exception, UserError)
