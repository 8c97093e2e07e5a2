"""build-engines: a checkpoint becomes a whole bundle, or nothing under its name."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from synfer_rt.backends import BackendStatus
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.bundle.identity import CHECKPOINT_INDEX
from synfer_rt.errors import UserError
from synfer_rt.export.build.keys import file_hashes
from synfer_rt.export.build.whole_bundle import Built, Options, Source, build_bundle, build_keys
from synfer_rt.export.cli import build_engines
from synfer_rt.export.networks.classifier import parse_classifier
from synfer_rt.sampling.sampler import Sampler
from tests.export.tiny_checkpoint import change, save_classifier


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
def mini(mini_checkpoint: Path, mini_bundle: Bundle, tmp_path: Path) -> tuple[Source, Path]:
    """A checkpoint and the bundle that was built of it, to change."""
    checkpoint = Path(shutil.copytree(mini_checkpoint, tmp_path / "checkpoint"))
    return Source(checkpoint), Path(shutil.copytree(mini_bundle.path, tmp_path / "out"))


def reused(
    source: Source, out: Path, options: Options | None = None
) -> tuple[Bundle, dict[str, bool]]:
    """Build, and say of each engine and plan whether it was reused."""
    built: list[Built] = []
    bundle = build_bundle(source, out, options, built.append)
    return bundle, {engine.name: engine.reused for engine in built}


def hashes(bundle: Bundle) -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in bundle.manifest["files"].items()}


def test_the_same_command_again_builds_nothing(
    mini: tuple[Source, Path], mini_bundle: Bundle
) -> None:
    bundle, again = reused(*mini)
    assert all(again.values()) and list(again) == list(mini_bundle.engines)
    assert hashes(bundle) == hashes(mini_bundle) and bundle.path == mini[1]


def test_another_classifier_builds_the_classifier_only(
    mini: tuple[Source, Path], mini_bundle: Bundle
) -> None:
    source, out = mini
    save_classifier(source.directory / "classifiers" / "small.onnx", 3, 8, opset=18)
    bundle, again = reused(source, out)
    assert [name for name, old in again.items() if not old] == ["classifier.small"]
    changed = {n for n, sha in hashes(bundle).items() if sha != hashes(mini_bundle)[n]}
    assert changed == {"classifier.small.onnx"}


def test_other_settings_build_nothing_but_are_in_the_manifest(mini: tuple[Source, Path]) -> None:
    source, out = mini
    settings = json.loads((source.directory / "synfer.json").read_text())
    settings["defaults"]["steps"] = 9
    (source.directory / "synfer.json").write_text(json.dumps(settings))
    (source.directory / "README.md").write_text("The model card.")
    bundle, again = reused(source, out)
    assert all(again.values()) and bundle.defaults.steps == 9
    assert bundle.manifest["files"]["README.md"]["bytes"] == len("The model card.")


def test_a_link_to_a_bundle_stays_one(mini: tuple[Source, Path], tmp_path: Path) -> None:
    source, out = mini
    link = tmp_path / "link"
    link.symlink_to(out)
    (source.directory / "README.md").write_text("The model card.")
    bundle, _ = reused(source, link)
    assert link.is_symlink() and bundle.path == out.resolve()
    assert (out / "README.md").read_text() == "The model card."


def test_a_classifier_that_is_gone_leaves_the_bundle(mini: tuple[Source, Path]) -> None:
    source, out = mini
    shutil.rmtree(source.directory / "classifiers")
    bundle, _ = reused(source, out)
    assert bundle.classifiers == () and not (out / "classifier.small.onnx").exists()


def test_an_altered_engine_is_built_again(mini: tuple[Source, Path], mini_bundle: Bundle) -> None:
    source, out = mini
    with (out / "classifier.small.onnx").open("ab") as file:
        file.write(b" ")
    bundle, again = reused(source, out)
    assert [name for name, old in again.items() if not old] == ["classifier.small"]
    assert hashes(bundle) == hashes(mini_bundle)


@pytest.mark.parametrize(
    ("file", "stale"),
    [
        ("unet/config.json", {"conditioner", "denoiser"}),
        ("text_encoder/config.json", {"conditioner"}),
        ("vae/config.json", {"decoder", "encoder"}),
        ("au_adapter.safetensors", {"conditioner", "denoiser"}),
    ],
)
def test_an_engine_depends_on_its_own_files(
    mini: tuple[Source, Path], mini_bundle: Bundle, file: str, stale: set[str]
) -> None:
    source, _ = mini
    keys = {name: entry["build_key"] for name, entry in mini_bundle.manifest["engines"].items()}
    path = source.directory / file
    if path.suffix == ".json":
        path.write_text(path.read_text() + "\n")
    else:
        from safetensors.torch import load_file, save_file

        save_file({name: tensor * 2 for name, tensor in load_file(path).items()}, path)
    assert {n for n, key in keys_of(source).items() if key != keys[n]} == stale


def keys_of(source: Source, options: Options | None = None) -> dict[str, str]:
    checkpoint = source.read()
    hashes = file_hashes(checkpoint)
    return build_keys(checkpoint, source, options or Options(), 24, hashes)


def test_precision_and_sizes_are_part_of_the_keys(mini: tuple[Source, Path]) -> None:
    source, _ = mini
    keys = keys_of(source)
    half = keys_of(source, Options("fp16"))
    assert not set(keys.values()) & set(half.values())
    larger, free = (
        keys_of(replace(source, **size)) for size in ({"resolution": (32, 16)}, {"sizes": (8, 32)})
    )
    for other in (larger, free):  # the conditioner sees neither latents nor images
        assert {name for name in keys if keys[name] == other[name]} == {"conditioner"}
    assert free["denoiser"] != larger["denoiser"]


def test_an_interrupted_build_resumes(plain_checkpoint: Path, tmp_path: Path) -> None:
    seen: list[Built] = []

    def interrupt(engine: Built) -> None:
        seen.append(engine)
        if len(seen) in (1, 2):
            raise KeyboardInterrupt

    out = tmp_path / "out"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            build_bundle(Source(plain_checkpoint), out, report=interrupt)
        assert not out.exists()
    assert [(engine.name, engine.reused) for engine in seen] == [
        ("conditioner", False),
        ("conditioner", True),
    ]
    log = (tmp_path / "out.log").read_text()
    assert "KeyboardInterrupt" in log and "conditioner: reused" in log


def test_force_reuses_nothing_and_keeps_the_old_bundle_until_the_new_is_whole(
    mini: tuple[Source, Path],
) -> None:
    source, out = mini

    def interrupt(engine: Built) -> None:
        assert engine.name == "conditioner" and not engine.reused
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_bundle(source, out, Options(force=True), interrupt)
    assert len(open_bundle(out).engines) == 5


def test_an_engine_above_the_tolerance_fails_the_build(
    plain_checkpoint: Path, tmp_path: Path
) -> None:
    options = Options("fp16", tolerance=1e-9)
    with pytest.raises(UserError, match=r"conditioner differs from PyTorch by .*--tolerance"):
        build_bundle(Source(plain_checkpoint), tmp_path / "out", options)
    assert [path.name for path in tmp_path.iterdir()] == ["out.log"]
    assert "conditioner differs" in (tmp_path / "out.log").read_text()


def test_a_reused_engine_must_meet_the_tolerance_too(mini: tuple[Source, Path]) -> None:
    with pytest.raises(UserError, match="differs from PyTorch"):
        build_bundle(*mini, Options(tolerance=1e-9))
    assert all(again for again in reused(*mini)[1].values())


def test_what_is_no_bundle_is_never_touched(mini_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    for options in (Options(), Options(force=True)):
        with pytest.raises(UserError, match="is no bundle"):
            build_bundle(Source(mini_checkpoint), tmp_path, options)
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
    assert not tmp_path.with_name(f"{tmp_path.name}.log").exists()


def test_the_bundle_of_another_model_needs_force(
    mini: tuple[Source, Path], plain_checkpoint: Path
) -> None:
    with pytest.raises(UserError, match=r"the bundle of mini, not of plain; .*--force"):
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


def test_engines_are_compared_with_openvino_where_it_is_installed(mini_bundle: Bundle) -> None:
    pytest.importorskip("openvino")
    for entry in mini_bundle.manifest["engines"].values():
        parity = entry["parity_openvino"]
        assert 0 < parity["max_relative_error"] < 1e-4 and parity["batches"] == [1, 3, 24]


# Of opset 17, whose axes OpenVINO 2026.4 does not read: one norm for the whole batch.
_NORMALISING = """<ir_version: 8, opset_import: ["": 17]>
net (float[N,3,24,24] x) => (float[N,8] scores) {
  small = AveragePool <kernel_shape = [6, 6], strides = [6, 6]> (x)
  features = Flatten (small)
  length = ReduceL1 <axes = [1], keepdims = 1> (features)
  direction = Div (features, length)
  scores = MatMul (direction, weight)
}"""


@pytest.fixture
def normalising(mini: tuple[Source, Path]) -> tuple[Source, Path]:
    """A checkpoint with a classifier that OpenVINO computes otherwise."""
    pytest.importorskip("openvino")
    source, out = mini
    model = onnx.parser.parse_model(_NORMALISING)
    weight = 50 * np.random.default_rng(5).standard_normal((48, 8)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    onnx.save(model, source.directory / "classifiers" / "small.onnx")
    return source, out


def test_what_openvino_computes_otherwise_runs_on_onnxruntime(
    normalising: tuple[Source, Path],
) -> None:
    source, out = normalising
    result = CliRunner().invoke(build_engines, [str(source.directory), "--out", str(out)])
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if "OpenVINO" in line]
    assert len(lines) == 1
    assert lines[0].startswith("classifier.small runs on ONNX Runtime: OpenVINO 20")
    bundle = open_bundle(out)
    sampler, reference = Sampler.of(bundle, "openvino-cpu"), Sampler.of(bundle, "onnxruntime-cpu")
    images = np.random.default_rng(0).random((24, 3, 16, 16), np.float32)
    wanted = [verdict.probabilities for verdict in reference.judge(images, ["happy"] * 24)]
    found = [verdict.probabilities for verdict in sampler.judge(images, ["happy"] * 24)]
    assert found == wanted
    assert sampler.engines["decoder"].backend == "openvino-cpu"


def test_the_target_openvino_refuses_what_is_wrong_there(
    normalising: tuple[Source, Path],
) -> None:
    source, out = normalising
    before = (out / "bundle.json").read_bytes()
    with pytest.raises(
        UserError, match=r"engine classifier\.small cannot run on OpenVINO"
    ) as error:
        build_bundle(source, out, Options(targets=("openvino",)))
    assert "tolerance" not in str(error.value) and "--target openvino" in str(error.value)
    assert (out / "bundle.json").read_bytes() == before


def test_without_openvino_the_build_says_how_to_compare_later(
    mini: tuple[Source, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = mini
    missing = BackendStatus("openvino-cpu", False, "openvino is not installed", "install it")
    monkeypatch.setattr("synfer_rt.export.build.whole_bundle.status", lambda name: missing)
    shutil.rmtree(out)
    result = CliRunner().invoke(build_engines, [str(source.directory), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert f"`synfer-rt verify-engines {out}`" in result.output
    assert all(spec.parity_openvino is None for spec in open_bundle(out).engines.values())
    with pytest.raises(UserError, match="target openvino cannot be had: openvino is not installed"):
        build_bundle(source, out, Options(targets=("openvino",)))


def test_engines_are_built_side_by_side(mini: tuple[Source, Path]) -> None:
    source, out = mini
    classifiers = source.directory / "classifiers"
    for name in ("small", "large"):
        save_classifier(classifiers / f"{name}.onnx", 3, 8, opset=18)
    shutil.copy(classifiers / "small.json", classifiers / "large.json")
    bundle, again = reused(source, out, Options(jobs=2))
    new = {name for name, old in again.items() if not old}
    assert new == {"classifier.small", "classifier.large"} == set(bundle.classifiers)


def test_int8_is_for_denoiser_and_classifiers_and_as_incremental(
    mini_checkpoint: Path, tmp_path: Path
) -> None:
    source = Source(Path(shutil.copytree(mini_checkpoint, tmp_path / "checkpoint")))
    bundle, _ = reused(source, tmp_path / "out", Options("int8"))
    precisions = {name: engine.precision for name, engine in bundle.engines.items()}
    assert precisions == {
        "conditioner": "fp16",
        "denoiser": "int8",
        "decoder": "fp16",
        "encoder": "fp16",
        "classifier.small": "int8",
    }
    assert CHECKPOINT_INDEX not in bundle.manifest["files"]  # no engine holds those tensors
    graph = onnx.load(bundle.path / "denoiser.onnx").graph
    assert any(node.op_type == "DequantizeLinear" for node in graph.node)
    assert 1e-4 < bundle.engines["denoiser"].parity["max_relative_error"] < 0.2
    save_classifier(source.directory / "classifiers" / "small.onnx", 3, 8, opset=18)
    _, again = reused(source, tmp_path / "out", Options("int8"))
    assert {name for name, old in again.items() if not old} == {"classifier.small"}


@pytest.mark.slow
def test_int8_is_calibrated_on_the_engines_of_now_not_of_a_build_that_failed(
    mini_checkpoint: Path, tmp_path: Path
) -> None:
    source = Source(Path(shutil.copytree(mini_checkpoint, tmp_path / "checkpoint")))
    with pytest.raises(UserError, match="denoiser"):
        build_bundle(source, tmp_path / "out", Options("int8", tolerance=1e-9))
    weights = source.directory / "text_encoder" / "model.safetensors"
    save_file({name: 3 * tensor for name, tensor in load_file(weights).items()}, weights)
    found = [build_bundle(source, tmp_path / name, Options("int8")) for name in ("out", "anew")]
    assert hashes(found[0])["denoiser.onnx"] == hashes(found[1])["denoiser.onnx"]


def test_plans_are_compiled_once_for_each_engine(mini: tuple[Source, Path]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="the target needs tensorrt-rtx")
    source, out = mini
    options = Options(targets=("tensorrt-rtx",), capabilities=("sm89",), batch=(1, 2, 4))
    bundle, _ = reused(source, out, options)
    plans = bundle.manifest["plans"]["tensorrt-rtx"]
    assert set(plans) == set(bundle.engines)
    for name, plan in plans.items():
        engine = bundle.manifest["engines"][name]["file"]
        assert plan["source_sha256"] == bundle.manifest["files"][engine]["sha256"]
        assert plan["file"] in bundle.manifest["files"]
        assert plan["compute_capabilities"] == ["sm89"]
    assert all(reused(source, out, options)[1].values())
    save_classifier(source.directory / "classifiers" / "small.onnx", 3, 8, opset=18)
    _, again = reused(source, out, options)
    new = {name for name, old in again.items() if not old}
    assert new == {"classifier.small", "classifier.small (tensorrt-rtx)"}


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
    assert "is no error" in str(result.exception)


@pytest.mark.parametrize("batch", ["4", "8:4:16", "0:1:2", "1:2:x"])
def test_a_batch_that_is_no_profile_is_refused(tmp_path: Path, batch: str) -> None:
    arguments = [str(tmp_path), "--out", str(tmp_path / "out"), "--batch", batch]
    result = CliRunner().invoke(build_engines, arguments)
    assert isinstance(result.exception, UserError) and "MIN:OPT:MAX" in str(result.exception)


def test_compute_capabilities_without_plans_are_refused(tmp_path: Path) -> None:
    arguments = [str(tmp_path), "--out", str(tmp_path / "out"), "--compute-capability", "sm89"]
    result = CliRunner().invoke(build_engines, arguments)
    assert isinstance(result.exception, UserError) and "--target" in str(result.exception)


def test_the_command_says_what_was_reused_and_where_the_log_is(mini: tuple[Source, Path]) -> None:
    source, out = mini
    change(source.directory / "scheduler" / "scheduler_config.json", use_quantum_sigmas=True)
    result = CliRunner().invoke(build_engines, [str(source.directory), "--out", str(out)])
    assert result.exit_code == 0, result.exception
    assert "denoiser: reused" in result.output and "peak memory" in result.output
    assert f"{out}.log" in result.output
    remark = "the setting use_quantum_sigmas is not known to diffusers"
    assert remark in result.output and remark in Path(f"{out}.log").read_text()


@pytest.mark.parametrize("sizes", ["256", "256:", "512:256", "256:256", "0:64", "a:b"])
def test_sizes_that_are_no_range_are_refused(tmp_path: Path, sizes: str) -> None:
    arguments = [str(tmp_path), "--out", str(tmp_path / "out"), "--sizes", sizes]
    with pytest.raises(UserError, match=r"are no range; write MIN:MAX in pixels"):
        build_engines.main(arguments, standalone_mode=False)
