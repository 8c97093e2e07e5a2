"""The CUDA engines of a bundle: what its manifest may say about them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from synfer_rt.bundle import MANIFEST, Bundle, open_bundle, write_manifest
from synfer_rt.bundle.cuda import cuda_interface
from synfer_rt.bundle.engine_specs import EngineSpec
from synfer_rt.commands.cli import main
from synfer_rt.errors import UserError
from tests import tiny_bundle as tiny
from tests.damaged_bundles import change, rehash

Entry = dict[str, Any]


@pytest.fixture(scope="module")
def fused(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with a CUDA engine for each engine."""
    directory = shutil.copytree(tiny_bundle_path, tmp_path_factory.mktemp("cuda") / "tiny")
    return tiny.add_cuda_engines(open_bundle(directory))


def test_a_bundle_without_cuda_engines_has_none(tiny_bundle: Bundle) -> None:
    assert tiny_bundle.cuda == {}


def test_cuda_engines_are_found_by_engine(fused: Bundle) -> None:
    assert fused.cuda.keys() == fused.engines.keys()
    spec = fused.cuda["decoder"]
    assert (spec.engine, spec.file, spec.precision) == ("decoder", "decoder.cuda.onnx", "fp16")
    assert spec.source_sha256 == fused.manifest["files"]["decoder.onnx"]["sha256"]
    assert spec.nodes == 12
    assert spec.parity == {"tolerance": 2e-2, "max_relative_error": 1e-3, "batches": [1, 3]}


def test_what_changes_from_step_to_step_is_a_table_of_all_steps(fused: Bundle) -> None:
    plain, spec = fused.engines["denoiser"], fused.cuda["denoiser"]
    inputs = {tensor.name: (tensor.dtype, tensor.shape) for tensor in spec.inputs}
    assert inputs["timesteps"] == ("float32", ("S",))
    assert inputs["coefficients"] == ("float32", ("S", 4, 5))
    assert inputs["step"] == ("int64", ())
    same = [tensor for tensor in plain.inputs if tensor.name not in ("timestep", "coefficients")]
    assert {tensor.name for tensor in same} == inputs.keys() - {"timesteps", "coefficients", "step"}
    assert all(inputs[tensor.name] == (tensor.dtype, tensor.shape) for tensor in same)
    assert spec.outputs[:-1] == plain.outputs
    assert str(spec.outputs[-1]) == "next_step int64 []"


def test_a_guide_gathers_the_factors_of_the_clean_image_too() -> None:
    given = [("latents", ["B", 4, 8, 8]), ("timestep", []), ("clean", [2]), ("strength", ["B"])]
    inputs = [{"name": name, "dtype": "float32", "shape": shape} for name, shape in given]
    fields = {"file": "guide.text.onnx", "precision": "fp32", "opset": 21, "inputs": inputs}
    guide = EngineSpec.from_manifest("guide.text", {**fields, "outputs": []})
    found, outputs = cuda_interface(guide)
    assert [str(tensor) for tensor in found] == [
        "latents float32 ['B', 4, 8, 8]",
        "timesteps float32 ['S']",
        "cleans float32 ['S', 2]",
        "strength float32 ['B']",
        "step int64 []",
    ]
    assert outputs == ()


def test_the_decoder_also_returns_8_bit_pixels_and_soundness(fused: Bundle) -> None:
    plain, spec = fused.engines["decoder"], fused.cuda["decoder"]
    assert spec.inputs == plain.inputs
    assert [str(tensor) for tensor in spec.outputs] == [
        "images float32 ['B', 3, 32, 32]",
        "pixels uint8 ['B', 32, 32, 3]",
        "sound bool ['B']",
    ]


def test_other_engines_keep_their_inputs_and_outputs(fused: Bundle) -> None:
    for name in fused.engines.keys() - {"denoiser", "decoder"}:
        plain, spec = fused.engines[name], fused.cuda[name]
        assert (spec.inputs, spec.outputs) == (plain.inputs, plain.outputs)


def test_they_do_not_change_the_bundles_hash(fused: Bundle, tiny_bundle: Bundle) -> None:
    assert fused.bundle_hash == tiny_bundle.bundle_hash
    assert fused.former_hash == tiny_bundle.former_hash


def test_their_bytes_do_not_change_the_hash_but_are_checked(fused: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(fused.path, tmp_path / "copy"))
    (copy / "denoiser.cuda.onnx").write_bytes(b"another build")
    with pytest.raises(UserError, match=r"denoiser\.cuda\.onnx has 13 bytes instead of 8"):
        open_bundle(copy)
    rehash(copy, "denoiser.cuda.onnx")
    assert open_bundle(copy).bundle_hash == fused.bundle_hash


def test_a_run_notices_that_one_is_replaced(fused: Bundle, tmp_path: Path) -> None:
    bundle = open_bundle(shutil.copytree(fused.path, tmp_path / "copy"))
    bundle.check_unchanged()
    (bundle.path / "denoiser.cuda.onnx").write_bytes(b"reduoned")
    with pytest.raises(UserError, match=r"denoiser\.cuda\.onnx was changed or removed"):
        bundle.check_unchanged()


def test_a_bundle_may_have_some(fused: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(fused.path, tmp_path / "copy"))
    change(copy, lambda fields: fields.update(cuda={"decoder": fields["cuda"]["decoder"]}))
    assert open_bundle(copy).cuda.keys() == {"decoder"}


def edit_one(edit: Callable[[Entry], object]) -> Callable[[Entry], object]:
    return lambda fields: edit(fields["cuda"]["denoiser"])


def take(name: str) -> Callable[[Entry], object]:
    return edit_one(lambda entry: entry.pop(name))


def put(**values: Any) -> Callable[[Entry], object]:
    return edit_one(lambda entry: entry.update(values))


def keep_the_timestep(entry: Entry) -> None:
    (table,) = [tensor for tensor in entry["inputs"] if tensor["name"] == "timesteps"]
    table.update(name="timestep", shape=[])


def drop_step(entry: Entry) -> None:
    entry["inputs"] = [tensor for tensor in entry["inputs"] if tensor["name"] != "step"]


def return_halves(entry: Entry) -> None:
    entry["outputs"][0]["dtype"] = "float16"


DAMAGE: dict[str, tuple[Callable[[Entry], object], str]] = {
    "not an object": (lambda f: f.update(cuda=[]), "its CUDA engines are not an object"),
    "an unknown engine": (
        lambda f: f["cuda"].update(upscaler=f["cuda"]["decoder"]),
        "CUDA engine for the unknown engine 'upscaler'",
    ),
    "a number for one": (
        lambda f: f["cuda"].update(denoiser=3),
        "its CUDA engine for denoiser is not an object",
    ),
    "no file": (take("file"), "its CUDA engine for denoiser has no file"),
    "no source": (take("source_sha256"), "denoiser has no source_sha256"),
    "no inputs": (take("inputs"), "denoiser has no inputs"),
    "no nodes": (take("nodes"), "denoiser has no nodes"),
    "no parity": (take("parity"), "denoiser has no parity"),
    "no error": (
        edit_one(lambda e: e["parity"].pop("max_relative_error")),
        "no max_relative_error",
    ),
    "int8": (put(precision="int8"), "has the precision 'int8', not fp16 or fp32"),
    "another engine's file": (
        put(file="decoder.cuda.onnx"),
        r"denoiser is decoder\.cuda\.onnx, not denoiser\.cuda\.onnx",
    ),
    "the weights": (put(file="denoiser.onnx.data"), r"is denoiser\.onnx\.data, not denoiser\.cuda"),
    "a file outside": (put(file="../denoiser.cuda.onnx"), r"is \.\./denoiser\.cuda\.onnx, not"),
    "no hash": (lambda f: f["files"].pop("denoiser.cuda.onnx"), "which has no hash"),
    "another source": (put(source_sha256="0" * 64), r"was made from another denoiser\.onnx"),
    "a step's input": (
        edit_one(keep_the_timestep),
        r"its CUDA engine for denoiser has no input timesteps float32 \['S'\]",
    ),
    "no step": (edit_one(drop_step), r"has no input step int64 \[\]"),
    "a float16 output": (edit_one(return_halves), "has no output next_latents float32"),
    "no node": (put(nodes=0), r"cuda\.denoiser\.nodes is 0, not a whole number of 1 or more"),
    "an endless error": (
        edit_one(lambda e: e["parity"].update(max_relative_error=True)),
        r"cuda\.denoiser\.parity\.max_relative_error is True, not a number",
    ),
    "a batch of none": (
        edit_one(lambda e: e["parity"].update(batches=[0])),
        r"cuda\.denoiser\.parity\.batches\.0 is 0",
    ),
    "a shape of fractions": (
        edit_one(lambda e: e["inputs"][0].update(shape=["B", 0.5])),
        r"cuda\.denoiser\.inputs\.0\.shape\.1 is 0\.5, neither a length nor a name",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_what_does_not_fit_is_refused(fused: Bundle, tmp_path: Path, case: str) -> None:
    edit, words = DAMAGE[case]
    copy = Path(shutil.copytree(fused.path, tmp_path / "copy"))
    change(copy, edit)
    with pytest.raises(UserError, match=words) as error:
        open_bundle(copy)
    assert str(error.value).startswith(f"{copy / MANIFEST}")
    assert str(error.value).endswith("build the bundle again with `synfer-rt build-engines`.")


def test_a_manifest_is_not_written_over_a_missing_one(fused: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(fused.path, tmp_path / "copy"))
    (copy / "encoder.cuda.onnx").unlink()
    fields = {k: v for k, v in fused.manifest.items() if k not in ("format", "files")}
    with pytest.raises(UserError, match=r"encoder\.cuda\.onnx, which has no hash"):
        write_manifest(copy, fields)


def test_inspect_names_them(fused: Bundle, tiny_bundle_path: Path) -> None:
    said = CliRunner().invoke(main, ["inspect", str(fused.path)], env={"COLUMNS": "400"}).output
    assert f"CUDA engines  fp16 ({', '.join(fused.engines)})" in said
    assert said.count("CUDA fp16 1.0e-03 of 2e-02") == len(fused.engines)
    said = CliRunner().invoke(main, ["inspect", "--json", str(fused.path)]).output
    assert json.loads(said)["cuda"]["decoder"]["file"] == "decoder.cuda.onnx"
    said = CliRunner().invoke(main, ["inspect", str(tiny_bundle_path)]).output
    assert "CUDA engines  none" in said
