"""What a checkpoint has besides Stable Diffusion's parts becomes engines of its bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")

import torch
from safetensors.torch import load_file, save_file

from synfer_rt.backends import open_engine
from synfer_rt.backends.parity import difference
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError
from synfer_rt.export.build.keys import file_hashes
from synfer_rt.export.build.whole_bundle import Built, Options, Source, build_bundle, build_keys
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.files.lora.merge import Lora
from synfer_rt.export.graphs.engine_graphs import engine_graph, engine_names
from synfer_rt.export.networks.classifier import GuideSource, parse_classifier
from synfer_rt.export.onnx.shared_weights import data_files
from tests.export.tiny_checkpoint import change, save_additions, save_classifier

ADDED = ("feranno", "guide.text", "guide.text-latent", "guide.latent", "au-reader")
DENOISERS = ("denoiser", "denoiser.conditional")
BORROWERS = ("feranno", "guide.text", "guide.text-latent")


@pytest.fixture(scope="module")
def whole(mini_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with all additions."""
    directory = tmp_path_factory.mktemp("additions") / "mini"
    shutil.copytree(mini_checkpoint, directory)
    save_additions(directory)
    return directory


@pytest.fixture
def checkpoint(whole: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(whole, tmp_path / "mini"))


def scale(path: Path, name: str = "") -> None:
    """Other weights of the same shapes."""
    tensors = load_file(path)
    save_file({n: 1.5 * x if n.startswith(name) else x for n, x in tensors.items()}, path)


def keys(directory: Path) -> dict[str, str]:
    source = Source(directory)
    checkpoint = source.read()
    return build_keys(checkpoint, source, Options(), 24, file_hashes(checkpoint))


def test_each_addition_becomes_its_engines(whole: Path, mini_checkpoint: Path) -> None:
    plain = ("conditioner", "denoiser", "denoiser.conditional", "decoder", "encoder")
    assert engine_names(read_checkpoint(mini_checkpoint)) == plain
    assert engine_names(read_checkpoint(whole)) == (*plain, *ADDED[:-1])
    assert list(keys(whole)) == [*plain, *ADDED[:-1], "classifier.small", "au-reader"]


def test_an_onnx_file_guides_in_place_of_the_folder(whole: Path, tmp_path: Path) -> None:
    save_classifier(tmp_path / "fer.onnx", channels=1, classes=7)
    described = [
        Source(whole, guide=parse_classifier(tmp_path / "fer.onnx", "raf-db", spec))
        for spec in ("24,grey", "24,grey,probabilities")
    ]
    guided = described[0].read()
    assert guided.additions == ("annotator", "latent_classifier")
    assert guided.weight_files[-1] == tmp_path / "fer.onnx"
    assert whole / "image_classifier/model.safetensors" not in guided.weight_files
    assert engine_names(guided) == engine_names(read_checkpoint(whole))
    found = [
        build_keys(one.read(), one, Options(), 24, file_hashes(one.read()))
        for one in (*described, Source(whole))
    ]
    assert len({one["guide.text"] for one in found}) == 3
    for name in ("denoiser", "guide.latent", "guide.text-latent", "classifier.small"):
        assert len({one[name] for one in found}) == 1


def test_a_build_says_which_classes_no_guide_knows(checkpoint: Path, tmp_path: Path) -> None:
    """Before it exports anything; a guide that can pull towards none is refused."""
    said = "image_classifier does not know contempt; such images are made without its guide."
    assert [one.partition("mini/")[2] for one in Source(checkpoint).read().remarks] == [said]
    save_classifier(tmp_path / "fer.onnx", channels=1, classes=3)
    scheme = tmp_path / "scheme.json"
    fields = {
        "classes": ["smile", "frown", "blank"],
        "mappings": {"affectnet-8": {"smile": "happy"}},
    }
    for mapped in ({}, {"mappings": {"affectnet-8": {"smile": "happy", "frown": "sad"}}}):
        scheme.write_text(json.dumps(fields | mapped))
        source = Source(
            checkpoint, guide=parse_classifier(tmp_path / "fer.onnx", scheme, "24,grey")
        )
        if mapped:
            assert "classes blank of" in " ".join(source.read().remarks)
        else:
            with pytest.raises(UserError, match="have happy in common, so it cannot guide"):
                source.read()
    change(checkpoint / "latent_classifier" / "config.json", label_scheme="bored,tired")
    with pytest.raises(UserError, match="have nothing in common, so it cannot guide"):
        Source(checkpoint).read()


def test_wrong_descriptions_are_refused_before_anything_is_built(
    mini_checkpoint: Path, tmp_path: Path
) -> None:
    """By the names of the arguments that hold them."""
    file, built = tmp_path / "fer.onnx", list[Built]()
    save_classifier(file, channels=1, classes=3)
    for scheme, spec, says in (
        ("affectnet-8", "24,grey", "fer.onnx has 3 scores, affectnet-8 has 8; give its label sch"),
        ("happy,sad", "24,grey", "has 3 scores, happy,sad has 2; if some scores are not expr"),
        ("happy,sad,anger", "32,grey", "describe its input in"),
        ("happy,sad,anger", "24,grey,output=y", "write output=NAME in"),
        ("happy,sad,anger", "24,grey,probabilities", "is described as giving probabilities"),
    ):
        guide = parse_classifier(file, scheme, spec, GuideSource)
        votes = parse_classifier(file, scheme, spec)
        for source, argument in (
            (Source(mini_checkpoint, guide=guide), "`guide`"),
            (Source(mini_checkpoint, classifiers=(votes,)), "`classifier_"),
        ):
            with pytest.raises(UserError) as error:
                build_bundle(source, tmp_path / "out", report=built.append)
            assert says in str(error.value)
            assert argument in str(error.value) or "probabilities" in says
            assert argument != "`guide`" or "classifier_" not in str(error.value)
    assert not built


def test_a_folder_elsewhere_guides_as_the_checkpoint_s_own_does(
    whole: Path, mini_checkpoint: Path, tmp_path: Path
) -> None:
    """Its engine has the same key, so it is the same engine, and unpacking finds it."""
    folder = Path(shutil.copytree(whole / "image_classifier", tmp_path / "mine"))
    source = Source(whole, guide=folder)
    guided, own = source.read(), read_checkpoint(whole)
    assert engine_names(guided) == engine_names(own)
    assert folder / "model.safetensors" in guided.weight_files
    assert whole / "image_classifier/model.safetensors" not in guided.weight_files
    assert build_keys(guided, source, Options(), 24, file_hashes(guided)) == keys(whole)
    alone = Source(mini_checkpoint, guide=folder, resolution=(32, 32)).read()
    assert alone.additions == ("image_classifier",)
    assert "guide.text" in engine_names(alone)
    change(folder / "config.json", size=5)
    found = build_keys(guided, source, Options(), 24, file_hashes(guided))
    assert {name for name, key in found.items() if key != keys(whole)[name]} == {"guide.text"}


def test_their_weights_are_among_the_sources(whole: Path) -> None:
    files = {path.relative_to(whole).as_posix() for path in read_checkpoint(whole).weight_files}
    assert files >= {
        "annotator/model.safetensors",
        "image_classifier/model.safetensors",
        "latent_classifier/model.safetensors",
        "au_reader.onnx",
    }


def test_another_resolution_goes_without_what_was_made_for_one(whole: Path) -> None:
    larger = read_checkpoint(whole, resolution=(32, 32))
    assert larger.additions == () and larger.au_reader is not None
    assert read_checkpoint(whole, resolution=(16, 16)).additions


@pytest.mark.parametrize(
    ("file", "stale"),
    [
        ("annotator/model.safetensors", {"feranno"}),
        ("annotator/config.json", {"feranno"}),
        ("tokenizer/tokenizer.json", {"feranno"}),
        ("image_classifier/model.safetensors", {"guide.text"}),
        ("latent_classifier/model.safetensors", {"guide.text-latent", "guide.latent"}),
        ("latent_classifier/config.json", {"guide.text-latent", "guide.latent"}),
        ("vae/diffusion_pytorch_model.safetensors", {"decoder", "encoder", "guide.text"}),
        ("unet/diffusion_pytorch_model.safetensors", {"conditioner", *DENOISERS, *BORROWERS}),
        ("au_adapter.safetensors", {"conditioner", *DENOISERS, *BORROWERS}),
        ("au_reader.json", {"au-reader"}),
    ],
)
def test_an_engine_depends_on_its_own_files(checkpoint: Path, file: str, stale: set[str]) -> None:
    before, path = keys(checkpoint), checkpoint / file
    if path.name == "au_reader.json":
        path.write_text(path.read_text().replace("logits", "intensities"))
    elif path.suffix == ".json":
        path.write_text(path.read_text() + "\n")
    else:
        scale(path)
    assert {name for name, key in keys(checkpoint).items() if key != before[name]} == stale


def test_engines_depend_on_the_settings_beside_a_lora(
    plain_checkpoint: Path, tmp_path: Path
) -> None:
    """PEFT keeps a LoRA's alphas in a file of their own."""
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"base_model.model.{name}.lora_{x}.weight": torch.rand(16, 16) for x in "AB"}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    settings, found = tmp_path / "adapter_config.json", []
    for alpha in (16, 8):
        fields = {"peft_type": "LORA", "r": 16, "lora_alpha": alpha, "target_modules": [name]}
        settings.write_text(json.dumps(fields))
        source = Source(plain_checkpoint, loras=(Lora(tmp_path / "adapter_model.safetensors"),))
        checkpoint = source.read()
        found.append(build_keys(checkpoint, source, Options(), 20, file_hashes(checkpoint)))
    stale = {name for name in found[0] if found[0][name] != found[1][name]}
    assert stale == {"conditioner", *DENOISERS}


def test_guides_and_votes_depend_on_the_labels_that_they_aim_at(checkpoint: Path) -> None:
    before, path = keys(checkpoint), checkpoint / "synfer.json"
    path.write_text(path.read_text().replace("affectnet-8", "affectnet-7"))
    stale = {name for name, key in keys(checkpoint).items() if key != before[name]}
    assert stale == {"guide.text", "guide.text-latent", "guide.latent", "classifier.small"}


def test_a_classifier_of_other_latents_cannot_guide(checkpoint: Path) -> None:
    config = checkpoint / "latent_classifier" / "config.json"
    shutil.rmtree(checkpoint / "latent_classifier")
    shutil.copytree(checkpoint / "image_classifier", checkpoint / "latent_classifier")
    assert json.loads(config.read_text())["channels"] == 3
    with pytest.raises(UserError, match=r"does not take \[4, 8, 8\]"):
        engine_graph(read_checkpoint(checkpoint), "guide.latent", 24)


@pytest.fixture(scope="module")
def bundle(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(Source(whole), tmp_path_factory.mktemp("bundle") / "mini")


def rebuilt(directory: Path, out: Path) -> tuple[Bundle, set[str]]:
    """Build, and say which engines were not reused."""
    built: list[Built] = []
    bundle = build_bundle(Source(directory), out, report=built.append)
    return bundle, {engine.name for engine in built if not engine.reused}


def hashes(bundle: Bundle) -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in bundle.manifest["files"].items()}


@pytest.mark.slow
def test_they_were_held_against_pytorch(bundle: Bundle) -> None:
    assert set(ADDED) < set(bundle.engines)
    for name in ADDED:
        parity = bundle.engines[name].parity
        assert 0 < parity["max_relative_error"] < 1e-4 and parity["batches"] == [1, 3], name
    assert bundle.engines["feranno"].label_scheme == "affectnet-7"


@pytest.mark.slow
def test_the_bundle_carries_the_unet_once(bundle: Bundle, whole: Path) -> None:
    for name in (DENOISERS[1], *BORROWERS):
        assert "denoiser.onnx.data" in data_files(bundle.path / f"{name}.onnx"), name
    assert "decoder.onnx.data" in data_files(bundle.path / "guide.text.onnx")
    weights = load_file(whole / "unet" / "diffusion_pytorch_model.safetensors").values()
    # A linear layer's small matrix is stored as it is multiplied, which is transposed.
    large = [
        (x.numpy().tobytes(), x.mT.contiguous().numpy().tobytes() if x.ndim == 2 else b"none")
        for x in weights
        if 4 * x.numel() >= 1024
    ]
    data = (bundle.path / "denoiser.onnx.data").read_bytes()
    assert all(max(data.count(x), data.count(t)) == 1 for x, t in large)
    for name in BORROWERS:
        content = (bundle.path / f"{name}.onnx").read_bytes()
        alone = sum(x in content and t in content for x, t in large)
        assert alone < 0.1 * len(large), name


def examples(directory: Path, name: str) -> dict[str, np.ndarray]:
    given = engine_graph(read_checkpoint(directory), name, 24).inputs(2)
    return {name: tensor.numpy() for name, tensor in given.items()}


@pytest.mark.slow
@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("name", [*DENOISERS, *BORROWERS])
def test_every_runtime_opens_shared_weights(
    bundle: Bundle, whole: Path, engine: Callable, name: str
) -> None:
    pytest.importorskip("openvino")
    trt: Any = pytest.importorskip("tensorrt_rtx")
    path, given = bundle.path / f"{name}.onnx", examples(whole, name)
    wanted = engine(bundle, name)(**given)
    found = open_engine(bundle, name, "openvino-cpu", 1).run(given)
    for output, values in wanted.items():
        assert difference(output, found[output], values) < 1e-4
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(0)
    assert trt.OnnxParser(network, logger).parse_from_file(str(path))
    assert network.num_inputs == len(given)


@pytest.fixture(scope="module")
def annotated(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose only addition is FERAnno: enough to share, and quickly built."""
    directory = Path(shutil.copytree(whole, tmp_path_factory.mktemp("annotated") / "mini"))
    shutil.rmtree(directory / "image_classifier")
    shutil.rmtree(directory / "latent_classifier")
    return directory


@pytest.fixture(scope="module")
def shared(annotated: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(Source(annotated), tmp_path_factory.mktemp("shared") / "mini")


@pytest.fixture
def mini(annotated: Path, shared: Bundle, tmp_path: Path) -> tuple[Path, Path]:
    """That checkpoint and its bundle, to change."""
    checkpoint = Path(shutil.copytree(annotated, tmp_path / "checkpoint"))
    return checkpoint, Path(shutil.copytree(shared.path, tmp_path / "out"))


@pytest.mark.slow
def test_the_same_command_again_builds_nothing(shared: Bundle, mini: tuple[Path, Path]) -> None:
    assert data_files(shared.path / "feranno.onnx") == {"denoiser.onnx.data"}
    again, new = rebuilt(*mini)
    assert new == set() and hashes(again) == hashes(shared)


@pytest.mark.slow
def test_a_borrower_is_built_alone(shared: Bundle, mini: tuple[Path, Path]) -> None:
    scale(mini[0] / "annotator" / "model.safetensors", "head.")
    again, new = rebuilt(*mini)
    assert new == {"feranno"}
    changed = {n for n, sha in hashes(again).items() if sha != hashes(shared)[n]}
    assert changed == {"feranno.onnx"}


@pytest.mark.slow
def test_a_damaged_shared_file_is_made_again(shared: Bundle, mini: tuple[Path, Path]) -> None:
    data = mini[1] / "denoiser.onnx.data"
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    again, new = rebuilt(*mini)
    assert new == {*DENOISERS, "feranno"}
    assert hashes(again) == hashes(shared)


@pytest.mark.slow
def test_an_owner_outlives_what_borrowed_of_it(
    shared: Bundle, mini: tuple[Path, Path], engine: Callable
) -> None:
    shutil.rmtree(mini[0] / "annotator")
    again, new = rebuilt(*mini)
    assert new == set() and "feranno" not in again.engines
    given = examples(mini[0], "denoiser")
    for name, value in engine(again, "denoiser")(**given).items():
        np.testing.assert_array_equal(value, engine(shared, "denoiser")(**given)[name])


@pytest.mark.slow
def test_int8_is_not_for_them_and_they_share_among_themselves(whole: Path, tmp_path: Path) -> None:
    bundle = build_bundle(Source(whole), tmp_path / "int8", Options("int8"))
    assert {name: bundle.engines[name].precision for name in ADDED} == dict.fromkeys(ADDED, "fp16")
    for name in ("guide.text", "guide.text-latent"):
        assert "feranno.onnx.data" in data_files(bundle.path / f"{name}.onnx")
        onnx.checker.check_model(bundle.path / f"{name}.onnx")
