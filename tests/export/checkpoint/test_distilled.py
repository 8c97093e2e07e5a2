"""A student beside the UNet becomes an engine and the quality "fast", or is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from synfer_rt.backends import open_engine
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.bundle.identity import CHECKPOINT_INDEX, CHECKPOINT_TENSORS
from synfer_rt.bundle.qualities import Distilled
from synfer_rt.errors import UserError
from synfer_rt.export.build.keys import file_hashes
from synfer_rt.export.build.unpack import unpack
from synfer_rt.export.build.whole_bundle import Options, Source, build_bundle, build_keys
from synfer_rt.export.checkpoint.index import write_index
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.files.lora.merge import Lora
from synfer_rt.export.networks.modules import Denoiser
from synfer_rt.export.onnx.shared_weights import data_files
from tests.conftest import Once
from tests.export.tensors import checkpoint_tensors
from tests.export.tiny_checkpoint import change, refusal, save_adapter, save_lora

SAYS = {"solver": "ddim", "steps": 2, "guidance": 3.0, "strengths": [0.8, 1.0]}
WEIGHTS = "distilled_unet/diffusion_pytorch_model.safetensors"


def add_student(checkpoint: Path) -> None:
    """A student of other weights in half of the layers, and the default quality."""
    shutil.copytree(checkpoint / "unet", checkpoint / "distilled_unet")
    tensors = load_file(checkpoint / WEIGHTS)
    torch.manual_seed(11)
    moved = {
        name: x + 0.1 * torch.randn_like(x) if "conv" in name else x for name, x in tensors.items()
    }
    save_file(moved, checkpoint / WEIGHTS, {"format": "pt"})
    settings = json.loads((checkpoint / "synfer.json").read_text())
    defaults = settings["defaults"] | {"quality": "fast"}
    change(checkpoint / "synfer.json", distilled=SAYS, defaults=defaults)


@pytest.fixture(scope="module")
def with_student(mini_checkpoint: Path, once: Once) -> Path:
    def make(out: Path) -> None:
        shutil.copytree(mini_checkpoint, out)
        add_student(out)

    return once("checkpoints/distilled", make)


@pytest.fixture(scope="module")
def bundle(with_student: Path, once: Once) -> Bundle:
    return open_bundle(
        once("bundles/distilled", lambda out: build_bundle(Source(with_student), out))
    )


@pytest.fixture
def checkpoint(with_student: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(with_student, tmp_path / "mini"))


def keys(source: Source) -> dict[str, str]:
    checkpoint = source.read()
    return build_keys(checkpoint, source, Options(), 24, file_hashes(checkpoint))


@pytest.mark.slow
def test_a_student_becomes_the_quality_fast(bundle: Bundle) -> None:
    assert bundle.qualities == ("best", "fast") and bundle.defaults.quality == "fast"
    assert bundle.distilled == Distilled("denoiser.distilled", "ddim", 2, 3.0, (0.8, 1.0))
    assert bundle.manifest["qualities"]["best"] == {"denoiser": "denoiser"}
    assert bundle.engines["denoiser.distilled"].parity["max_relative_error"] < 1e-4
    assert WEIGHTS in bundle.manifest["source"]["sha256"]


@pytest.mark.slow
def test_its_engine_computes_what_its_unet_does(bundle: Bundle, with_student: Path) -> None:
    """On branch 1 of the conditioning, with the adapter's bias; the teacher's differs."""
    checkpoint = read_checkpoint(with_student)
    draw = np.random.default_rng(0)
    inputs: dict[str, np.ndarray] = {
        tensor.name: draw.standard_normal(
            [3 if size == "B" else int(size) for size in tensor.shape]
        ).astype("f4")
        for tensor in bundle.engines["denoiser.distilled"].inputs
    }
    inputs["timestep"] = np.array(600, "f4")
    given = {name: torch.from_numpy(array) for name, array in inputs.items()}
    found = open_engine(bundle, "denoiser.distilled", "onnxruntime-cpu", threads=1).run(inputs)
    predicted = []
    for folder in ("distilled_unet", "unet"):
        unet: Any = UNet2DConditionModel.from_pretrained(with_student / folder)
        conditioning = [name for name in ("text", "au_bias", "class_labels") if name in given]
        denoiser = Denoiser(unet.eval(), conditioning, checkpoint.adapter).eval()
        with torch.no_grad():
            branch = {name: given[name][:, 1] for name in conditioning}
            predicted.append(denoiser.predict(given["latents"], given["timestep"], branch).numpy())
    student, teacher = predicted
    np.testing.assert_allclose(found["prediction"], student, atol=1e-5)
    assert np.abs(student - teacher).max() > 1e-2


@pytest.mark.slow
def test_weights_that_the_teacher_has_too_are_stored_once(bundle: Bundle) -> None:
    assert "denoiser.onnx.data" in data_files(bundle.path / "denoiser.distilled.onnx")


@pytest.mark.slow
def test_a_student_changes_no_other_file(bundle: Bundle, mini_bundle: Bundle) -> None:
    """So what the denoiser makes keeps its hash."""
    without, with_it = mini_bundle.manifest["files"], bundle.manifest["files"]
    kept = {CHECKPOINT_INDEX, CHECKPOINT_TENSORS}
    assert without.keys() <= with_it.keys()
    assert {n for n in without if without[n]["sha256"] != with_it[n]["sha256"]} <= kept


def test_a_student_changes_no_other_engine(with_student: Path, mini_checkpoint: Path) -> None:
    plain = keys(Source(mini_checkpoint))
    assert {name: key for name, key in keys(Source(with_student)).items() if name in plain} == plain


def test_its_engine_depends_on_its_weights_but_not_on_how_it_is_sampled(checkpoint: Path) -> None:
    before = keys(Source(checkpoint))
    change(checkpoint / "synfer.json", distilled=SAYS | {"steps": 3})
    assert keys(Source(checkpoint)) == before
    tensors = load_file(checkpoint / WEIGHTS)
    save_file({name: 2 * x for name, x in tensors.items()}, checkpoint / WEIGHTS)
    after = keys(Source(checkpoint))
    assert {name for name in before if before[name] != after[name]} == {"denoiser.distilled"}


@pytest.mark.slow
def test_a_bundle_gives_the_student_back(
    bundle: Bundle, with_student: Path, tmp_path: Path
) -> None:
    unpack(bundle, tmp_path / "out")
    before, after = (checkpoint_tensors(path)[WEIGHTS] for path in (with_student, tmp_path / "out"))
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name], name)
    again = read_checkpoint(tmp_path / "out").settings
    assert again == read_checkpoint(with_student).settings
    assert again.distilled == SAYS and again.defaults["quality"] == "fast"


def left_out(source: Source) -> str:
    """The remark on a student that is not built."""
    found = source.read()
    assert "distilled_unet" not in found.additions and found.settings.distilled is None
    assert "quality" not in found.settings.defaults
    assert "denoiser.distilled" not in keys(source)
    assert not any("distilled_unet" in path.as_posix() for path in found.weight_files)
    (said,) = (remark for remark in found.remarks if "distilled_unet" in remark)
    return said


def test_what_changes_the_model_leaves_its_student_out(checkpoint: Path, tmp_path: Path) -> None:
    unet = read_checkpoint(checkpoint).unet
    lora = Lora(save_lora(tmp_path / "lora", unet=unet), 1.0)
    assert "is left out, since `lora` changes the model" in left_out(
        Source(checkpoint, loras=(lora,))
    )
    save_adapter(unet, tmp_path / "other.safetensors")
    assert "`au_adapter` changes the model" in left_out(
        Source(checkpoint, tmp_path / "other.safetensors")
    )
    own = Source(checkpoint, checkpoint / "au_adapter.safetensors")
    assert "distilled_unet" in own.read().additions


@pytest.mark.parametrize("size", [{"resolution": (32, 16)}, {"sizes": (8, 32)}], ids=str)
def test_a_student_is_built_at_its_own_size_alone(checkpoint: Path, size: dict[str, Any]) -> None:
    assert "for images of the checkpoint's own size" in left_out(Source(checkpoint, **size))


def test_a_bundle_without_the_student_keeps_nothing_of_it(checkpoint: Path, tmp_path: Path) -> None:
    write_index(Source(checkpoint, resolution=(16, 32)).read(), tmp_path, {})
    files = json.loads((tmp_path / CHECKPOINT_INDEX).read_text())["files"]
    assert not any("distilled_unet" in name for name in files)
    assert "distilled" not in files["synfer.json"]
    assert "quality" not in files["synfer.json"]["defaults"]
    assert not any("distilled" in name for name in load_file(tmp_path / CHECKPOINT_TENSORS))


def test_a_student_stays_in_floats_beside_int8_engines() -> None:
    options = Options("int8")
    assert options.precision_of("denoiser") == "int8"
    assert options.precision_of("denoiser.distilled") == "fp16"


@pytest.mark.parametrize(
    ("distilled", "said"),
    [
        (None, r'does not say what distilled_unet/ was distilled for; add "distilled": \{'),
        ([], "no object; write one such as"),
        ({"steps": 2}, "a distilled without solver; write all of"),
        (SAYS | {"step": 2}, "the unknown field 'step'; the nearest is steps"),
        (SAYS | {"solver": "dimm"}, "the solver 'dimm' in distilled; write one of ddim"),
        (SAYS | {"solver": ["ddim"]}, r"the solver \['ddim'\] in distilled"),
        (SAYS | {"steps": 0}, "the steps 0 in distilled; write a whole number"),
        (SAYS | {"steps": 2.5}, "the steps 2.5 in distilled"),
        (SAYS | {"steps": 1001}, "The student cannot be sampled as .*synfer.json says: `steps`"),
        (SAYS | {"guidance": 0.5}, "the guidance 0.5 in distilled; write a number from 1 to"),
        (SAYS | {"strengths": []}, r"the strengths \[\] in distilled; write a list of numbers"),
        (SAYS | {"strengths": 0.8}, "the strengths 0.8 in distilled"),
        (SAYS | {"strengths": [0]}, r"the strengths \[0\] in distilled"),
        (SAYS | {"strengths": ["1"]}, r"the strengths \['1'\] in distilled"),
        (SAYS | {"strengths": [1.0]}, "sampling starts at strength 0.8, which is not among"),
        (SAYS | {"timesteps": [[799, 9]]}, r"in distilled; write for each strength a list"),
        (SAYS | {"timesteps": [[799, 9], [9, 999]]}, "`timesteps` must decrease"),
        (SAYS | {"timesteps": 999}, "the timesteps 999 in distilled"),
    ],
)
def test_what_it_was_distilled_for_must_be_said(
    checkpoint: Path, distilled: Any, said: str
) -> None:
    change(checkpoint / "synfer.json", distilled=distilled)
    with pytest.raises(UserError, match=said):
        read_checkpoint(checkpoint)


def test_the_settings_alone_are_refused(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint / "distilled_unet")
    said = refusal(checkpoint)
    assert "has the field distilled, but there is no distilled_unet/ beside it" in said


@pytest.mark.parametrize(
    ("quality", "said"), [("fast", "but there is no distilled_unet/"), ("draft", "write one of")]
)
def test_a_default_quality_that_cannot_be_is_refused(
    mini_checkpoint: Path, tmp_path: Path, quality: str, said: str
) -> None:
    copy = Path(shutil.copytree(mini_checkpoint, tmp_path / "mini"))
    change(copy / "synfer.json", defaults={"quality": quality})
    assert f"the default quality {quality!r}".replace("'fast'", "fast") in refusal(copy)
    assert said in refusal(copy)


def weights(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        file = folder / "diffusion_pytorch_model.safetensors"
        tensors = load_file(file)
        edit(tensors)
        save_file(tensors, file)

    return apply


def config(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / "config.json", **fields)


def cut(folder: Path) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (config(cross_attention_dim=24), "has cross_attention_dim 24, the UNet 16; give a student"),
        (config(class_embed_type=None), "has class_embed_type None, the UNet 'projection'"),
        (config(block_out_channels=[32]), r"has block_out_channels \[32\], the UNet"),
        (config(attention_head_dim=4), "has attention_head_dim 4, the UNet 2"),
        (config(norm_num_groups=8), "has norm_num_groups 8, the UNet 4"),
        (
            weights(lambda t: t.update({"conv_in.bias": t["conv_in.bias"][:-1]})),
            r"has conv_in\.bias of shape \[15\], the UNet of \[16\]",
        ),
        (weights(lambda t: t.pop("conv_in.bias")), r"lacks the weights conv_in\.bias; save"),
        (cut, "is not a complete safetensors file"),
        (lambda f: (f / "diffusion_pytorch_model.safetensors").unlink(), r"no \*\.safetensors"),
        (lambda f: (f / "config.json").unlink(), r"config\.json cannot be read"),
    ],
)
def test_a_student_of_another_model_is_refused(
    checkpoint: Path, edit: Callable[[Path], None], said: str
) -> None:
    edit(checkpoint / "distilled_unet")
    with pytest.raises(UserError, match=said):
        read_checkpoint(checkpoint)


def test_a_config_may_leave_out_what_diffusers_fills_in(checkpoint: Path) -> None:
    file = checkpoint / "distilled_unet/config.json"
    fields = json.loads(file.read_text())
    for name in ("dropout", "flip_sin_to_cos", "sample_size", "act_fn"):
        del fields[name]
    file.write_text(json.dumps(fields))
    assert "distilled_unet" in read_checkpoint(checkpoint).additions
