"""CUDA engines added to a finished bundle: what is made, reused and left as it was."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
from click.testing import CliRunner

from synfer_rt.backends import status
from synfer_rt.backends.parity import OPENVINO, measured
from synfer_rt.bundle import MANIFEST, Bundle, open_bundle
from synfer_rt.bundle.files import file_entry
from synfer_rt.commands.cli import main
from synfer_rt.errors import UserError
from synfer_rt.export import Built, add_cuda_engines, build_engines
from synfer_rt.export.build import cuda_engines
from tests import tiny_bundle as tiny
from tests.damaged_bundles import change, rehash

ROOT = Path(__file__).parents[3]


@pytest.fixture
def copy(guided_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle with every kind of engine, and without CUDA engines."""
    return Path(shutil.copytree(guided_bundle.path, tmp_path / "copy"))


@pytest.fixture(scope="module")
def fused(guided_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """That bundle with CUDA engines."""
    return add_cuda_engines(guided_bundle.path, tmp_path_factory.mktemp("fused") / "out")


def made(path: Path, **options: object) -> tuple[Bundle, dict[str, bool], list[str]]:
    """Add CUDA engines; say of each whether it was reused, and what was remarked."""
    built: list[Built] = []
    said: list[str] = []
    bundle = add_cuda_engines(path, report=built.append, remark=said.append, **options)  # pyright: ignore[reportArgumentType]
    return bundle, {one.name.removesuffix(" (cuda)"): one.reused for one in built}, said


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_each_engine_gets_one_and_nothing_else_changes(guided_bundle: Bundle, copy: Path) -> None:
    before = bytes_of(copy)
    bundle, again, said = made(copy)
    assert again == dict.fromkeys(guided_bundle.engines, False) and said == []
    assert bundle.path == copy and bundle.bundle_hash == guided_bundle.bundle_hash
    after = bytes_of(copy)
    added = {f"{name}.cuda.onnx" for name in guided_bundle.engines}
    assert after.keys() - before.keys() == added
    assert {name for name in before if after[name] != before[name]} == {MANIFEST}
    assert [file.name for file in sorted(copy.parent.iterdir())] == ["copy", "copy.log"]
    assert "denoiser (cuda)" in (copy.parent / "copy.log").read_text()


def test_their_precision_and_parity_are_in_the_manifest(fused: Bundle) -> None:
    for name, spec in fused.cuda.items():
        guide = name.startswith("guide.")
        assert spec.precision == ("fp32" if guide else "fp16")
        assert spec.parity["tolerance"] == (2e-4 if guide else 2e-2)
        assert 0 <= spec.parity["max_relative_error"] < spec.parity["tolerance"]
        assert spec.parity["batches"] == [1, 3]
        graph = onnx.load(fused.path / spec.file, load_external_data=False).graph
        assert spec.nodes == len(graph.node)
    assert fused.cuda["denoiser"].parity["max_relative_error"] > 1e-5  # what float16 rounds


def test_the_same_again_makes_nothing_and_changes_no_byte(fused: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(fused.path, tmp_path / "copy"))
    _, again, _ = made(copy)
    assert again == dict.fromkeys(fused.engines, True)
    assert bytes_of(copy) == bytes_of(fused.path)


def test_made_anew_they_have_the_same_bytes(fused: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(fused.path, tmp_path / "copy"))
    _, again, _ = made(copy, force=True)
    assert again == dict.fromkeys(fused.engines, False)
    assert bytes_of(copy) == bytes_of(fused.path)


def test_several_processes_make_the_same(fused: Bundle, copy: Path) -> None:
    bundle, again, _ = made(copy, jobs=2)
    assert again == dict.fromkeys(fused.engines, False)
    assert list(bundle.cuda) == list(fused.cuda)
    assert bytes_of(copy) == bytes_of(fused.path)


def test_with_out_the_bundle_stays_as_it_was(guided_bundle: Bundle, fused: Bundle) -> None:
    assert guided_bundle.cuda == {} == open_bundle(guided_bundle.path).cuda
    own = {f"{name}.cuda.onnx" for name in fused.engines} | {MANIFEST}
    before, after = bytes_of(guided_bundle.path), bytes_of(fused.path)
    assert {name for name in after if after[name] != before.get(name)} == own


def test_one_that_is_missing_is_made_alone(fused: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(fused.path, tmp_path / "copy"))
    change(copy, lambda fields: fields["cuda"].pop("encoder"))
    _, again, _ = made(copy)
    assert [name for name, old in again.items() if not old] == ["encoder"]
    assert bytes_of(copy) == bytes_of(fused.path)


def test_a_damaged_bundle_is_refused(fused: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(fused.path, tmp_path / "copy"))
    with (copy / "feranno.onnx").open("ab") as file:
        file.write(b" ")
    with pytest.raises(UserError, match=r"feranno\.onnx has \d+ bytes instead of"):
        add_cuda_engines(copy)


def test_damaged_and_missing_cuda_engines_are_made_again(fused: Bundle, tmp_path: Path) -> None:
    before = bytes_of(fused.path)
    copy = Path(shutil.copytree(fused.path, tmp_path / "copy"))
    with (copy / "decoder.cuda.onnx").open("ab") as file:
        file.write(b" ")
    (copy / "encoder.cuda.onnx").unlink()
    again = rf"make its CUDA engines again with `synfer-rt build-engines {copy} --target cuda`"
    with pytest.raises(UserError, match=again):
        open_bundle(copy)
    add_cuda_engines(copy)
    assert bytes_of(copy) == before


def test_a_copy_shares_no_file_with_its_source(fused: Bundle, tmp_path: Path) -> None:
    copy = add_cuda_engines(fused.path, tmp_path / "copy").path
    assert bytes_of(copy) == bytes_of(fused.path)
    for file in copy.iterdir():
        assert not file.samefile(fused.path / file.name)


def test_an_interrupted_call_leaves_the_bundle_and_is_continued(
    fused: Bundle, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bytes_of(copy)

    def interrupted(source: Path, target: Path, name: str, precision: str | None = None) -> None:
        if name == "encoder":
            raise KeyboardInterrupt
        rewrite(source, target, name, precision)

    rewrite = cuda_engines.cuda_engine
    monkeypatch.setattr(cuda_engines, "cuda_engine", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add_cuda_engines(copy)
    assert bytes_of(copy) == before
    monkeypatch.undo()
    _, again, _ = made(copy)
    assert [name for name, old in again.items() if old] == ["conditioner", "denoiser", "decoder"]
    assert bytes_of(copy) == bytes_of(fused.path)
    assert not (copy.parent / f".{copy.name}.building").exists()


_SCORES_THAT_OVERFLOW = """
classifier (float[B,3,32,32] images) => (float[B,8] probabilities) {
  small = AveragePool <kernel_shape = [8, 8], strides = [8, 8]> (images)
  features = Flatten (small)
  large = Gemm (features, weight)
  scale = Constant <value_float = 0.00001> ()
  logits = Mul (large, scale)
  probabilities = Softmax (logits)
}
"""


def test_a_classifier_that_overflows_in_float16_computes_in_float32(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    weight = 2e4 * np.random.default_rng(0).random((48, 8), np.float32)  # below 65504 itself
    graphs = {"classifier.wide": (_SCORES_THAT_OVERFLOW, {"weight": weight})}
    schemes = {"classifier.wide": tiny.CLASSIFIER_SCHEME}
    path = tiny.add_engines(tiny_bundle, tmp_path / "wide", graphs, schemes).path
    bundle, _, said = made(path)
    assert {name for name, spec in bundle.cuda.items() if spec.precision == "fp32"} == {
        "classifier.wide"
    }
    assert bundle.cuda["classifier.wide"].parity["max_relative_error"] < 1e-5
    (remark,) = said
    assert remark.startswith("classifier.wide computes in float32 on GPUs. ")
    assert "differs in fp16 from classifier.wide by nan of its largest value" in remark


_SCORES_WITHOUT_KERNEL = """
classifier (float[B,3,32,32] images) => (float[B,8] probabilities) {
  small = AveragePool <kernel_shape = [8, 8], strides = [8, 8]> (images)
  features = Flatten (small)
  scores = Gemm (features, weight)
  winner = Hardmax (scores)
  logits = Add (scores, winner)
  probabilities = Softmax (logits)
}
"""


def test_a_classifier_that_cannot_be_rewritten_has_none(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    weight = np.random.default_rng(0).standard_normal((48, 8)).astype(np.float32)
    graphs = {"classifier.odd": (_SCORES_WITHOUT_KERNEL, {"weight": weight})}
    schemes = {"classifier.odd": tiny.CLASSIFIER_SCHEME}
    path = tiny.add_engines(tiny_bundle, tmp_path / "odd", graphs, schemes).path
    bundle, _, said = made(path)
    assert bundle.engines.keys() - bundle.cuda.keys() == {"classifier.odd"}
    assert not (path / "classifier.odd.cuda.onnx").exists()
    (remark,) = said
    assert remark.startswith("classifier.odd has no CUDA engine, and runs on GPUs as it is. ")
    assert "Hardmax" in remark


def test_a_classifier_called_like_the_cuda_engine_of_another_keeps_its_file(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    weight = np.random.default_rng(0).random((48, 8), np.float32)
    graphs = {"classifier.small.cuda": (_SCORES_THAT_OVERFLOW, {"weight": weight})}
    schemes = {"classifier.small.cuda": tiny.CLASSIFIER_SCHEME}
    path = tiny.add_engines(tiny_bundle, tmp_path / "two", graphs, schemes).path
    before = bytes_of(path)
    bundle, _, said = made(path)
    assert bytes_of(path)["classifier.small.cuda.onnx"] == before["classifier.small.cuda.onnx"]
    assert bundle.engines.keys() - bundle.cuda.keys() == {"classifier.small"}
    (remark,) = said
    assert remark == (
        "classifier.small has no CUDA engine, and runs on GPUs as it is. "
        "classifier.small.cuda.onnx is the file of another engine."
    )


_DECODER_THAT_OVERFLOWS = """
decoder (float[B,4,8,8] latents) => (float[B,3,32,32] images) {
  scales = Constant <value_floats = [1.0, 1.0, 4.0, 4.0]> ()
  nothing = Constant <value_floats: floats = []> ()
  wide = Resize <mode = "nearest"> (latents, nothing, scales)
  colour = Conv <pads = [1, 1, 1, 1]> (wide, weight)
  scale = Constant <value_float = 0.00001> ()
  small = Mul (colour, scale)
  images = Sigmoid (small)
}
"""


def test_a_decoder_that_overflows_in_float16_is_refused(copy: Path) -> None:
    model = onnx.load(copy / "decoder.onnx")
    (weight,) = model.graph.initializer
    large = 6e4 * np.sign(numpy_helper.to_array(weight))  # below 65504 itself
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {tiny.OPSET}]>' + _DECODER_THAT_OVERFLOWS
    )
    model.graph.initializer.append(numpy_helper.from_array(large, "weight"))
    onnx.save(model, copy / "decoder.onnx")
    rehash(copy, "decoder.onnx")
    before = bytes_of(copy)
    with pytest.raises(UserError, match=r"The CUDA engine of decoder differs in fp16 .*Leave out"):
        add_cuda_engines(copy)
    assert bytes_of(copy) == before


def test_int8_engines_have_none(copy: Path) -> None:
    change(copy, lambda fields: fields["engines"]["denoiser"].update(precision="int8"))
    with pytest.raises(UserError, match=r"int8 engines compute in int8 on CPUs only"):
        add_cuda_engines(copy)
    with pytest.raises(UserError, match=r"int8 engines compute in int8 on CPUs only"):
        build_engines("nowhere", copy, precision="int8", target="cuda")


def test_they_stay_when_openvino_is_measured(fused: Bundle, tmp_path: Path) -> None:
    if not status(OPENVINO).works:
        pytest.skip("needs OpenVINO")
    bundle = measured(open_bundle(shutil.copytree(fused.path, tmp_path / "copy")))
    assert bundle.cuda == fused.cuda
    assert all(spec.parity_openvino for spec in bundle.engines.values())


def test_pytorch_is_not_needed(copy: Path) -> None:
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "diffusers", "transformers", "onnxscript"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Block())
from synfer_rt.commands.cli import main
main()
"""
    command = [sys.executable, "-c", code, "build-engines", "--target", "cuda", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "decoder (cuda): built and verified in" in done.stdout
    assert open_bundle(copy).cuda.keys() == open_bundle(copy).engines.keys()


def test_the_command_makes_a_copy_with_out(copy: Path, tmp_path: Path) -> None:
    arguments = ["build-engines", str(copy), "--target", "cuda", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert f"is in {tmp_path / 'out'}, its build log in {tmp_path / 'out'}.log." in result.output
    assert open_bundle(tmp_path / "out").cuda and not open_bundle(copy).cuda


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give --target cuda alone"),
        (["--target", "openvino"], "give --target cuda alone"),
        (["--target", "cuda", "--target", "tensorrt-rtx"], "give --target cuda alone"),
        (["--target", "cuda", "--precision", "fp16"], "give --target cuda without --precision"),
        (
            ["--target", "cuda", "--lora", "x", "--sizes", "8:16"],
            "give --target cuda without --lora, --sizes",
        ),
    ],
)
def test_options_that_need_the_checkpoint_are_refused(
    copy: Path, options: list[str], words: str
) -> None:
    result = CliRunner().invoke(main, ["build-engines", str(copy), *options])
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert "is a bundle, to which CUDA engines can be added" in said and words in said


def test_a_checkpoint_needs_out(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["build-engines", str(tmp_path)])
    assert result.exit_code == 2 and "Missing option '--out'" in result.output


def test_the_shipped_weights_are_stored_once(tmp_path: Path) -> None:
    """The CUDA engines of large engines add a fraction of their weights."""
    shipped = open_bundle()
    small = ("denoiser", "decoder", "classifier.residual", "au-reader")
    for name in small:
        source = shipped.path / shipped.engines[name].file
        shutil.copyfile(source, tmp_path / source.name)
    for file in shipped.path.glob("*.data"):
        shutil.copyfile(file, tmp_path / file.name)
    for name in small:
        source = tmp_path / shipped.engines[name].file
        target = tmp_path / f"{name}.cuda.onnx"
        cuda_engines.cuda_engine(source, target, name)
        data = tmp_path / f"{source.name}.data"
        weights = file_entry(source)["bytes"] + (file_entry(data)["bytes"] if data.exists() else 0)
        assert file_entry(target)["bytes"] < 0.1 * weights, name


def test_the_manifest_lists_the_entry_of_each(fused: Bundle) -> None:
    entry = json.loads((fused.path / MANIFEST).read_text())["cuda"]["decoder"]
    assert list(entry) == [
        *("file", "precision", "inputs", "outputs", "source_sha256", "nodes", "parity"),
        "build_key",
    ]
