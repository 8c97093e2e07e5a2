"""A bundle gives back the checkpoint that it was built from."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")

import diffusers
import torch
import transformers
from click.testing import CliRunner
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from synfer_rt.bundle import Bundle
from synfer_rt.bundle.identity import CHECKPOINT_INDEX, CHECKPOINT_TENSORS
from synfer_rt.commands.cli import main
from synfer_rt.errors import UserError
from synfer_rt.export.build.one_engine import Job, build_engine
from synfer_rt.export.build.staging import Staging
from synfer_rt.export.build.unpack import unpack
from synfer_rt.export.build.whole_bundle import Source, build_bundle
from synfer_rt.export.checkpoint.index import adapter_tensors, write_index
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.files.au_adapter import read_adapter
from synfer_rt.export.files.lora.merge import Lora
from synfer_rt.export.networks.classifier import parse_classifier
from synfer_rt.export.networks.modules import adapter_layers
from tests.export.build.rewritten import rewritten, with_new_hashes
from tests.export.same_engines import initializers, same_outputs
from tests.export.tensors import checkpoint_tensors, digest
from tests.export.tiny_checkpoint import (
    save_adapter,
    save_classifier,
    save_fineface,
    save_lora,
)

HASHES = Path(__file__).with_name("synfer-mini-float16.json")


def test_the_shipped_bundle_holds_its_checkpoint_bit_for_bit(shipped_checkpoint: Path) -> None:
    found = {
        file: {name: digest(array) for name, array in sorted(tensors.items())}
        for file, tensors in checkpoint_tensors(shipped_checkpoint).items()
    }
    assert found == json.loads(HASHES.read_text())


def test_diffusers_and_transformers_open_it(shipped_checkpoint: Path) -> None:
    unet: Any = UNet2DConditionModel.from_pretrained(shipped_checkpoint / "unet")
    vae: Any = AutoencoderKL.from_pretrained(shipped_checkpoint / "vae")
    text = CLIPTextModel.from_pretrained(shipped_checkpoint / "text_encoder")
    with torch.no_grad():
        hidden = text(torch.zeros(1, 48, dtype=torch.int64)).last_hidden_state
        labels = torch.zeros(1, 128 + 41)
        latents = unet(torch.zeros(1, 4, 16, 16), 500, hidden, labels, return_dict=False)[0]
        images = vae.decode(latents, return_dict=False)[0]
    assert images.shape == (1, 3, 64, 64) and images.isfinite().all()


@pytest.mark.parametrize(
    ("named", "written"),
    [
        ("CLIPTokenizer", "CLIPTokenizerFast"),
        ("TokenizersBackend", "PreTrainedTokenizerFast"),
        ("PreTrainedTokenizerFast", "PreTrainedTokenizerFast"),
    ],
)
def test_the_tokenizer_is_of_a_class_that_reads_its_one_file_in_transformers_4(
    named: str, written: str, copy: Path, tmp_path: Path
) -> None:
    files = json.loads((copy / CHECKPOINT_INDEX).read_text())["files"]
    files["model_index.json"]["tokenizer"] = ["transformers", named]
    files["tokenizer/tokenizer_config.json"]["tokenizer_class"] = named
    out = tmp_path / "out"
    unpack(rewritten(copy, files=files), out)
    index, config = (
        json.loads((out / file).read_text())
        for file in ("model_index.json", "tokenizer/tokenizer_config.json")
    )
    assert index["tokenizer"] == ["transformers", written] and config["tokenizer_class"] == written
    text = "a photo of a woman with a happy face"
    again = getattr(transformers, written).from_pretrained(out / "tokenizer")
    assert again(text)["input_ids"] == read_checkpoint(out).tokenizer(text)["input_ids"]


def test_a_pipeline_finds_all_parts_of_its_index(mini_bundle: Bundle, copy: Path, tmp_path: Path):
    """The index of a published checkpoint names a safety checker, which is in no bundle."""
    files = json.loads((copy / CHECKPOINT_INDEX).read_text())["files"]
    files["model_index.json"] |= {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
    }
    unpack(rewritten(copy, files=files), tmp_path / "out")
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    assert pipeline.safety_checker is None and pipeline.feature_extractor is None
    ids = pipeline.tokenizer("a photo", padding="max_length").input_ids
    assert ids == mini_bundle.tokenize(["a photo"])[0].tolist()


def with_published_names(tensors: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Tensors by file and name, those of the text encoder as in files that transformers 4 wrote."""
    (text_encoder,) = (file for file in tensors if file.startswith("text_encoder/"))
    assert not any(name.startswith("text_model.") for name in tensors[text_encoder])
    renamed = {f"text_model.{name}": tensor for name, tensor in tensors[text_encoder].items()}
    return tensors | {text_encoder: renamed}


@pytest.fixture(scope="module")
def unpacked(half_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unpacked") / "mini"
    unpack(half_bundle, out)
    return out


def built_again(name: str, checkpoint: Path, folder: Path, tokens: int) -> Path:
    place = Staging(folder / "again", folder / "work", None)
    place.bundle.mkdir(parents=True)
    build_engine(Job(Source(checkpoint), place, name, "fp16", 0.02, tokens, "key", (1, 3)))
    return place.bundle / f"{name}.onnx"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conditioner", "classifier.small", "au-reader"])
def test_an_unpacked_checkpoint_builds_the_same_engines(
    name: str, half_bundle: Bundle, unpacked: Path, tmp_path: Path
) -> None:
    before = half_bundle.path / half_bundle.engines[name].file
    after = built_again(name, unpacked, tmp_path, half_bundle.max_length)
    assert dict(initializers(before)) == dict(initializers(after))
    assert same_outputs(before, after)


@pytest.mark.slow
def test_feranno_differs_by_the_rounding_of_its_prompt_alone(
    half_bundle: Bundle, unpacked: Path, tmp_path: Path
) -> None:
    """The text encoder that reads it has weights of float16 in the unpacked checkpoint."""
    after = dict(initializers(built_again("feranno", unpacked, tmp_path, half_bundle.max_length)))
    for name, content in initializers(half_bundle.path / half_bundle.engines["feranno"].file):
        if name.startswith("fixed_"):
            before, now = (np.frombuffer(x, np.float32) for x in (content, after[name]))
            np.testing.assert_allclose(before, now, atol=5e-3)
        else:
            assert content == after[name], name


@pytest.mark.slow
def test_it_is_the_checkpoint_in_float16(annotated_checkpoint: Path, unpacked: Path) -> None:
    before = with_published_names(checkpoint_tensors(annotated_checkpoint))
    after = checkpoint_tensors(unpacked)
    assert before.keys() == after.keys()
    for file, tensors in before.items():
        assert {n: digest(a) for n, a in tensors.items()} == {
            n: digest(a) for n, a in after[file].items()
        }, file


def test_a_bundle_in_float32_gives_back_every_bit(
    mini_bundle: Bundle, mini_checkpoint: Path, tmp_path: Path
) -> None:
    unpack(mini_bundle, tmp_path / "out")
    before = with_published_names(checkpoint_tensors(mini_checkpoint))
    after = checkpoint_tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    for file, tensors in before.items():
        for name, array in tensors.items():
            assert np.array_equal(array, after[file][name]), (file, name)


def test_files_can_be_shared(mini_bundle: Bundle, tmp_path: Path) -> None:
    unpack(mini_bundle, tmp_path / "out")
    files = [*(tmp_path / "out").rglob("*.safetensors"), mini_bundle.path / CHECKPOINT_TENSORS]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o644}


def test_what_was_built_besides_the_checkpoint_is_unpacked_too(
    mini_checkpoint: Path, copy: Path, tmp_path: Path
) -> None:
    """Of a bundle whose engines were built without the LoRA, which the index keeps then."""
    source = with_additions(mini_checkpoint, tmp_path)
    plain = Source(mini_checkpoint, None, source.classifiers)
    engines = build_bundle(plain, copy).manifest["engines"]
    write_index(source.read(), copy, {name: entry["file"] for name, entry in engines.items()})
    unpack(with_new_hashes(copy), tmp_path / "out")
    check_additions(source, tmp_path / "out", "a photo of a woman")


@pytest.mark.slow
def test_a_bundle_with_a_lora_and_a_classifier_is_unpacked(sd: Path, tmp_path: Path) -> None:
    source = with_additions(sd, tmp_path)
    unpack(build_bundle(source, tmp_path / "bundle"), tmp_path / "out")
    check_additions(source, tmp_path / "out", "a photo of a face, smiling")  # of a CLIP tokenizer


def with_additions(checkpoint: Path, folder: Path) -> Source:
    """The checkpoint with a LoRA, a classifier and another image size."""
    lora = save_lora(folder / "lora", unet=read_checkpoint(checkpoint).unet)
    save_classifier(folder / "grey.onnx", channels=1, classes=7)
    classifier = parse_classifier(folder / "grey.onnx", "raf-db", "24,grey,mean=0.4,std=0.2")
    return Source(checkpoint, None, (classifier,), (Lora(lora, 0.7),), (16, 32))


def check_additions(source: Source, out: Path, text: str) -> None:
    built, again = source.read(), read_checkpoint(out)
    state, plain = again.unet.state_dict(), read_checkpoint(source.directory).unet.state_dict()
    assert any(not torch.equal(tensor, plain[name]) for name, tensor in state.items())
    for name, tensor in built.unet.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert again.latent_shape == built.latent_shape == (4, 8, 16)
    assert (again.schedule, again.prediction_type) == (built.schedule, built.prediction_type)
    assert again.settings == built.settings
    assert again.tokenizer(text)["input_ids"] == built.tokenizer(text)["input_ids"]
    (read,) = again.classifiers
    assert (read.name, read.label_scheme, read.channels) == ("grey", "raf-db", "grey")
    assert (read.mean, read.std, read.input_size) == ((0.4,), (0.2,), 24)
    assert same_outputs(source.classifiers[0].path, read.path)


@pytest.mark.parametrize("kind", ["fineface", "several tokens", "two layers"])
def test_every_kind_of_adapter_has_tensors_that_read_as_itself(
    kind: str, plain_checkpoint: Path, tmp_path: Path
) -> None:
    unet = read_checkpoint(plain_checkpoint).unet
    path = tmp_path / "adapter.safetensors"
    if kind == "fineface":
        path = tmp_path / "adapter"
        save_fineface(unet, path)
    else:
        save_adapter(unet, path, tokens=3, norm=True)
    if kind == "two layers":
        tensors = load_file(path)
        for name in ("weight", "bias"):
            tensors[f"image_proj.proj.2.{name}"] = tensors.pop(f"image_proj.proj.{name}")
        tensors |= {"image_proj.proj.0.weight": torch.rand(41, 41)}
        tensors |= {"image_proj.proj.0.bias": torch.rand(41)}
        save_file(tensors, path)
    layers, width = adapter_layers(unet), unet.config.cross_attention_dim
    before = read_adapter(path, layers, width)
    save_file(adapter_tensors(before), tmp_path / "again.safetensors")
    after = read_adapter(tmp_path / "again.safetensors", layers, width)
    aus = torch.rand(2, before.units)
    assert torch.equal(before.projection(aus), after.projection(aus))
    for one, other in ((before.to_k, after.to_k), (before.to_v, after.to_v)):
        assert one.keys() == other.keys()
        assert all(torch.equal(tensor, other[i]) for i, tensor in one.items())


def test_no_sample_depends_on_what_is_kept(mini_bundle: Bundle, copy: Path) -> None:
    for name in (CHECKPOINT_INDEX, CHECKPOINT_TENSORS):
        (copy / name).unlink()
    without = with_new_hashes(copy)
    assert without.bundle_hash == mini_bundle.bundle_hash
    assert without.former_hash == mini_bundle.former_hash


def test_a_bundle_without_an_index_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / CHECKPOINT_INDEX).unlink()
    with pytest.raises(UserError, match=r"cannot be unpacked: it has no checkpoint\.json"):
        unpack(with_new_hashes(copy), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../outside.json", "/outside.json", "unet/../../outside.json"])
def test_an_index_writes_nothing_outside(name: str, copy: Path, tmp_path: Path) -> None:
    bundle = rewritten(copy, files={name: {}})
    with pytest.raises(UserError, match=r"names .*outside"):
        unpack(bundle, tmp_path / "folder" / "out")
    assert not list(tmp_path.rglob("outside.json"))
    assert not any((tmp_path / "folder").iterdir())


@pytest.mark.parametrize("where", ["denoiser/nothing", "nothing/unet.conv_in.weight"])
def test_an_index_of_other_engines_is_refused(where: str, copy: Path, tmp_path: Path) -> None:
    bundle = rewritten(copy, tensors={"unet/model.safetensors": {"weight": where}})
    with pytest.raises(UserError, match="which no engine holds; build the bundle again"):
        unpack(bundle, tmp_path / "out")


def test_nothing_is_overwritten(mini_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine")
    with pytest.raises(UserError, match="is not an empty directory; give another `out`"):
        unpack(mini_bundle, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["note"]


def test_the_command_names_what_it_wrote(mini_bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "new" / "checkpoint"
    command = ["unpack", str(mini_bundle.path), "--out", str(out)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert result.output == f"The checkpoint of mini is in {out}.\n"
    assert read_checkpoint(out).settings.name == "mini"
    assert CliRunner().invoke(main, command).exit_code == 2
