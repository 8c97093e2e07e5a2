"""build-engines: a checkpoint becomes a whole bundle, or nothing under its name."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import torch

from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError
from synfer_rt.export.build.one_engine import Job, build_engine
from synfer_rt.export.build.staging import Staging
from synfer_rt.export.build.whole_bundle import Options, Source, build_bundle
from synfer_rt.export.networks.classifier import parse_classifier
from tests.export.tiny_checkpoint import save_classifier


def test_every_engine_is_there_and_was_held_against_pytorch(mini_bundle: Bundle) -> None:
    names = ["conditioner", "denoiser", "denoiser.conditional", "decoder", "encoder"]
    names.append("classifier.small")
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
    assert mini_bundle.annotators_know == "coloured noise"
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
    plain_checkpoint: Path, tmp_path: Path
) -> None:
    place = Staging(tmp_path / "out", tmp_path, None)
    place.bundle.mkdir(parents=True)
    source = Source(plain_checkpoint)
    build_engine(Job(source, place, "conditioner", "fp16", 0.02, 20, "key", (1, 3)))
    graph = onnx.load(place.bundle / "conditioner.onnx").graph
    assert [one.name for one in graph.input] == ["tokens"]
    assert [one.name for one in graph.output] == ["text"]
    assert any(one.data_type == onnx.TensorProto.FLOAT16 for one in graph.initializer)


def test_no_engine_tells_where_it_was_built(mini_bundle: Bundle, mini_checkpoint: Path) -> None:
    traces = [str(Path(torch.__file__).parent), str(Path.home()), str(mini_checkpoint.parent)]
    traces += ["site-packages", ".py", 'File "']
    for file in mini_bundle.path.iterdir():
        content = file.read_bytes()
        assert [trace for trace in traces if trace.encode() in content] == [], file.name


def test_an_engine_above_the_tolerance_fails_the_build(
    plain_checkpoint: Path, tmp_path: Path
) -> None:
    options = Options("fp16", tolerance=1e-9)
    with pytest.raises(UserError, match=r"conditioner differs from PyTorch by .*`tolerance`"):
        build_bundle(Source(plain_checkpoint), tmp_path / "out", options)
    assert [path.name for path in tmp_path.iterdir()] == ["out.log"]
    assert "conditioner differs" in (tmp_path / "out.log").read_text()


def test_what_is_no_bundle_is_never_touched(mini_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    for options in (Options(), Options(force=True)):
        with pytest.raises(UserError, match="is not a bundle"):
            build_bundle(Source(mini_checkpoint), tmp_path, options)
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
    assert not tmp_path.with_name(f"{tmp_path.name}.log").exists()


def test_the_bundle_of_another_model_needs_force(
    mini: tuple[Source, Path], plain_checkpoint: Path
) -> None:
    with pytest.raises(UserError, match=r"the bundle of mini, not of plain; .*`force=True`"):
        build_bundle(Source(plain_checkpoint), mini[1])


def test_a_place_that_cannot_be_written_is_refused(mini_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        build_bundle(Source(mini_checkpoint), tmp_path / "file" / "out")


def test_classifiers_of_one_name_are_refused(mini_checkpoint: Path, tmp_path: Path) -> None:
    paths = [tmp_path / folder / "fer.onnx" for folder in "ab"]
    for path in paths:
        path.parent.mkdir()
        save_classifier(path, 3, 8)
    sources = tuple(parse_classifier(path, "affectnet-8", "24,rgb") for path in paths)
    with pytest.raises(UserError, match=r"a/fer\.onnx and .*b/fer\.onnx would both"):
        build_bundle(Source(mini_checkpoint, None, sources), tmp_path / "out")


def test_layouts_of_another_model_are_refused(mini_checkpoint: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(mini_checkpoint, tmp_path / "mini"))
    words = np.array(["a", "b"])
    latents = np.zeros((2, 4, 16, 16), np.float16)
    np.savez(copy / "layouts.npz", latents=latents, age=words, gender=words, ancestry=words)
    with pytest.raises(UserError, match="this model needs"):
        build_bundle(Source(copy), tmp_path / "out")
