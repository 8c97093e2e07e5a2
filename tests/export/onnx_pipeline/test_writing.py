"""A pipeline in ONNX makes the bundle's images at AUs of zero, and reads back as the checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import onnx
from click.testing import CliRunner
from safetensors.torch import load_file

from synfer_rt.bundle import Bundle
from synfer_rt.commands.cli import main
from synfer_rt.diffusion.noise import normal
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.files.tensor_files import read_tensors
from synfer_rt.export.onnx_pipeline.layout import GRAPHS
from synfer_rt.export.onnx_pipeline.reading import as_checkpoint, write_checkpoint
from synfer_rt.export.onnx_pipeline.writing import write_onnx_pipeline
from synfer_rt.sampling.requests import Request
from synfer_rt.sampling.sampler import Sampler
from tests.conftest import Once
from tests.export.onnx_pipeline.pipeline import images, session
from tests.export.tiny_checkpoint import change

PROMPTS = ["a photo of a woman with a happy face", "a portrait of an old man"]
SEED, GUIDANCE = 5, 3.0


def written(checkpoint: Path, out: Path, precision: str = "fp32") -> list[str]:
    said: list[str] = []
    write_onnx_pipeline(checkpoint, out, precision, said.append)
    return said


@pytest.fixture(scope="module")
def mini_pipeline(mini_checkpoint: Path, once: Once) -> Path:
    return once("pipelines/mini", lambda out: written(mini_checkpoint, out))


def samples(bundle: Bundle, solver: str) -> tuple[np.ndarray, np.ndarray, Trajectory]:
    """The bundle's images with AUs at zero, the noise that they start from, and the trajectory."""
    sampler = Sampler.of(bundle, "onnxruntime-cpu", threads=1)
    way = bundle.trajectory(solver, 5, 1.0)
    requests = [
        Request(i, SEED, "happy", text, "", {}, GUIDANCE, bundle.defaults.au_scale, None)
        for i, text in enumerate(PROMPTS)
    ]
    made = np.stack([sample.image for sample in sampler.sample(requests, way, len(requests))])
    start = np.stack([normal(SEED, i, bundle.latent.shape) for i in range(len(requests))])
    return made, start, way


@pytest.mark.slow
def test_the_pipeline_makes_the_images_of_the_bundle_with_aus_at_zero(
    mini_pipeline: Path, mini_bundle: Bundle
):
    """synfer-mini's kind: pooled text and AUs in the class embedding, an adapter, a VAE's shift."""
    wanted, start, way = samples(mini_bundle, "unipc")
    found = images(mini_pipeline, mini_bundle, way, PROMPTS, start, GUIDANCE)
    assert np.abs(found.astype(int) - wanted).max() <= 1
    assert np.abs(found[0].astype(int) - found[1]).max() > 20


@pytest.mark.slow
def test_the_checkpoint_comes_back_with_every_weight(
    mini_pipeline: Path, mini_checkpoint: Path, tmp_path: Path
):
    write_checkpoint(mini_pipeline, tmp_path / "again")
    for part in ("unet", "vae", "text_encoder"):
        (before,) = (mini_checkpoint / part).glob("*.safetensors")
        (after,) = (tmp_path / "again" / part).glob("*.safetensors")
        read = {name: tensor for name, tensor in read_tensors(after, "weights").items()}
        for name, tensor in load_file(before).items():
            short = name.removeprefix("text_model.")
            np.testing.assert_array_equal(read.get(name, read.get(short)), tensor)
    one, other = read_checkpoint(mini_checkpoint), read_checkpoint(tmp_path / "again")
    assert one.settings == other.settings and one.schedule == other.schedule
    assert one.adapter and other.adapter
    for layer, tensor in one.adapter.to_v.items():
        np.testing.assert_array_equal(other.adapter.to_v[layer], tensor)
    assert [c.name for c in other.classifiers] == ["small"] and other.layouts is not None


@pytest.mark.slow
def test_a_negative_prompt_may_be_as_long_as_what_the_prompt_became(
    mini_pipeline: Path, mini_checkpoint: Path
):
    """diffusers' pipelines pad it to as many ids as the prompt has tokens: one more than usual."""
    encoder, tokenizer = (
        session(mini_pipeline, "text_encoder"),
        read_checkpoint(mini_checkpoint).tokenizer,
    )
    texts = ["", "a photo of a woman", "a photo of a woman " * 9]
    long, usual = (
        np.array(tokenizer(texts, padding="max_length", truncation=True, max_length=n)["input_ids"])
        for n in (25, 24)
    )
    for one, other in zip(
        *(encoder.run(None, {"input_ids": x}) for x in (long, usual)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert encoder.run(None, {"input_ids": usual})[0].shape[1] == 25


def test_what_pipelines_do_otherwise_is_said(mini_checkpoint: Path, tmp_path: Path, monkeypatch):
    from synfer_rt.export.onnx_pipeline import writing

    monkeypatch.setattr(writing, "graphs_of", lambda checkpoint: {})
    aus, start, scheduler = written(mini_checkpoint, tmp_path / "out")
    assert aus.startswith("Pipelines take no action units: the UNet has them at zero")
    assert 'as `layout="none"` does' in start and "DDIMScheduler" in scheduler


@pytest.mark.slow
def test_the_layout_is_what_pipelines_read(mini_pipeline: Path, mini_checkpoint: Path):
    index = json.loads((mini_pipeline / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert index["safety_checker"] == [None, None]
    for name in GRAPHS:
        assert (mini_pipeline / name / "config.json").is_file()
    graphs = {name: onnx.load(mini_pipeline / name / "model.onnx").graph for name in GRAPHS}
    inputs = {name: [x.name for x in graph.input] for name, graph in graphs.items()}
    assert inputs == {
        "text_encoder": ["input_ids"],
        "unet": ["sample", "timestep", "encoder_hidden_states"],
        "vae_encoder": ["sample"],
        "vae_decoder": ["latent_sample"],
    }
    outputs = {name: graph.output[0].name for name, graph in graphs.items()}
    assert outputs["text_encoder"] == "last_hidden_state" and outputs["unet"] == "out_sample"
    assert outputs["vae_encoder"] == "latent_parameters" and outputs["vae_decoder"] == "sample"
    for name in ("scheduler/scheduler_config.json", "tokenizer/tokenizer.json"):
        assert (mini_pipeline / name).read_bytes() == (mini_checkpoint / name).read_bytes()


@pytest.mark.slow
def test_another_config_than_the_graphs_is_noticed(mini_pipeline: Path, tmp_path: Path):
    copy = Path(shutil.copytree(mini_pipeline, tmp_path / "copy"))
    change(copy / "vae_decoder/config.json", shift_factor=0.5)
    with pytest.raises(UserError, match=r"vae_encoder/model\.onnx computes something else than"):
        write_checkpoint(copy, tmp_path / "again")


@pytest.mark.slow
def test_an_error_of_the_checkpoint_names_the_pipeline(mini_pipeline: Path, tmp_path: Path):
    copy = Path(shutil.copytree(mini_pipeline, tmp_path / "copy"))
    change(copy / "synfer.json", labelscheme="raf-db")
    with pytest.raises(UserError) as error, as_checkpoint(copy):
        pass
    assert str(copy / "synfer.json") in str(error.value) and "/synfer-rt-" not in str(error.value)


def test_what_is_no_pipeline_stays_a_checkpoint(mini_checkpoint: Path):
    with as_checkpoint(mini_checkpoint) as directory:
        assert directory == mini_checkpoint


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"text_encoder_2": ["transformers", "X"]}, "is a StableDiffusionXLPipeline with a text_e"),
        (
            {"transformer": ["diffusers", "SD3Transformer2DModel"]},
            "with a transformer; give a text",
        ),
    ],
)
def test_pipelines_of_other_kinds_are_refused(tmp_path: Path, fields, said):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet/model.onnx").touch()
    index = {"_class_name": "StableDiffusionXLPipeline", **fields}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    result = CliRunner().invoke(
        main, ["build-engines", str(tmp_path), "--out", str(tmp_path / "bundle")]
    )
    assert result.exit_code == 2 and said in result.output


@pytest.mark.parametrize("file", ["openvino_model.xml", "model_quantized.onnx"])
def test_graphs_of_another_name_are_asked_for_anew(tmp_path: Path, file: str):
    for name in GRAPHS:
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    refused = pytest.raises(UserError, match=r"has no text_encoder/model\.onnx; export the pipe")
    with refused, as_checkpoint(tmp_path):
        pass


@pytest.mark.slow
def test_a_part_that_is_missing_is_named(mini_pipeline: Path, tmp_path: Path):
    copy = Path(shutil.copytree(mini_pipeline, tmp_path / "copy"))
    (copy / "vae_encoder/model.onnx").unlink()
    with pytest.raises(
        UserError, match=r"has no vae_encoder/model\.onnx; export the pipeline anew"
    ):
        write_checkpoint(copy, tmp_path / "1")
    shutil.copytree(mini_pipeline / "vae_encoder", copy / "vae_encoder", dirs_exist_ok=True)
    (copy / "unet/config.json").unlink()
    with pytest.raises(UserError, match=r"unet has no config\.json, which says what its network"):
        write_checkpoint(copy, tmp_path / "2")
    shutil.copyfile(mini_pipeline / "unet/config.json", copy / "unet/config.json")
    change(copy / "unet/config.json", _class_name="UNetSpatioTemporalConditionModel")
    with pytest.raises(UserError, match=r"holds a UNetSpatio.*not a UNet2DConditionModel"):
        write_checkpoint(copy, tmp_path / "3")
    shutil.copyfile(mini_pipeline / "unet/config.json", copy / "unet/config.json")
    (copy / "unet/model.onnx").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"unet/model\.onnx is not a whole ONNX file"):
        write_checkpoint(copy, tmp_path / "4")


def test_an_output_that_is_not_empty_is_refused(mini_checkpoint: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/file").touch()
    words = ["export-optimum", str(mini_checkpoint), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2 and "give another --out" in result.output


@pytest.mark.slow
def test_a_bundle_comes_back_by_way_of_a_pipeline(
    mini_pipeline: Path, mini_bundle: Bundle, tmp_path: Path
):
    """Its engines have the same bytes as those of the checkpoint."""
    from synfer_rt.export import build_engines

    again = build_engines(mini_pipeline, tmp_path / "bundle")
    assert again.engines.keys() == mini_bundle.engines.keys()
    for name, spec in again.engines.items():
        files = [bundle.path / spec.file for bundle in (again, mini_bundle)]
        assert len({file.read_bytes() for file in files}) == 1, name
    wanted, start, way = samples(mini_bundle, "ddim")
    found, _, _ = samples(again, "ddim")
    assert np.abs(found.astype(int) - wanted).max() <= 1
    piped = images(mini_pipeline, mini_bundle, way, PROMPTS, start, GUIDANCE)
    assert np.abs(piped.astype(int) - wanted).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sd", "sd2", "plain"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_each_kind_of_checkpoint_comes_back(request, tmp_path: Path, kind: str, precision: str):
    checkpoint = request.getfixturevalue(f"{kind}_checkpoint")
    written(checkpoint, tmp_path / "pipeline", precision)
    write_checkpoint(tmp_path / "pipeline", tmp_path / "again")
    one, other = read_checkpoint(checkpoint), read_checkpoint(tmp_path / "again")
    for part in ("unet", "vae", "text_encoder"):
        tensors = getattr(other, part).state_dict()
        for name, tensor in getattr(one, part).state_dict().items():
            limit = 0 if precision == "fp32" else 1e-3 * float(tensor.abs().max())
            assert float((tensors[name] - tensor).abs().max()) <= limit
